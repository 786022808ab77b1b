//! How far long fan-outs have come.

use crate::domain::PostId;

/// That a part of a fan-out is done: the author, and every follower of it up to
/// [`reached`](Self::reached) in the order of handles, has been served.
///
/// It names posts and no event: however the fan-outs are cut that come of the log when
/// it is read again, it holds for these posts and for no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor<A> {
    /// Whose posts they are.
    pub author: A,
    /// What was done.
    pub work: Work,
    /// The last follower that it was done for.
    pub reached: A,
}

/// What a fan-out does to the timelines that it reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Puts these posts in.
    Deliver(Vec<PostId>),
    /// Takes this post out.
    Remove(PostId),
}

impl Work {
    /// The posts that are to come into timelines.
    pub fn to_deliver(&self) -> &[PostId] {
        match self {
            Self::Deliver(posts) => posts,
            Self::Remove(_) => &[],
        }
    }

    /// How many posts it works on.
    pub fn posts(&self) -> usize {
        match self {
            Self::Deliver(ids) => ids.len(),
            Self::Remove(_) => 1,
        }
    }
}
