//! Events as bytes: `roost.log.v1.Event`, in protobuf's wire format.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    domain::{Event, Message, MessageId, Origin, Post, PostId, Reference, UserId},
    proto::log_v1 as pb,
};

/// An entry of the log that is not an event this version knows.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// It is not a protobuf message of the right shape.
    #[error("not an event: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// It says something that no event of this version says.
    #[error("an event of a newer version, or of another program: {0}")]
    Unknown(&'static str),
}

/// Writes an event.
pub fn encode(event: &Event) -> Bytes {
    let kind = match event {
        Event::PostPublished { post, request_id } => {
            pb::event::Kind::PostPublished(pb::PostPublished {
                request_id: request_id.clone().unwrap_or_default(),
                ..post_to_proto(post)
            })
        }
        Event::PostDeleted { post, author } => {
            pb::event::Kind::PostDeleted(pb::PostDeleted { post_id: post.0, author_id: author.0 })
        }
        Event::Followed { followee, followers } => pb::event::Kind::Followed(pb::Followed {
            followee_id: followee.0,
            follower_ids: followers.iter().map(|user| user.0).collect(),
        }),
        Event::Unfollowed { followee, follower } => pb::event::Kind::Unfollowed(pb::Unfollowed {
            followee_id: followee.0,
            follower_id: follower.0,
        }),
        Event::MuteChanged { muter, muted, mutes } => {
            pb::event::Kind::MuteChanged(pb::MuteChanged {
                muter_id: muter.0,
                muted_id: muted.0,
                mutes: *mutes,
            })
        }
        Event::BlockChanged { blocker, blocked, blocks } => {
            pb::event::Kind::BlockChanged(pb::BlockChanged {
                blocker_id: blocker.0,
                blocked_id: blocked.0,
                blocks: *blocks,
            })
        }
        Event::ReadMarkerMoved { reader, post } => {
            pb::event::Kind::ReadMarkerMoved(pb::ReadMarkerMoved {
                reader_id: reader.0,
                post_id: post.0,
            })
        }
        Event::PullChanged { author, pulled } => {
            pb::event::Kind::PullChanged(pb::PullChanged { author_id: author.0, pulled: *pulled })
        }
        Event::MessageSent { message, request_id } => {
            pb::event::Kind::MessageSent(pb::MessageSent {
                request_id: request_id.clone().unwrap_or_default(),
                ..message_to_proto(message)
            })
        }
        Event::MessageDeleted { message, sender } => {
            pb::event::Kind::MessageDeleted(pb::MessageDeleted {
                message_id: message.0,
                sender_id: sender.0,
            })
        }
    };
    pb::Event { kind: Some(kind) }.encode_to_vec().into()
}

/// Reads an event.
pub fn decode(bytes: &[u8]) -> Result<Event, CodecError> {
    let kind = pb::Event::decode(bytes)?.kind.ok_or(CodecError::Unknown("no known kind"))?;
    Ok(match kind {
        pb::event::Kind::PostPublished(mut published) => {
            let request_id = std::mem::take(&mut published.request_id);
            Event::PostPublished {
                post: post_from_proto(published)?,
                request_id: (!request_id.is_empty()).then_some(request_id),
            }
        }
        pb::event::Kind::PostDeleted(deleted) => {
            Event::PostDeleted { post: PostId(deleted.post_id), author: UserId(deleted.author_id) }
        }
        pb::event::Kind::Followed(followed) => Event::Followed {
            followee: UserId(followed.followee_id),
            followers: followed.follower_ids.into_iter().map(UserId).collect(),
        },
        pb::event::Kind::Unfollowed(unfollowed) => Event::Unfollowed {
            followee: UserId(unfollowed.followee_id),
            follower: UserId(unfollowed.follower_id),
        },
        pb::event::Kind::MuteChanged(changed) => Event::MuteChanged {
            muter: UserId(changed.muter_id),
            muted: UserId(changed.muted_id),
            mutes: changed.mutes,
        },
        pb::event::Kind::BlockChanged(changed) => Event::BlockChanged {
            blocker: UserId(changed.blocker_id),
            blocked: UserId(changed.blocked_id),
            blocks: changed.blocks,
        },
        pb::event::Kind::ReadMarkerMoved(moved) => {
            Event::ReadMarkerMoved { reader: UserId(moved.reader_id), post: PostId(moved.post_id) }
        }
        pb::event::Kind::PullChanged(changed) => {
            Event::PullChanged { author: UserId(changed.author_id), pulled: changed.pulled }
        }
        pb::event::Kind::MessageSent(mut sent) => {
            let request_id = std::mem::take(&mut sent.request_id);
            Event::MessageSent {
                message: message_from_proto(sent),
                request_id: (!request_id.is_empty()).then_some(request_id),
            }
        }
        pb::event::Kind::MessageDeleted(deleted) => Event::MessageDeleted {
            message: MessageId(deleted.message_id),
            sender: UserId(deleted.sender_id),
        },
    })
}

/// Writes a post the way the log and the store keep it.
pub fn encode_post(post: &Post) -> Vec<u8> {
    post_to_proto(post).encode_to_vec()
}

/// Reads a post that [`encode_post`] wrote.
pub fn decode_post(bytes: &[u8]) -> Result<Post, CodecError> {
    post_from_proto(pb::PostPublished::decode(bytes)?)
}

/// Writes a message the way the log and the store keep it.
pub fn encode_message(message: &Message) -> Vec<u8> {
    message_to_proto(message).encode_to_vec()
}

/// Reads a message that [`encode_message`] wrote.
pub fn decode_message(bytes: &[u8]) -> Result<Message, CodecError> {
    Ok(message_from_proto(pb::MessageSent::decode(bytes)?))
}

fn message_to_proto(message: &Message) -> pb::MessageSent {
    pb::MessageSent {
        message_id: message.id.0,
        sender_id: message.sender.0,
        recipient_ids: message.recipients.iter().map(|user| user.0).collect(),
        text: message.text.clone(),
        request_id: String::new(),
    }
}

fn message_from_proto(message: pb::MessageSent) -> Message {
    Message {
        id: MessageId(message.message_id),
        sender: UserId(message.sender_id),
        recipients: message.recipient_ids.into_iter().map(UserId).collect(),
        text: message.text,
    }
}

fn post_to_proto(post: &Post) -> pb::PostPublished {
    let parts = |reference: Option<Reference>| {
        reference.map_or((0, 0), |reference| (reference.post.0, reference.author.0))
    };
    let (reply_to_id, reply_to_author_id) = parts(post.reply_to);
    let (repost_of_id, repost_of_author_id) = parts(post.repost_of);
    pb::PostPublished {
        post_id: post.id.0,
        author_id: post.author.0,
        text: post.text.clone(),
        origin: match post.origin {
            Origin::Rss => 1,
            Origin::Shared => 2,
            Origin::Exclusive => 3,
        },
        link: post.link.clone().unwrap_or_default(),
        reply_to_id,
        repost_of_id,
        reply_to_author_id,
        repost_of_author_id,
        request_id: String::new(),
        mentioned_ids: post.mentions.iter().map(|user| user.0).collect(),
    }
}

fn post_from_proto(post: pb::PostPublished) -> Result<Post, CodecError> {
    let reference = |post, author| {
        (post != 0).then_some(Reference { post: PostId(post), author: UserId(author) })
    };
    Ok(Post {
        id: PostId(post.post_id),
        author: UserId(post.author_id),
        text: post.text,
        origin: match post.origin {
            1 => Origin::Rss,
            2 => Origin::Shared,
            3 => Origin::Exclusive,
            _ => return Err(CodecError::Unknown("a post of an unknown origin")),
        },
        link: (!post.link.is_empty()).then_some(post.link),
        reply_to: reference(post.reply_to_id, post.reply_to_author_id),
        repost_of: reference(post.repost_of_id, post.repost_of_author_id),
        mentions: post.mentioned_ids.into_iter().map(UserId).collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::fuzz;

    fn events() -> impl Strategy<Value = Event> {
        let user = || (1..u64::MAX).prop_map(UserId);
        let post_id = || (1..u64::MAX).prop_map(PostId);
        let reference =
            || (post_id(), user()).prop_map(|(post, author)| Reference { post, author });
        let origin = prop_oneof![Just(Origin::Rss), Just(Origin::Shared), Just(Origin::Exclusive)];
        let post = (
            (post_id(), user(), ".{0,140}", origin),
            proptest::option::of("https://[a-z]{1,20}"),
            proptest::option::of(reference()),
            proptest::option::of(reference()),
            proptest::collection::vec(user(), 0..4),
        )
            .prop_map(
                |((id, author, text, origin), link, reply_to, repost_of, mentions)| Post {
                    id,
                    author,
                    text,
                    origin,
                    link,
                    reply_to,
                    repost_of,
                    mentions,
                },
            );
        let message_id = || (1..u64::MAX).prop_map(MessageId);
        let message = (message_id(), user(), proptest::collection::vec(user(), 1..4), ".{0,140}")
            .prop_map(|(id, sender, recipients, text)| Message { id, sender, recipients, text });
        prop_oneof![
            (message, proptest::option::of("[a-z0-9-]{1,64}"))
                .prop_map(|(message, request_id)| Event::MessageSent { message, request_id }),
            (message_id(), user())
                .prop_map(|(message, sender)| Event::MessageDeleted { message, sender }),
            (post, proptest::option::of("[a-z0-9-]{1,64}"))
                .prop_map(|(post, request_id)| Event::PostPublished { post, request_id }),
            (post_id(), user()).prop_map(|(post, author)| Event::PostDeleted { post, author }),
            (user(), proptest::collection::vec(user(), 0..20))
                .prop_map(|(followee, followers)| Event::Followed { followee, followers }),
            (user(), user())
                .prop_map(|(followee, follower)| Event::Unfollowed { followee, follower }),
            (user(), user(), any::<bool>()).prop_map(|(muter, muted, mutes)| Event::MuteChanged {
                muter,
                muted,
                mutes
            }),
            (user(), user(), any::<bool>()).prop_map(|(blocker, blocked, blocks)| {
                Event::BlockChanged { blocker, blocked, blocks }
            }),
            (user(), post_id()).prop_map(|(reader, post)| Event::ReadMarkerMoved { reader, post }),
            (user(), any::<bool>())
                .prop_map(|(author, pulled)| Event::PullChanged { author, pulled }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(event in events()) {
            prop_assert_eq!(decode(&encode(&event)).unwrap(), event);
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn fuzzed_events_read_back_as_they_are_written() {
        let user = UserId(u64::MAX);
        let reference = Some(Reference { post: PostId(9), author: UserId(1 << 63) });
        let post = Post {
            text: "a text, früh".to_owned(),
            link: Some("https://a.example/1".to_owned()),
            reply_to: reference,
            repost_of: reference,
            mentions: vec![UserId(1), user],
            ..Post::plain(PostId(7), user)
        };
        let message = Message {
            id: MessageId(8),
            sender: user,
            recipients: vec![UserId(1), UserId(1 << 32)],
            text: "psst".to_owned(),
        };
        let request_id = Some("a-1".to_owned());
        let events = [
            Event::PostPublished { post, request_id: request_id.clone() },
            Event::PostDeleted { post: PostId(7), author: user },
            Event::Followed { followee: user, followers: vec![UserId(1), UserId(1 << 63)] },
            Event::Unfollowed { followee: UserId(1), follower: user },
            Event::MuteChanged { muter: user, muted: UserId(1), mutes: true },
            Event::BlockChanged { blocker: user, blocked: UserId(1), blocks: true },
            Event::ReadMarkerMoved { reader: user, post: PostId(u64::MAX) },
            Event::PullChanged { author: user, pulled: true },
            Event::MessageSent { message, request_id },
            Event::MessageDeleted { message: MessageId(8), sender: user },
        ];
        let written = events.each_ref().map(encode);
        let corpus: Vec<&[u8]> = written.iter().map(AsRef::as_ref).collect();
        fuzz(&corpus, 20_000, |input| {
            if let Ok(event) = decode(input) {
                assert_eq!(decode(&encode(&event)).expect("it was written here"), event);
            }
            if let Ok(post) = decode_post(input) {
                assert_eq!(decode_post(&encode_post(&post)).expect("it was written here"), post);
            }
            if let Ok(message) = decode_message(input) {
                let again = decode_message(&encode_message(&message));
                assert_eq!(again.expect("it was written here"), message);
            }
        });
    }

    /// Field by field, as the first versions of Roost have written one.
    #[test]
    fn a_post_of_an_older_log_is_read() {
        let old = [0x0a, 16, 0x09, 7, 0, 0, 0, 0, 0, 0, 0, 0x10, 3, 0x1a, 1, b'a', 0x20, 2];
        let post = Post { text: "a".to_owned(), ..Post::plain(PostId(7), UserId(3)) };
        assert_eq!(decode(&old).unwrap(), Event::PostPublished { post, request_id: None });
    }

    #[test]
    fn an_empty_entry_is_refused() {
        assert!(matches!(decode(&[]), Err(CodecError::Unknown(_))));
    }
}
