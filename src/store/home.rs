//! What is read of timelines.

use std::sync::Arc;

use super::Hides;
use crate::domain::PostId;

/// The newest posts of some timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewestPosts {
    /// Ascending, without repetition.
    pub ids: Vec<PostId>,
    /// Nothing is missing above this id; `None` where nothing is missing at all.
    pub floor: Option<PostId>,
}

/// What a read of a home timeline found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeRead {
    /// The timeline is live, and this is the page.
    Page(HomePage),
    /// There is no timeline that could answer: rebuild it.
    Asleep,
}

/// One page of a home timeline, with the posts of those whom its reader hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomePage {
    /// Newest first.
    pub ids: Vec<PostId>,
    /// Whether older ones follow.
    pub more: bool,
    /// How far down the whole timeline is complete.
    pub floor: Floor,
    /// Whom the reader hides.
    pub hides: Arc<Hides>,
}

/// A fingerprint of a timeline's end, to be compared and nothing else: it changes whenever a
/// post comes, unless another has left at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomeEnd {
    /// How many entries it has.
    pub len: u64,
    /// The last of them, as it stands there.
    pub last: u64,
    /// What it has lost at its other end.
    pub floor: u64,
}

/// How far down a timeline is complete, and why it stops there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Complete to the very beginning.
    Beginning,
    /// It holds CAP posts, the oldest of which is this. What is older is read from the
    /// author timelines.
    Cap(PostId),
    /// It holds CAP posts, the oldest of which is this. What is older cannot be read, since the
    /// reader follows more accounts than are asked for it.
    Followees(PostId),
}
