//! What a reader sees of its home timeline.
//!
//! A page holds the posts of all whom the reader follows. Left out of it are those whom the
//! reader hides, what it did not ask for, reposts of what is deleted, and what was repeated
//! [near by](super::once). The ids alone say which posts may be reposts; a page without any,
//! whose reader hides nobody and asks for everything, is seen as it is.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Filter, HomeTimelines, ReadError,
    once::{Entry, NEAR_MAX, leave_out_repeated},
};
use crate::{
    domain::{Post, PostId, UserId},
    store::{Hides, HomePage, Homes, Lookups, StoreError},
};

/// How often one reads on for what is near the last posts of a page.
const READS_BELOW_MAX: usize = 3;

/// Whoever looks at a timeline, and for what.
pub(super) struct Viewer<'a, A> {
    pub(super) user: UserId,
    pub(super) reader: A,
    pub(super) filter: &'a Filter,
}

impl<S: Homes + Lookups> HomeTimelines<S> {
    /// Which posts of a page are seen, in the same places.
    pub(super) async fn shown(
        &self,
        viewer: &Viewer<'_, S::Account>,
        page: &HomePage,
    ) -> Result<Vec<bool>, ReadError> {
        let is_open = page.hides.is_empty() && viewer.filter.is_open();
        let last_repost = page.ids.iter().rposition(|id| id.may_be_repost());
        if is_open && last_repost.is_none() {
            return Ok(vec![true; page.ids.len()]);
        }
        let mut ids = page.ids.clone();
        if let Some(last_repost) = last_repost.filter(|_| !viewer.filter.all_reposts) {
            let missing = (last_repost + 1 + NEAR_MAX).saturating_sub(ids.len());
            ids.extend(self.below(viewer.reader, page, missing).await?);
        }
        let mut entries = self.entries(viewer, &page.hides, &ids, is_open).await?;
        if !viewer.filter.all_reposts {
            leave_out_repeated(&mut entries);
        }
        Ok(entries.iter().take(page.ids.len()).map(|entry| entry.is_seen).collect())
    }

    /// So many posts below a page, or all there are.
    async fn below(
        &self,
        reader: S::Account,
        page: &HomePage,
        count: usize,
    ) -> Result<Vec<PostId>, ReadError> {
        let (mut below, mut more) = (Vec::with_capacity(count), page.more);
        for _ in 0..READS_BELOW_MAX {
            let Some(last) = below.last().or(page.ids.last()).filter(|_| more) else { break };
            if below.len() >= count {
                break;
            }
            let read = self.read_all(reader, Some(*last), count - below.len()).await?;
            more = read.more && !read.ids.is_empty();
            below.extend(read.ids);
        }
        Ok(below)
    }

    /// What these posts are to a viewer. One who sees everything is asked only for reposts.
    async fn entries(
        &self,
        viewer: &Viewer<'_, S::Account>,
        hides: &Hides,
        ids: &[PostId],
        sees_everything: bool,
    ) -> Result<Vec<Entry>, StoreError> {
        let store = &*self.inner.store;
        let is_looked_at = |id: &PostId| !sees_everything || id.may_be_repost();
        let looked_at: Vec<PostId> = ids.iter().copied().filter(is_looked_at).collect();
        let posts = store.posts(&looked_at).await?;
        let there = originals_there(store, &posts).await?;
        let mut follows = Follows { store, reader: viewer.reader, known: HashMap::new() };
        let mut posts = posts.iter();
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            let mut entry = Entry { post: *id, is_repost: false, is_seen: true };
            if is_looked_at(id) {
                // One that is not there was deleted since.
                let post = posts.next().and_then(Option::as_ref);
                entry.is_seen = post.is_some_and(|post| viewer.filter.shows(hides, post));
                if let Some(original) = post.and_then(|post| post.repeats()) {
                    (entry.post, entry.is_repost) = (original.post, true);
                    entry.is_seen &= there.contains(&original.post);
                }
                let other = post.and_then(|post| viewer.filter.other_side(viewer.user, post));
                if let Some(other) = other.filter(|_| entry.is_seen) {
                    entry.is_seen = follows.follows(other).await?;
                }
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Which of the posts that these repeat are not deleted.
pub(crate) async fn originals_there(
    store: &impl Lookups,
    posts: &[Option<Arc<Post>>],
) -> Result<HashSet<PostId>, StoreError> {
    let repeated = posts.iter().flatten().filter_map(|post| post.repeats());
    // In an order of their own: a simulation must be able to run twice in the same way.
    let originals: BTreeSet<PostId> = repeated.map(|original| original.post).collect();
    if originals.is_empty() {
        return Ok(HashSet::new());
    }
    let originals: Vec<PostId> = originals.into_iter().collect();
    let found = store.posts(&originals).await?;
    Ok(found.iter().flatten().map(|post| post.id).collect())
}

/// Whom a reader follows, as far as it was asked.
struct Follows<'a, S: Homes> {
    store: &'a S,
    reader: S::Account,
    known: HashMap<UserId, bool>,
}

impl<S: Homes + Lookups> Follows<'_, S> {
    async fn follows(&mut self, other: UserId) -> Result<bool, StoreError> {
        if let Some(follows) = self.known.get(&other) {
            return Ok(*follows);
        }
        let follows = match self.store.account(other).await? {
            Some(other) => self.store.follows(self.reader, other).await?,
            None => false,
        };
        self.known.insert(other, follows);
        Ok(follows)
    }
}
