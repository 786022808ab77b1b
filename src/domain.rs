//! The words of the field: accounts, posts, and the events that change them.
//!
//! Nothing here does I/O or knows where anything is kept.

use std::{
    fmt,
    num::ParseIntError,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An account, as the microblog numbers it. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// A post: 41 bits of milliseconds since [`PostId::EPOCH_UNIX_MS`], 10 bits of
/// node, 12 bits of sequence, so that ids sort by time. Never 0. The sequence of a plain
/// repost is odd, and that of every other post even: so a list of ids says which of them
/// may repeat another.
///
/// The layout is Twitter's Snowflake (2010).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub u64);

impl PostId {
    /// Millisecond 0 of the ids: 2020-01-01T00:00:00Z. They last until 2089.
    pub const EPOCH_UNIX_MS: u64 = 1_577_836_800_000;
    /// The bits of the time.
    pub const TIME_BITS: u32 = 41;
    /// The bits below the time.
    pub const NODE_AND_SEQUENCE_BITS: u32 = 22;

    /// The least id of a millisecond since 1970; that of the first one where it is before, and
    /// one that is greater than all ids where it is after the last.
    pub fn first_of(unix_ms: u64) -> Self {
        let ms = unix_ms.saturating_sub(Self::EPOCH_UNIX_MS).min(1 << Self::TIME_BITS);
        Self(ms << Self::NODE_AND_SEQUENCE_BITS)
    }

    /// Whether it may be a plain repost. Before these had ids of their own, any may.
    pub fn may_be_repost(self) -> bool {
        self.0 & 1 == 1
    }

    /// When the post was accepted, as far as its node's clock knew.
    pub fn created_at(self) -> SystemTime {
        let ms = (self.0 >> Self::NODE_AND_SEQUENCE_BITS) + Self::EPOCH_UNIX_MS;
        UNIX_EPOCH + Duration::from_millis(ms)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<UserId> for u64 {
    fn from(user: UserId) -> Self {
        user.0
    }
}

impl FromStr for UserId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl FromStr for PostId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A direct message. Its number comes from where those of posts come from, and is never that
/// of a post; its type is its own, so that nothing that reads posts can ask for one. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl MessageId {
    /// When the message was accepted, as far as its node's clock knew.
    pub fn created_at(self) -> SystemTime {
        PostId(self.0).created_at()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How a post came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Automatically, from a feed.
    Rss,
    /// Shared by hand.
    Shared,
    /// Written for this service and found nowhere else.
    Exclusive,
}

/// A post as it was accepted; it never changes, it can only be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Its id, which also says when it was accepted.
    pub id: PostId,
    /// Who wrote or reposted it.
    pub author: UserId,
    /// What it says; empty on a plain repost.
    pub text: String,
    /// How it came to be.
    pub origin: Origin,
    /// Where it points to.
    pub link: Option<String>,
    /// The post that it answers.
    pub reply_to: Option<Reference>,
    /// The post that it repeats.
    pub repost_of: Option<Reference>,
    /// The accounts that it mentions, ascending, each once, its author not among them.
    pub mentions: Vec<UserId>,
}

impl Post {
    /// What it repeats and adds nothing to, if it is a plain repost.
    pub fn repeats(&self) -> Option<Reference> {
        self.repost_of.filter(|_| self.text.is_empty())
    }
}

/// A post that another one refers to. It may be deleted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Which one.
    pub post: PostId,
    /// Whose.
    pub author: UserId,
}

/// A message that is for its recipients alone; it never changes, it can only be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id, which also says when it was accepted.
    pub id: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// Who may read it, ascending, each once, its sender not among them.
    pub recipients: Vec<UserId>,
    /// What it says.
    pub text: String,
}

/// What the event log holds, in the order in which it happened to an author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A post was accepted.
    PostPublished {
        /// The post.
        post: Post,
        /// The client's own name for the request. Of several events with one
        /// author and one request id, only the first makes a post.
        request_id: Option<String>,
    },
    /// A post was deleted.
    PostDeleted {
        /// Which one.
        post: PostId,
        /// Whose.
        author: UserId,
    },
    /// Accounts began to follow an account.
    Followed {
        /// The account that is followed.
        followee: UserId,
        /// Who follows it from now on.
        followers: Vec<UserId>,
    },
    /// An account stopped following an account.
    Unfollowed {
        /// The account that was followed.
        followee: UserId,
        /// Who no longer follows it.
        follower: UserId,
    },
    /// An account mutes another, or no longer does.
    MuteChanged {
        /// Who does.
        muter: UserId,
        /// Whose posts it does not see.
        muted: UserId,
        /// Whether it does from now on.
        mutes: bool,
    },
    /// An account blocks another, or no longer does.
    BlockChanged {
        /// Who does.
        blocker: UserId,
        /// Neither of the two sees the other's posts.
        blocked: UserId,
        /// Whether it does from now on.
        blocks: bool,
    },
    /// A reader has read its home timeline up to a post. A marker never goes back: of
    /// several events the greatest counts.
    ReadMarkerMoved {
        /// Whose timeline.
        reader: UserId,
        /// The newest post that was read.
        post: PostId,
    },
    /// From now on an author's posts are pulled when timelines are read, or pushed again.
    PullChanged {
        /// Whose posts.
        author: UserId,
        /// Whether they are pulled.
        pulled: bool,
    },
    /// A direct message was accepted.
    MessageSent {
        /// The message.
        message: Message,
        /// The client's own name for the request. Of several events with one sender and one
        /// request id, only the first makes a message.
        request_id: Option<String>,
    },
    /// A direct message was deleted.
    MessageDeleted {
        /// Which one.
        message: MessageId,
        /// Whose.
        sender: UserId,
    },
}

impl Event {
    /// The account whose partition the event belongs to: the author of a post,
    /// the followee of a follow. So the posts of an author and the changes of
    /// its followers are in one partition and in one order. Whom an account hides, how far it has
    /// read, and what messages it sends, is in its own.
    pub fn key(&self) -> UserId {
        match self {
            Self::PostPublished { post, .. } => post.author,
            Self::PostDeleted { author, .. } => *author,
            Self::Followed { followee, .. } | Self::Unfollowed { followee, .. } => *followee,
            Self::MuteChanged { muter, .. } => *muter,
            Self::BlockChanged { blocker, .. } => *blocker,
            Self::ReadMarkerMoved { reader, .. } => *reader,
            Self::PullChanged { author, .. } => *author,
            Self::MessageSent { message, .. } => message.sender,
            Self::MessageDeleted { sender, .. } => *sender,
        }
    }
}

#[cfg(test)]
impl Post {
    /// One that says nothing in particular, for tests.
    pub(crate) fn plain(id: PostId, author: UserId) -> Self {
        Self {
            id,
            author,
            text: "hello".to_owned(),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
            mentions: Vec::new(),
        }
    }
}
