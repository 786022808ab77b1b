//! Properties of Kafka whose values are in files, and those that should be.

use std::collections::BTreeMap;

use super::value_file;

/// Reads the files that `place` names into `properties`, which hold what it sets otherwise.
/// What a file holds is never shown, since it may be a password.
pub(super) fn read(
    place: &str,
    files: BTreeMap<String, String>,
    properties: &mut BTreeMap<String, String>,
    problems: &mut Vec<String>,
) {
    for (name, path) in files {
        match value_file::read(&path) {
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
