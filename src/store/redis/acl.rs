//! What the user of Redis must be allowed to do: these commands, on these keys, no channel.
//!
//! The list stands here once: README shows it as an `ACL SETUSER` line, the suites run as a
//! user that may do this and nothing else, and a start asks each node about all of it:
//!
//! ```text
//!  MULTI ──► each command, each kind of key: QUEUED or NOPERM ──► DISCARD
//! ```
//!
//! Redis checks permissions before it queues a command, so that nothing is carried out.

use super::{error::NodeError, keys, node::NodeConnection, resp::Value};

/// What to do where an ACL denies something.
pub(super) const ALLOW: &str = "allow it with ACL SETUSER: README.md, \"A user of Redis for \
                                Roost\", lists all keys and commands that Roost needs";

/// What Redis 7.0 answers where a script may not do something, beside `NOPERM`.
pub(super) const DENIED_IN_SCRIPT: &str = "The user executing the script can't";

/// Stands for a key in an example.
const KEY: &str = "roost:acl";

/// Commands as an ACL names them, each with a call that Redis would take.
const COMMANDS: &[(&str, &[&str])] = &[
    // The connection, and who else is connected.
    ("ping", &["PING"]),
    ("select", &["SELECT", "0"]),
    ("asking", &["ASKING"]),
    ("client|setname", &["CLIENT", "SETNAME", "roost:start:0"]),
    ("client|id", &["CLIENT", "ID"]),
    ("client|list", &["CLIENT", "LIST"]),
    ("client|kill", &["CLIENT", "KILL", "ID", "1"]),
    ("cluster|slots", &["CLUSTER", "SLOTS"]),
    ("info", &["INFO", "server"]),
    ("time", &["TIME"]),
    ("multi", &[]),
    ("discard", &[]),
    // Scripts.
    ("script|load", &["SCRIPT", "LOAD", "return 1"]),
    ("eval", &["EVAL", "return 1", "1", KEY]),
    ("evalsha", &["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "1", KEY]),
    // Keys of any type.
    ("del", &["DEL", KEY]),
    ("exists", &["EXISTS", KEY]),
    ("expire", &["EXPIRE", KEY, "1"]),
    ("pexpire", &["PEXPIRE", KEY, "1"]),
    ("randomkey", &["RANDOMKEY"]),
    ("scan", &["SCAN", "0"]),
    ("unlink", &["UNLINK", KEY]),
    // Strings.
    ("get", &["GET", KEY]),
    ("set", &["SET", KEY, "1"]),
    // Hashes.
    ("hdel", &["HDEL", KEY, "1"]),
    ("hexists", &["HEXISTS", KEY, "1"]),
    ("hget", &["HGET", KEY, "1"]),
    ("hgetall", &["HGETALL", KEY]),
    ("hkeys", &["HKEYS", KEY]),
    ("hlen", &["HLEN", KEY]),
    ("hmget", &["HMGET", KEY, "1"]),
    ("hrandfield", &["HRANDFIELD", KEY]),
    ("hset", &["HSET", KEY, "1", "1"]),
    ("hsetnx", &["HSETNX", KEY, "1", "1"]),
    // Lists.
    ("lindex", &["LINDEX", KEY, "0"]),
    ("linsert", &["LINSERT", KEY, "AFTER", "1", "1"]),
    ("llen", &["LLEN", KEY]),
    ("lpos", &["LPOS", KEY, "1"]),
    ("lpush", &["LPUSH", KEY, "1"]),
    ("lrange", &["LRANGE", KEY, "0", "0"]),
    ("lrem", &["LREM", KEY, "0", "1"]),
    ("lset", &["LSET", KEY, "0", "1"]),
    ("ltrim", &["LTRIM", KEY, "0", "0"]),
    ("rpush", &["RPUSH", KEY, "1"]),
    ("rpushx", &["RPUSHX", KEY, "1"]),
    // Sets and sorted sets.
    ("sadd", &["SADD", KEY, "1"]),
    ("scard", &["SCARD", KEY]),
    ("sismember", &["SISMEMBER", KEY, "1"]),
    ("smembers", &["SMEMBERS", KEY]),
    ("smismember", &["SMISMEMBER", KEY, "1"]),
    ("srem", &["SREM", KEY, "1"]),
    ("zadd", &["ZADD", KEY, "0", "1"]),
    ("zcard", &["ZCARD", KEY]),
    ("zrangebylex", &["ZRANGEBYLEX", KEY, "-", "+"]),
    ("zrem", &["ZREM", KEY, "1"]),
    // The stream of activations.
    ("xadd", &["XADD", KEY, "*", "r", "1"]),
    ("xrange", &["XRANGE", KEY, "-", "+"]),
];

/// What a user must be allowed, as `ACL SETUSER` takes it: the keys, then the commands.
pub fn acl_rules() -> String {
    let keys = keys::PREFIXES.iter().map(|prefix| format!("~{prefix}*"));
    let commands = COMMANDS.iter().map(|(name, _)| format!("+{name}"));
    let none = ["resetchannels".to_owned(), "-@all".to_owned()];
    keys.chain(none).chain(commands).collect::<Vec<_>>().join(" ")
}

/// What the user of a connection may not do though Roost must, in words; `None` where that is
/// nothing, or where `MULTI` itself is refused, without which it cannot be asked for safely.
///
/// # Errors
/// If the node does not answer.
pub(super) async fn missing(connection: &mut NodeConnection) -> Result<Option<String>, NodeError> {
    // Whatever is sent before it is known to be open would be carried out.
    match connection.call(&[b"MULTI"]).await {
        Ok(Value::Text(answer)) if answer == b"OK" => {}
        Ok(_) | Err(NodeError::Refused { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut commands = Vec::new();
    for (name, example) in COMMANDS.iter().filter(|(_, example)| !example.is_empty()) {
        if ask(connection, example).await?.is_some_and(|denied| denied == Denied::Command) {
            commands.push(format!("+{name}"));
        }
    }
    let mut keys = Vec::new();
    for prefix in keys::PREFIXES {
        let key = format!("{prefix}0");
        for example in [&["EXISTS", key.as_str()][..], &["SET", &key, "1"]] {
            if ask(connection, example).await? == Some(Denied::Key) {
                keys.push(format!("~{prefix}*"));
                break;
            }
        }
    }
    ask(connection, &["DISCARD"]).await?;
    Ok(in_words(&commands, &keys))
}

fn in_words(commands: &[String], keys: &[String]) -> Option<String> {
    let denied = match (commands.is_empty(), keys.is_empty()) {
        (true, true) => return None,
        (false, true) => format!("the commands {}", commands.join(" ")),
        (true, false) => format!("the keys {}", keys.join(" ")),
        (false, false) => {
            format!("the keys {} and the commands {}", keys.join(" "), commands.join(" "))
        }
    };
    Some(format!("its ACL denies this user {denied}; {ALLOW}"))
}

/// What an ACL denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Command,
    Key,
}

/// Sends a command, and says what of it is denied; any other answer will do.
async fn ask(
    connection: &mut NodeConnection,
    command: &[&str],
) -> Result<Option<Denied>, NodeError> {
    let command: Vec<&[u8]> = command.iter().map(|part| part.as_bytes()).collect();
    match connection.call(&command).await {
        Ok(Value::Text(_) | Value::Nil | Value::Integer(_) | Value::Array(_) | Value::Error(_)) => {
            Ok(None)
        }
        Err(NodeError::Refused { reason, .. }) => Ok(denied(&reason)),
        Err(error) => Err(error),
    }
}

/// What a refusal denies, if that is why.
fn denied(refusal: &str) -> Option<Denied> {
    let words = refusal.strip_prefix("NOPERM ")?;
    // "… has no permissions to run the 'get' command"; of a key the name is not said.
    Some(if words.contains(" run ") { Denied::Command } else { Denied::Key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_every_version_are_told_apart() {
        for (refusal, expected) in [
            ("NOPERM this user has no permissions to run the 'get' command", Some(Denied::Command)),
            (
                "NOPERM User u has no permissions to run the 'client|id' command",
                Some(Denied::Command),
            ),
            (
                "NOPERM this user has no permissions to access one of the keys used as arguments",
                Some(Denied::Key),
            ),
            ("NOPERM No permissions to access a key", Some(Denied::Key)),
            ("MOVED 866 127.0.0.1:7001", None),
        ] {
            assert_eq!(denied(refusal), expected, "{refusal}");
        }
    }

    #[test]
    fn rules_name_each_command_and_key_once() {
        let rules = acl_rules();
        let mut words: Vec<&str> = rules.split(' ').collect();
        assert!(words.contains(&"~h:*") && words.contains(&"+client|kill"), "{rules}");
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        for (name, example) in COMMANDS.iter().filter(|(_, example)| !example.is_empty()) {
            let parts = name.split('|').count();
            assert_eq!(example[..parts].join("|").to_lowercase(), **name);
        }
    }

    #[test]
    fn all_that_is_denied_is_said_at_once() {
        let some = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(in_words(&[], &[]), None);
        let words = in_words(&some(&["+xadd", "+info"]), &some(&["~h:*"])).expect("denied");
        for part in ["+xadd +info", "~h:*", "README.md"] {
            assert!(words.contains(part), "{words}");
        }
    }
}
