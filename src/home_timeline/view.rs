//! What a reader sees of its home timeline.
//!
//! A page holds the posts of all whom the reader follows. Left out of it are those whom the
//! reader hides, what it did not ask for, reposts of what is deleted, and what was repeated
//! [near by](super::once). The ids alone say which posts may be reposts; a page without any,
//! whose reader hides nobody and asks for everything, is seen as it is.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Filter, HomeTimelines, ReadError,
    once::{BELOW_MAX, Entry, NEAR_MAX, is_decided, leave_out_repeated},
};
use crate::{
    domain::{Post, PostId, UserId},
    store::{Hides, HomePage, Homes, Lookups, StoreError},
};

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
        let entries = match last_repost.filter(|_| !viewer.filter.all_reposts) {
            Some(last_repost) => {
                let mut entries = self.down_to_near(viewer, page, last_repost, is_open).await?;
                leave_out_repeated(&mut entries, page.ids.len());
                entries
            }
            None => self.entries(viewer, &page.hides, &page.ids, is_open).await?,
        };
        Ok(entries.iter().take(page.ids.len()).map(|entry| entry.is_seen).collect())
    }

    /// The entries of a page, and those below it that say which of its reposts are left out: at
    /// least as many as are near the last repost if all are seen, and no more than
    /// [`BELOW_MAX`] and one more read.
    async fn down_to_near(
        &self,
        viewer: &Viewer<'_, S::Account>,
        page: &HomePage,
        last_repost: usize,
        sees_everything: bool,
    ) -> Result<Vec<Entry>, ReadError> {
        let (page_len, mut more) = (page.ids.len(), page.more);
        let mut last = page.ids.last().copied();
        let mut missing = (last_repost + 1 + NEAR_MAX).saturating_sub(page_len);
        let mut ids = page.ids.clone();
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            if let Some(before) = last.filter(|_| more && missing > 0) {
                let read = self.read_all(viewer.reader, Some(before), missing).await?;
                more = read.more && !read.ids.is_empty();
                last = read.ids.last().copied().or(last);
                ids.extend(read.ids);
            }
            entries.extend(self.entries(viewer, &page.hides, &ids, sees_everything).await?);
            if !more || is_decided(&entries, page_len) {
                return Ok(entries);
            }
            ids.clear();
            missing = entries.len().clamp(NEAR_MAX, BELOW_MAX);
        }
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
        let originals = store.originals_there(&posts).await?;
        let followed = self.followed_sides(viewer, &posts).await?;
        let seen_by =
            SeenBy { user: viewer.user, filter: viewer.filter, hides, originals, followed };
        let mut posts = posts.iter();
        let entry = |id: &PostId| match is_looked_at(id) {
            true => seen_by.entry(*id, posts.next().and_then(Option::as_deref)),
            false => Entry { post: *id, is_repost: false, is_seen: true },
        };
        Ok(ids.iter().map(entry).collect())
    }

    /// Of those whom the reader must follow to see these posts, beside their authors, those
    /// whom it follows.
    async fn followed_sides(
        &self,
        viewer: &Viewer<'_, S::Account>,
        posts: &[Option<Arc<Post>>],
    ) -> Result<HashSet<UserId>, StoreError> {
        let store = &*self.inner.store;
        let sides = posts.iter().flatten();
        let sides = sides.filter_map(|post| viewer.filter.other_side(viewer.user, post));
        // In an order of their own: a simulation must be able to run twice in the same way.
        let sides: Vec<UserId> = sides.collect::<BTreeSet<_>>().into_iter().collect();
        let accounts = store.accounts(&sides).await?;
        let known: Vec<S::Account> = accounts.iter().copied().flatten().collect();
        if known.is_empty() {
            return Ok(HashSet::new());
        }
        let followed = store.followed_among(viewer.reader, &known).await?;
        let followed: HashSet<S::Account> = followed.into_iter().collect();
        let is_followed = |account: &S::Account| followed.contains(account);
        let sides = sides.into_iter().zip(accounts);
        let sides = sides.filter(|(_, account)| account.as_ref().is_some_and(is_followed));
        Ok(sides.map(|(side, _)| side).collect())
    }
}

/// What decides whether a viewer sees a post.
struct SeenBy<'a> {
    user: UserId,
    filter: &'a Filter,
    hides: &'a Hides,
    /// Posts that are repeated and not deleted.
    originals: HashSet<PostId>,
    /// Whom the viewer follows, of those whom it must follow.
    followed: HashSet<UserId>,
}

impl SeenBy<'_> {
    /// An entry for this id; a post that is not there was deleted since.
    fn entry(&self, id: PostId, post: Option<&Post>) -> Entry {
        let Some(post) = post else {
            return Entry { post: id, is_repost: false, is_seen: false };
        };
        let original = post.repeats().map(|original| original.post);
        let other_side = self.filter.other_side(self.user, post);
        let is_seen = self.filter.shows(self.hides, post)
            && original.is_none_or(|original| self.originals.contains(&original))
            && other_side.is_none_or(|other| self.followed.contains(&other));
        Entry { post: original.unwrap_or(id), is_repost: original.is_some(), is_seen }
    }
}
