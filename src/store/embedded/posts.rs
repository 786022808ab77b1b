//! Posts ready to be shown, and those that must no longer be.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::{Weighter, sync::Cache};

use super::disk::Disk;
use crate::{
    domain::{Post, PostId},
    store::{
        Moment, StoreError,
        post_memory::{POST_MEMORY_BYTES_USUAL, memory_bytes},
    },
};

pub(super) struct PostTable {
    cache: Cache<PostId, Arc<Post>, PostWeighter>,
    /// Counts the posts forgotten, so that a load that began before does not put
    /// one back.
    forgotten: AtomicU64,
    hidden: RwLock<Hidden>,
}

#[derive(Clone)]
struct PostWeighter;

impl Weighter<PostId, Arc<Post>> for PostWeighter {
    fn weight(&self, _: &PostId, post: &Arc<Post>) -> u64 {
        memory_bytes(post)
    }
}

impl PostTable {
    pub(super) fn new(cache_bytes: u64) -> Self {
        let items = (cache_bytes / POST_MEMORY_BYTES_USUAL).max(1) as usize;
        Self {
            cache: Cache::with_weighter(items, cache_bytes, PostWeighter),
            forgotten: AtomicU64::new(0),
            hidden: RwLock::default(),
        }
    }

    /// The posts that are in memory, and the places of those that are not.
    pub(super) fn cached(&self, ids: &[PostId]) -> (Vec<Option<Arc<Post>>>, Vec<usize>) {
        let posts: Vec<_> = ids.iter().map(|id| self.cache.get(id)).collect();
        let missing = (0..ids.len()).filter(|place| posts[*place].is_none()).collect();
        (posts, missing)
    }

    /// Waits for the disk.
    pub(super) fn load(
        &self,
        disk: &Disk,
        ids: &[PostId],
    ) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        ids.iter()
            .map(|id| {
                let before = self.moment();
                let post = disk.post(*id)?.map(Arc::new);
                if let Some(post) = &post {
                    self.remember(Arc::clone(post), before);
                }
                Ok(post)
            })
            .collect()
    }

    pub(super) fn moment(&self) -> Moment {
        Moment(self.forgotten.load(Ordering::SeqCst))
    }

    /// Keeps a post that was there `before`, unless any has been forgotten since.
    pub(super) fn remember(&self, post: Arc<Post>, before: Moment) {
        let id = post.id;
        self.cache.insert(id, post);
        if self.moment() != before {
            self.cache.remove(&id);
        }
    }

    /// After the post has left the disk.
    pub(super) fn forget(&self, post: PostId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(&post);
    }

    /// No read of a home timeline shows the post from now on.
    pub(super) fn hide(&self, post: PostId, author: u32) {
        let mut hidden = self.hidden.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = hidden.posts.insert(post, author) {
            hidden.by_author.remove(&(other, post));
        }
        hidden.by_author.insert((author, post));
    }

    /// The post has left all home timelines.
    pub(super) fn unhide(&self, post: PostId) {
        let mut hidden = self.hidden.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(author) = hidden.posts.remove(&post) {
            hidden.by_author.remove(&(author, post));
        }
    }

    /// The posts hidden now. A read takes this before it looks into a list, and
    /// lets it go after.
    pub(super) fn hidden(&self) -> RwLockReadGuard<'_, Hidden> {
        self.hidden.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deleted, and perhaps still in home timelines.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// With the author of each.
    posts: HashMap<PostId, u32>,
    by_author: BTreeSet<(u32, PostId)>,
}

impl Hidden {
    pub(super) fn contains(&self, post: PostId) -> bool {
        !self.posts.is_empty() && self.posts.contains_key(&post)
    }

    pub(super) fn of(&self, author: u32) -> Vec<PostId> {
        let of_author = self.by_author.range((author, PostId(0))..=(author, PostId(u64::MAX)));
        of_author.map(|(_, post)| *post).collect()
    }
}
