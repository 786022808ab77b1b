//! A setting that is all of a file, so that it stands on no command line.

use std::{
    fs::File,
    io::{self, Read},
};

/// The longest value, in bytes: certificates and keys are shorter by far.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// What a file holds but for one line break at its end.
///
/// # Errors
/// What is wrong with the file, to be read behind its name. What it holds is not in it.
pub(super) fn read(path: &str) -> Result<String, String> {
    let cannot_be_read = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot_be_read)?;
    if file.metadata().map_err(cannot_be_read)?.is_dir() {
        return Err("is a directory".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot_be_read)?;
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        return Err(format!("is larger than {VALUE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() { Err("is empty".to_owned()) } else { Ok(value.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn value_keeps_all_but_its_line_break() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        for (text, expected) in [
            ("hunter2", Ok("hunter2")),
            ("hunter2\n", Ok("hunter2")),
            ("hunter2\r\n", Ok("hunter2")),
            (" a=b, c \n\n", Ok(" a=b, c \n")),
            ("\n", Err("is empty")),
            ("", Err("is empty")),
        ] {
            fs::write(&path, text).expect("a file");
            let read = read(&path.display().to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text:?}");
        }
        fs::write(&path, [0xff]).expect("a file");
        assert_eq!(read(&path.display().to_string()), Err("is not UTF-8".to_owned()));
        assert_eq!(read(&folder.path().display().to_string()), Err("is a directory".to_owned()));
        assert!(read("/dev/zero").is_err_and(|reason| reason.contains("is larger than")));
    }
}
