//! What things are called in Redis.
//!
//! | key | type | what |
//! |---|---|---|
//! | `h:<reader>` | list | a home timeline: a marker, then ids of 8 bytes |
//! | `a:<author>` | list | an author's posts, ascending |
//! | `p:<second>` | hash | the posts of about a second, by their ids of 8 bytes |
//! | `q:<author>:<request id>` | string | the post that a request made, and where its event is |
//! | `c:<author>:<request id>` | string | the post that a request is to make, for an hour |
//! | `fr:<account>` | hash | its followers, in blocks |
//! | `fg:<account>` | set | whom it follows |
//! | `hd:<reader>` | set | whom it does not see: muted (`m`), blocked (`b`), by whom it is blocked (`B`) |
//! | `rm:<reader>` | string | the newest post that it has read |
//! | `n:<account>` | list | the posts that it is told of, ascending |
//! | `i:<account>` | list | the messages that it has received, ascending |
//! | `s:<account>` | list | the messages that it has sent, ascending |
//! | `m:<second>` | hash | the messages of about a second, as the posts |
//! | `mq:<sender>:<request id>` | string | the message that a request made, and where its event is |
//! | `rf:<post>:<kind>` | sorted set | the posts that answer (`a`) or repeat (`r`) it, by their ids |
//! | `k:<bucket>` | set | accounts that follows and deletions have named |
//! | `roost:deleted` | hash | deleted posts that may still be in home timelines |
//! | `roost:node:<n>` | string | which process has a node number |
//! | `roost:partition:<n>` | hash | how far the worker of a partition has come |
//! | `roost:pulled` | set | authors whose posts are pulled |
//! | `roost:store` | hash | which log the store belongs to |
//! | `roost:wakes` | stream | readers who have woken lately |
//! | `roost:watermark:{<n>}` | hash | on every node, how far each partition had come |

use super::{reply, resp::HomeKey, slots};
use crate::{
    domain::{MessageId, PostId, UserId},
    store::{ReferrerKind, inboxes::InboxList},
};

/// What the keys begin with.
pub(super) const PREFIXES: [&str; 17] = [
    "h:", "a:", "p:", "q:", "c:", "fr:", "fg:", "hd:", "rm:", "n:", "i:", "s:", "m:", "mq:", "rf:",
    "k:", "roost:",
];

/// Accounts are noted in so many sets: small ones cost 8 bytes a member.
const KNOWN_BUCKETS: u64 = 65_536;

pub(super) const DELETED: &[u8] = b"roost:deleted";
pub(super) const PULLED: &[u8] = b"roost:pulled";
pub(super) const STORE: &[u8] = b"roost:store";
pub(super) const WAKES: &[u8] = b"roost:wakes";

pub(super) fn home(reader: UserId) -> Vec<u8> {
    HomeKey::of(reader).as_bytes().to_vec()
}

/// Whose home timeline a key is, if it is one.
pub(super) fn reader_of_home(key: &[u8]) -> Option<UserId> {
    reply::decimal(key.strip_prefix(b"h:")?).map(UserId)
}

pub(super) fn author(author: UserId) -> Vec<u8> {
    format!("a:{author}").into_bytes()
}

/// What holds a post and the others of its second, which is 1,024 ms long: to write some
/// of them at once costs Redis less than half of what a key each would.
pub(super) fn posts_of_second(post: PostId) -> Vec<u8> {
    of_second("p", post.0)
}

/// What holds a message and the others of its second.
pub(super) fn messages_of_second(message: MessageId) -> Vec<u8> {
    of_second("m", message.0)
}

fn of_second(kind: &str, id: u64) -> Vec<u8> {
    format!("{kind}:{}", id >> (PostId::NODE_AND_SEQUENCE_BITS + 10)).into_bytes()
}

pub(super) fn message_request(sender: UserId, request_id: &str) -> Vec<u8> {
    format!("mq:{sender}:{request_id}").into_bytes()
}

pub(super) fn request(author: UserId, request_id: &str) -> Vec<u8> {
    format!("q:{author}:{request_id}").into_bytes()
}

pub(super) fn claim(author: UserId, request_id: &str) -> Vec<u8> {
    format!("c:{author}:{request_id}").into_bytes()
}

pub(super) fn followers(account: UserId) -> Vec<u8> {
    format!("fr:{account}").into_bytes()
}

pub(super) fn following(account: UserId) -> Vec<u8> {
    format!("fg:{account}").into_bytes()
}

/// Whom a reader hides, and why.
pub(super) fn hides(reader: UserId) -> Vec<u8> {
    format!("hd:{reader}").into_bytes()
}

pub(super) fn read_marker(reader: UserId) -> Vec<u8> {
    format!("rm:{reader}").into_bytes()
}

/// What an account is told of.
pub(super) fn inbox(account: UserId, list: InboxList) -> Vec<u8> {
    format!("{}:{account}", char::from(list.byte())).into_bytes()
}

/// The posts that refer to a post.
pub(super) fn referrers(post: PostId, kind: ReferrerKind) -> Vec<u8> {
    format!("rf:{post}:{}", char::from(kind.byte())).into_bytes()
}

pub(super) fn known(account: UserId) -> Vec<u8> {
    format!("k:{}", account.0 % KNOWN_BUCKETS).into_bytes()
}

pub(super) fn node(node: u16) -> Vec<u8> {
    format!("roost:node:{node}").into_bytes()
}

pub(super) fn partition(partition: u32) -> Vec<u8> {
    format!("roost:partition:{partition}").into_bytes()
}

/// In this slot.
pub(super) fn watermark(slot: u16) -> Vec<u8> {
    format!("roost:watermark:{{{}}}", slots::number_in(slot)).into_bytes()
}

/// Whether a key holds what can be made again from the log.
pub(super) fn is_derived(key: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let of = |start: &str| key.strip_prefix(start.as_bytes());
    let plain = ["h:", "a:", "p:", "fr:", "fg:", "hd:", "rm:", "n:", "i:", "s:", "m:", "k:"];
    // Something else comes behind the number.
    let request = of("q:").or_else(|| of("mq:")).or_else(|| of("rf:"));
    let request = request.and_then(|rest| rest.split(|byte| *byte == b':').next());
    key == DELETED
        || key == PULLED
        || key == WAKES
        || of("roost:watermark:").is_some()
        || plain.into_iter().filter_map(of).any(is_number)
        || request.is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_timeline_says_whose_it_is() {
        assert_eq!(reader_of_home(&home(UserId(u64::MAX))), Some(UserId(u64::MAX)));
        for other in [author(UserId(7)), b"h:".to_vec(), b"h:x".to_vec(), b"h:7:8".to_vec()] {
            assert_eq!(reader_of_home(&other), None);
        }
    }

    #[test]
    fn what_is_made_from_the_log_is_known_by_its_key_and_nothing_else_is() {
        let derived = [
            home(UserId(7)),
            author(UserId(7)),
            posts_of_second(PostId(7 << 40)),
            request(UserId(7), "a:b c"),
            followers(UserId(7)),
            following(UserId(7)),
            hides(UserId(7)),
            read_marker(UserId(7)),
            inbox(UserId(7), InboxList::Notifications),
            inbox(UserId(7), InboxList::Received),
            inbox(UserId(7), InboxList::Sent),
            messages_of_second(MessageId(7 << 40)),
            message_request(UserId(7), "a:b c"),
            known(UserId(7)),
            DELETED.to_vec(),
            PULLED.to_vec(),
            referrers(PostId(7), ReferrerKind::Reply),
            WAKES.to_vec(),
            watermark(3),
        ];
        for key in &derived {
            assert!(is_derived(key), "{}", String::from_utf8_lossy(key));
        }
        let own = [node(1), partition(1), STORE.to_vec(), claim(UserId(7), "a")];
        for key in derived.into_iter().chain(own) {
            let prefixes = PREFIXES.iter().filter(|prefix| key.starts_with(prefix.as_bytes()));
            assert_eq!(prefixes.count(), 1, "{}", String::from_utf8_lossy(&key));
        }
        let others = [node(1), partition(1), STORE.to_vec(), b"h:abc".to_vec(), b"p:".to_vec()];
        for key in others.into_iter().chain([b"session:7".to_vec(), b"{h:7}t".to_vec()]) {
            assert!(!is_derived(&key), "{}", String::from_utf8_lossy(&key));
        }
    }
}
