//! What goes on between the posts: follows, unfollows, deletions, how authors are delivered,
//! who hides whom, and direct messages.
//!
//! ```text
//!  seed ──► plan ──► dispatch ──► work × workers ──► Roost
//!             └──► changes ──► probes, model
//! ```
//!
//! What is done is planned ahead from the seed alone; operations on one pair of
//! accounts, on one author, post or message, always go to the same worker, which does one
//! thing at a time, so that they never overtake one another.

mod changes;
mod draw;
mod follows;
mod hides;
mod messages;
mod plan;
mod pulls;
mod work;

pub(super) use self::{
    changes::{Changes, SharedChanges},
    plan::Plan,
    work::{ChurnCounts, Churning, work},
};
use super::graph::UserIndex;

/// How often a fit candidate is drawn before something else is done instead.
const DRAWS_MAX: u32 = 8;

/// One action that is no post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Follow {
        follower: UserIndex,
        followee: UserIndex,
    },
    Unfollow {
        follower: UserIndex,
        followee: UserIndex,
    },
    /// The post of this number.
    DeletePost(u32),
    /// Posts of an author are pulled from now on, or pushed.
    SetDelivery {
        author: UserIndex,
        pulled: bool,
    },
    /// An account mutes or blocks another from now on, or no longer.
    Hide {
        how: Hide,
        by: UserIndex,
        other: UserIndex,
        hides: bool,
    },
    /// The message of this number.
    SendMessage(u32),
    /// The message of this number, which was sent before.
    DeleteMessage(u32),
}

/// How an account hides another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hide {
    /// From itself.
    Mute,
    /// Each from the other.
    Block,
}

impl Change {
    /// Equal for operations that must not overlap.
    pub(super) fn key(self) -> u64 {
        match self {
            Self::Follow { follower, followee } | Self::Unfollow { follower, followee } => {
                (u64::from(follower) << 32) | u64::from(followee)
            }
            Self::Hide { by, other, .. } => (u64::from(by) << 32) | u64::from(other),
            Self::DeletePost(number) | Self::SendMessage(number) | Self::DeleteMessage(number) => {
                u64::from(number)
            }
            Self::SetDelivery { author, .. } => u64::from(author),
        }
    }
}
