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
    authors: Slots<Author>,
    entries_max: usize,
}

#[derive(Debug, Default)]
struct Author {
    loaded: Option<Box<NewestIds>>,
    /// Counts the changes, so that what was read from the disk before one of them
    /// is not kept.
    version: u32,
}

impl AuthorTimelines {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { authors: Slots::default(), entries_max }
    }

    /// After the post is on disk.
    pub(super) fn insert(&self, author: u32, post: PostId) {
        self.authors.with(author, |author| {
            author.version = author.version.wrapping_add(1);
            if let Some(list) = &mut author.loaded {
                list.insert(post.0, self.entries_max);
            }
        });
    }

    /// After the post has left the disk.
    pub(super) fn remove(&self, author: u32, post: PostId) {
        self.authors.with(author, |author| {
            author.version = author.version.wrapping_add(1);
            if let Some(list) = &mut author.loaded {
                list.remove(post.0);
                if list.floor() > 0 {
                    // It no longer reaches as far down as it should.
                    author.loaded = None;
                }
            }
        });
    }

    /// Up to `count_max` of the newest posts of an author, if they are in memory.
    pub(super) fn newest(&self, author: u32, count_max: usize) -> Option<NewestPosts> {
        self.authors.with(author, |author| Some(author.loaded.as_ref()?.newest(count_max)))
    }

    /// Up to `count_max` posts of an author older than `before`, newest first, if they are in
    /// memory.
    pub(super) fn older(
        &self,
        author: u32,
        before: PostId,
        count_max: usize,
    ) -> Option<Vec<PostId>> {
        self.authors.with(author, |author| author.loaded.as_ref()?.older(before.0, count_max))
    }

    /// Up to `count_max` of the newest posts of an author, from the disk if need be, which it
    /// waits for without holding a lock.
    pub(super) fn load(
        &self,
        disk: &Disk,
        author: u32,
        user: UserId,
        count_max: usize,
    ) -> Result<NewestPosts, StoreError> {
        if let Some(posts) = self.newest(author, count_max) {
            return Ok(posts);
        }
        let version = self.authors.with(author, |author| author.version);
        let mut list = NewestIds::default();
        // One more than is kept: it tells whether older ones exist.
        for post in disk.author_page(user, None, self.entries_max + 1)?.into_iter().rev() {
            list.insert(post.0, self.entries_max);
        }
        let posts = list.newest(count_max);
        self.authors.with(author, |author| {
            if author.version == version {
                author.loaded = Some(Box::new(list));
            }
        });
        Ok(posts)
    }
}
