//! The list of brokers, as an operator gives it. Pure.
//!
//! librdkafka takes what it cannot understand for names, and asks for them for ever.

/// What is wrong with a list of brokers, if anything is.
pub fn problem(brokers: &str) -> Option<String> {
    let wrong = |address: &str, reason: &str| {
        format!("brokers: {address:?} {reason}; they must be of the form host:port,host:port")
    };
    if brokers.trim().is_empty() {
        return Some(wrong(brokers, "names none"));
    }
    brokers.split(',').map(str::trim).find_map(|address| {
        let reason = reason(address)?;
        Some(wrong(address, reason))
    })
}

fn reason(address: &str) -> Option<&'static str> {
    if address.is_empty() {
        return Some("is empty");
    }
    if address.contains("://") {
        return Some("is a URL");
    }
    if address.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("has white space in it");
    }
    let (host, port) = match address.strip_prefix('[') {
        // Of version 6, whose address has colons too.
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => {
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Some("is no address of IPv6");
                }
                (host, port.strip_prefix(':'))
            }
            None => return Some("has no ]"),
        },
        None => match address.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Some("has too many colons (an address of IPv6 stands in brackets)");
            }
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Some("has no host");
    }
    if host.contains(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))) {
        return Some("has a host that is no name");
    }
    match port {
        None | Some("") => Some("has no port (Kafka's own is 9092)"),
        // `parse` would take a sign.
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some("has a port that is no number")
        }
        Some(port) => match port.parse::<u16>() {
            Ok(1..) => None,
            _ => Some("has a port that is not from 1 to 65535"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_lists_are_taken() {
        for good in [
            "localhost:9092",
            "a:1,b-2.example.com:65535",
            "a:1, b:2",
            "127.0.0.1:9092",
            "[::1]:9092",
            "kafka_1:9092",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
    }

    #[test]
    fn what_is_no_broker_list_is_named() {
        for (bad, words) in [
            ("", "names none"),
            (" ", "names none"),
            (",", "is empty"),
            ("a:1,,b:2", "is empty"),
            ("a:1,", "is empty"),
            ("kafka://a:9092", "\"kafka://a:9092\" is a URL"),
            ("PLAINTEXT://a:9092", "is a URL"),
            ("a:1,tcp://b:2", "\"tcp://b:2\" is a URL"),
            ("a:1 b:2", "white space"),
            ("a b:1", "white space"),
            ("a", "has no port"),
            ("a:", "has no port"),
            ("[::1]", "has no port"),
            ("[::1", "has no ]"),
            ("[x]:1", "no address of IPv6"),
            ("::1:9092", "too many colons"),
            (":9092", "has no host"),
            ("a:9092/topic", "no number"),
            ("a/b:9092", "no name"),
            ("user@a:9092", "no name"),
            ("a:x", "no number"),
            ("a:+1", "no number"),
            ("a:0", "1 to 65535"),
            ("a:65536", "1 to 65535"),
        ] {
            let text = problem(bad).unwrap_or_default();
            assert!(text.contains(words), "{bad:?}: {text}");
            assert!(text.contains("host:port,host:port"), "{text}");
        }
    }
}
