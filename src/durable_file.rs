//! Changes to files and directories that survive a power cut.
//!
//! A new, renamed or removed name is durable only once its directory has been
//! fsynced too. All calls block.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and those above it that are missing.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_all(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent)
}

/// Puts `contents` in place of `dir/name`, which after a crash holds either
/// what it held before or all of `contents`.
pub fn replace(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_holds_the_new_contents_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        create_dir_all(&nested).unwrap();
        create_dir_all(&nested).unwrap();
        replace(&nested, "name", b"one").unwrap();
        replace(&nested, "name", b"two").unwrap();
        assert_eq!(fs::read(nested.join("name")).unwrap(), b"two");
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1);
    }
}
