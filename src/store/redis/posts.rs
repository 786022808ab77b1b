//! Posts, and those of them that this process has read lately.
//!
//! A post never changes, and once deleted it does not come back. So one that was read is good
//! as long as it is not among the deleted, where it stays for a minute at the least
//! (`forget_deleted`): what was read longer ago than half of that is read again. To look for
//! many among the deleted is one command, and to read them is one each.

use std::{sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};
use redis::Value;
use tokio::time::Instant;

use super::{
    Inner,
    control::{Call, bytes, elements},
    damaged, keys,
    lists::DeletedMarks,
};
use crate::{
    domain::{Post, PostId},
    event_log::codec,
    store::{
        StoreError,
        post_memory::{POST_MEMORY_BYTES_USUAL, memory_bytes},
    },
};

/// So long a post that was read is not read again.
const KEPT_FOR: Duration = Duration::from_secs(30);

pub(super) type PostsCache = Cache<PostId, ReadPost, ByMemory>;

/// Holds so many bytes at the most; past it, the least used go.
pub(super) fn posts_cache(bytes_max: u64) -> PostsCache {
    let posts = (bytes_max / POST_MEMORY_BYTES_USUAL).max(1) as usize;
    Cache::with_weighter(posts, bytes_max, ByMemory)
}

/// A post that was read.
#[derive(Clone, Debug)]
pub(super) struct ReadPost {
    post: Arc<Post>,
    /// Before it was read.
    at: Instant,
}

#[derive(Clone)]
pub(super) struct ByMemory;

impl Weighter<PostId, ReadPost> for ByMemory {
    fn weight(&self, _: &PostId, read: &ReadPost) -> u64 {
        memory_bytes(&read.post)
    }
}

impl Inner {
    /// The posts that exist among `ids`, in the same places.
    pub(super) async fn posts(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        let now = Instant::now();
        let kept = |id: &PostId| {
            let read = self.posts_cache.get(id)?;
            (now - read.at < KEPT_FOR).then_some(read.post)
        };
        let mut posts: Vec<Option<Arc<Post>>> = ids.iter().map(kept).collect();
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (place, post) in posts.iter().enumerate() {
            if post.is_some() { known.push(place) } else { unknown.push(place) }
        }
        let id_of = |place: &usize| ids[*place];
        let mut calls: Vec<Call> = unknown.iter().map(id_of).map(|id| get_post(&id)).collect();
        if !known.is_empty() {
            calls.push(DeletedMarks::ask(&known.iter().map(id_of).collect::<Vec<_>>()));
        }
        let mut replies = self.control.run(calls).await?.into_iter();
        for (place, reply) in unknown.into_iter().zip(replies.by_ref()) {
            posts[place] = read_post(reply)?;
            if let Some(post) = &posts[place] {
                self.posts_cache.insert(post.id, ReadPost { post: Arc::clone(post), at: now });
            }
        }
        // Of an answer that is missing nothing is known to be there.
        let marks = elements(replies.next().unwrap_or(Value::Nil));
        for (at, place) in known.into_iter().enumerate() {
            if marks.get(at) != Some(&Value::Nil) {
                self.posts_cache.remove(&ids[place]);
                posts[place] = None;
            }
        }
        Ok(posts)
    }

    /// The same as they stand in Redis, also where they are to be deleted.
    pub(super) async fn read_posts(
        &self,
        ids: &[PostId],
    ) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        let found = self.control.run(ids.iter().map(get_post).collect()).await?;
        found.into_iter().map(read_post).collect()
    }
}

fn get_post(id: &PostId) -> Call {
    Call::of("HGET", &[&keys::posts_of_second(*id), &id.0.to_be_bytes()])
}

fn read_post(reply: Value) -> Result<Option<Arc<Post>>, StoreError> {
    let Some(bytes) = bytes(reply) else { return Ok(None) };
    let post = codec::decode_post(&bytes);
    Ok(Some(Arc::new(post.map_err(|_| damaged("a post"))?)))
}
