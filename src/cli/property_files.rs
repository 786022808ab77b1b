//! Properties of Kafka whose values are in files, and those that should be.

use std::{collections::BTreeMap, fs};

/// The longest value, in bytes: certificates and keys are shorter by far.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Reads the files that `place` names into `properties`, which hold what it sets otherwise.
/// What a file holds is never shown, since it may be a password.
pub(super) fn read(
    place: &str,
    files: BTreeMap<String, String>,
    properties: &mut BTreeMap<String, String>,
    problems: &mut Vec<String>,
) {
    for (name, path) in files {
        match value(&path) {
            Ok(_) if properties.contains_key(&name) => problems.push(format!(
                "{place} names a file for the property {name}, which is set there too: leave one \
                 of them away"
            )),
            Ok(value) => drop(properties.insert(name, value)),
            Err(reason) => {
                problems.push(format!("{place}: the file {path} of the property {name} {reason}"))
            }
        }
    }
}

fn value(path: &str) -> Result<String, String> {
    let cannot_be_read = |error: std::io::Error| format!("cannot be read: {error}");
    // Anything but a file may not end.
    let metadata = fs::metadata(path).map_err(cannot_be_read)?;
    if metadata.is_file() && metadata.len() > VALUE_BYTES_MAX {
        return Err(format!("is larger than {VALUE_BYTES_MAX} bytes"));
    }
    if metadata.is_dir() {
        return Err("is a directory".to_owned());
    }
    let text = fs::read(path).map_err(cannot_be_read)?;
    let text = String::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() { Err("is empty".to_owned()) } else { Ok(value.to_owned()) }
}

/// The names of those of these `KEY=VALUE` flags whose values should not be seen.
pub(super) fn secrets(flags: &[String]) -> Vec<&str> {
    let names = flags.iter().filter_map(|flag| Some(flag.split_once('=')?.0.trim()));
    names.filter(|name| is_secret(name)).collect()
}

/// As librdkafka names its properties.
fn is_secret(name: &str) -> bool {
    name.ends_with(".password")
        || name.ends_with(".secret")
        || name.ends_with(".passphrase")
        // May hold the secret of a client.
        || name == "sasl.oauthbearer.config"
        || name == "ssl.key.pem"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn property_value_keeps_all_but_its_line_break() {
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
            let read = value(&path.display().to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text:?}");
        }
        fs::write(&path, [0xff]).expect("a file");
        assert!(value(&path.display().to_string()).is_err());
        assert_eq!(value(&folder.path().display().to_string()), Err("is a directory".to_owned()));
    }

    #[test]
    fn secrets_on_the_command_line_are_named() {
        let flags = [
            "sasl.password=x",
            " ssl.key.password = x",
            "ssl.keystore.password=x",
            "sasl.oauthbearer.client.secret=x",
            "ssl.key.pem=x",
            "sasl.username=x",
            "ssl.key.location=x",
            "sasl.password",
        ];
        let flags = flags.map(str::to_owned);
        let expected = [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "ssl.key.pem",
        ];
        assert_eq!(secrets(&flags), expected);
    }
}
