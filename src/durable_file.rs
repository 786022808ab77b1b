//! Changes to files and directories that survive a power cut.
//!
//! A new, renamed or removed name is durable only once its directory has been
//! fsynced too. What is created can be read by its owner alone. All calls block.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Options that open a file to write, and make a new one that its owner alone may read.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE);
    options
}

/// Makes a directory and those above it that are missing, for the owner alone. One that is
/// there keeps its mode.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_all(parent)?;
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent)
}

/// Opens a file to write, empty or new, and a new one for its owner alone.
pub fn create_file(path: &Path) -> io::Result<File> {
    private().create(true).truncate(true).open(path)
}

/// Puts `contents` in place of `dir/name`, which after a crash holds either
/// what it held before or all of `contents`. Its owner alone can read it then.
pub fn replace(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    // A crash may have left one behind, which would keep its mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_file(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn created_files_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        create_dir_all(&nested).unwrap();
        for name in ["a", "a/b"] {
            assert_eq!(mode(&dir.path().join(name)), 0o700, "{name}");
        }
        create_file(&nested.join("created")).unwrap();
        // Such as older versions have written, and left behind.
        for name in ["replaced", "replaced.new"] {
            fs::write(nested.join(name), b"old").unwrap();
            fs::set_permissions(nested.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        replace(&nested, "replaced", b"new").unwrap();
        for name in ["created", "replaced"] {
            assert_eq!(mode(&nested.join(name)), 0o600, "{name}");
        }
        fs::set_permissions(&nested, fs::Permissions::from_mode(0o750)).unwrap();
        create_dir_all(&nested).unwrap();
        assert_eq!(mode(&nested), 0o750);
    }

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
