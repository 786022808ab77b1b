//! On how many brokers a new topic is to be, and what is weak about an old one. Pure.
//!
//! Metadata names the brokers that are there now. Were a topic made from that alone while
//! one of three brokers has started, it would stay on that one broker for ever. So the
//! cluster's configuration counts too: one that keeps its own topics three times, or whose
//! controllers are brokers as well, has more brokers than answer now. A broker on its own,
//! as for development, must keep Kafka's own topics once, or its consumer groups do not
//! work; so it is told apart.

use std::collections::HashMap;

/// The replicas of a new topic, where the cluster has as many brokers.
pub const REPLICATION_DEFAULT: u16 = 3;

/// How many replicas a new topic gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// So many.
    Make(u16),
    /// So many, once as many brokers are there.
    Wait(u16),
}

/// Chooses the replicas of a new topic: `asked` for, of `present` brokers in a cluster that
/// has `expected`.
pub fn choose(asked: Option<u16>, present: u16, expected: u16) -> Choice {
    let wanted = asked.unwrap_or(expected.clamp(1, REPLICATION_DEFAULT));
    // More than the cluster has is for Kafka to refuse.
    if wanted <= present || wanted > expected { Choice::Make(wanted) } else { Choice::Wait(wanted) }
}

/// How many brokers a cluster has, of which `present` are there now, as far as the
/// configuration of one of them tells.
pub fn brokers_expected(present: u16, config: &HashMap<String, String>) -> u16 {
    let text = |name: &str| config.get(name).map_or("", String::as_str);
    let factor = |name: &str| text(name).trim().parse::<u16>().unwrap_or(0);
    let entries = |name: &str| {
        let entries = text(name).split(',').filter(|entry| !entry.trim().is_empty());
        entries.count().min(usize::from(u16::MAX)) as u16
    };
    let is_controller = text("process.roles").split(',').any(|role| role.trim() == "controller");
    // Controllers that are no brokers say nothing of how many brokers there are.
    let controllers = if is_controller {
        entries("controller.quorum.voters").max(entries("controller.quorum.bootstrap.servers"))
    } else {
        0
    };
    [
        present,
        factor("default.replication.factor"),
        factor("offsets.topic.replication.factor"),
        controllers,
    ]
    .into_iter()
    .fold(1, u16::max)
}

/// What a topic risks with so many replicas, if that is more than it has to.
pub fn weakness(replicas: u16, min_insync_replicas: u16) -> Option<String> {
    let risk = match (replicas, min_insync_replicas) {
        (0 | 1, _) => "events that were acknowledged are lost with its broker",
        (_, 0 | 1) => "events that were acknowledged can be lost with one broker",
        (replicas, least) if least >= replicas => {
            "publishing is refused while any one of its brokers is away"
        }
        _ => return None,
    };
    Some(format!(
        "it has {replicas} replicas with min.insync.replicas={min_insync_replicas}, so {risk}; for \
         production run three brokers or more, with {REPLICATION_DEFAULT} replicas and \
         min.insync.replicas=2"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(present: u16, config: &[(&str, &str)]) -> u16 {
        let config = config.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        brokers_expected(present, &config.collect())
    }

    #[test]
    fn lone_broker_is_a_cluster_of_one() {
        let config = [
            ("default.replication.factor", "1"),
            ("offsets.topic.replication.factor", "1"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
        ];
        assert_eq!(expected(1, &config), 1);
        assert_eq!(choose(None, 1, 1), Choice::Make(1));
        assert_eq!(expected(1, &[]), 1, "a broker that does not tell");
    }

    #[test]
    fn brokers_of_a_known_three_are_waited_for() {
        for config in [
            &[("default.replication.factor", "3")][..],
            &[("default.replication.factor", "1"), ("offsets.topic.replication.factor", "3")],
            &[("process.roles", "controller, broker"), ("controller.quorum.voters", "1@a,2@b,3@c")],
            &[
                ("process.roles", "broker,controller"),
                ("controller.quorum.bootstrap.servers", "a,b,c"),
            ],
        ] {
            for (present, choice) in
                [(1, Choice::Wait(3)), (2, Choice::Wait(3)), (3, Choice::Make(3))]
            {
                assert_eq!(choose(None, present, expected(present, config)), choice, "{config:?}");
            }
        }
    }

    #[test]
    fn controllers_apart_from_brokers_do_not_count() {
        let config = [("process.roles", "broker"), ("controller.quorum.voters", "1@a,2@b,3@c")];
        assert_eq!(expected(1, &config), 1);
    }

    #[test]
    fn replicas_asked_for_are_waited_for_if_they_can_come() {
        assert_eq!(choose(Some(1), 1, 3), Choice::Make(1));
        assert_eq!(choose(Some(2), 1, 3), Choice::Wait(2));
        assert_eq!(choose(Some(3), 3, 3), Choice::Make(3));
        assert_eq!(choose(Some(9), 1, 3), Choice::Make(9), "Kafka refuses it");
        assert_eq!(choose(None, 9, 9), Choice::Make(3));
        assert_eq!(choose(None, 2, 2), Choice::Make(2));
    }

    #[test]
    fn weak_replication_is_named() {
        for (replicas, least, words) in [
            (1, 1, "lost with its broker"),
            (3, 1, "can be lost with one broker"),
            (2, 2, "publishing is refused"),
            (3, 3, "publishing is refused"),
        ] {
            let text = weakness(replicas, least).unwrap_or_default();
            assert!(text.contains(words), "{replicas}, {least}: {text}");
        }
        assert_eq!(weakness(3, 2), None);
        assert_eq!(weakness(5, 3), None);
    }
}
