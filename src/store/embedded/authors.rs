//! The newest posts of the authors that rebuilds and backfills have asked for.

use super::{disk::Disk, newest_ids::NewestIds, slots::Slots};
use crate::{
    domain::{PostId, UserId},
    store::{NewestPosts, StoreError},
};

/// A copy, in memory, of the newer end of the author timelines on disk. One that
/// is loaded is kept up to date by every change that is applied.
#[derive(Debug)]
pub(super) struct AuthorTimelines {
    loaded: Slots<Option<Box<NewestIds>>>,
    entries_max: usize,
}

impl AuthorTimelines {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { loaded: Slots::default(), entries_max }
    }

    /// After the post is on disk.
    pub(super) fn insert(&self, author: u32, post: PostId) {
        self.loaded.with(author, |list| {
            if let Some(list) = list {
                list.insert(post.0, self.entries_max);
            }
        });
    }

    /// After the post has left the disk.
    pub(super) fn remove(&self, author: u32, post: PostId) {
        self.loaded.with(author, |list| {
            if let Some(ids) = list {
                ids.remove(post.0);
                if ids.floor() > 0 {
                    // It no longer reaches as far down as it should.
                    *list = None;
                }
            }
        });
    }

    /// The newest posts of an author. Waits for the disk where they are not in
    /// memory yet, and holds the author's lock meanwhile: a post that reaches the
    /// disk too late to be seen here waits at the lock to be inserted.
    pub(super) fn newest(
        &self,
        disk: &Disk,
        author: u32,
        user: UserId,
    ) -> Result<NewestPosts, StoreError> {
        self.loaded.with(author, |list| {
            let list = match list {
                Some(list) => list,
                None => list.insert(Box::new(self.load(disk, user)?)),
            };
            Ok(list.to_newest_posts())
        })
    }

    fn load(&self, disk: &Disk, user: UserId) -> Result<NewestIds, StoreError> {
        let mut list = NewestIds::default();
        // One more than is kept: it tells whether older ones exist.
        for post in disk.author_page(user, None, self.entries_max + 1)?.into_iter().rev() {
            list.insert(post.0, self.entries_max);
        }
        Ok(list)
    }
}
