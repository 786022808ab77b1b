//! What is asked of the embedded store.

use std::sync::{Arc, atomic::Ordering};

use super::EmbeddedStore;
use crate::{
    domain::{Post, PostId, UserId},
    store::{
        Accounts, ClaimedPost, FollowCounts, FollowSide, Hides, Lookups, Moment, NewestPosts,
        Resume, StoreError, StoreSize,
    },
};

impl Lookups for EmbeddedStore {
    async fn exists(&self, account: UserId) -> Result<bool, StoreError> {
        Ok(self.account(account).await?.is_some())
    }

    async fn posts(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        let (mut posts, missing) = self.inner.posts.cached(ids);
        if !missing.is_empty() {
            let ids: Vec<PostId> = missing.iter().map(|place| ids[*place]).collect();
            let found =
                self.run_blocking(move |inner| inner.posts.load(&*inner.disk.get()?, &ids)).await?;
            for (place, post) in missing.into_iter().zip(found) {
                posts[place] = post;
            }
        }
        Ok(posts)
    }

    fn moment(&self) -> Moment {
        self.inner.posts.moment()
    }

    fn remember(&self, post: Post, before: Moment) {
        self.inner.posts.remember(Arc::new(post), before);
    }

    async fn requests(
        &self,
        requests: &[(UserId, String)],
    ) -> Result<Vec<Option<PostId>>, StoreError> {
        let requests = requests.to_vec();
        self.run_blocking(move |inner| {
            requests
                .iter()
                .map(|(author, request_id)| inner.disk.get()?.request(*author, request_id))
                .collect()
        })
        .await
    }

    /// No other process asks.
    async fn claim_requests(
        &self,
        requests: &[(UserId, String, PostId)],
    ) -> Result<Vec<ClaimedPost>, StoreError> {
        let names: Vec<(UserId, String)> =
            requests.iter().map(|(author, name, _)| (*author, name.clone())).collect();
        let made = self.requests(&names).await?.into_iter();
        let claimed = made.zip(requests).map(|(made, (_, _, offered))| {
            made.map_or(ClaimedPost::ToMake(*offered), ClaimedPost::Made)
        });
        Ok(claimed.collect())
    }

    async fn author_page(
        &self,
        author: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        self.run_blocking(move |inner| inner.disk.get()?.author_page(author, before, count_max))
            .await
    }

    async fn newest_of(
        &self,
        authors: &[u32],
        count_max: usize,
    ) -> Result<Vec<NewestPosts>, StoreError> {
        let loaded = |author: &u32| self.inner.authors.newest(*author, count_max);
        let loaded: Vec<Option<NewestPosts>> = authors.iter().map(loaded).collect();
        if loaded.iter().all(Option::is_some) {
            return Ok(loaded.into_iter().flatten().collect());
        }
        let authors = authors.to_vec();
        self.run_blocking(move |inner| {
            let users = inner.accounts.users(&authors);
            loaded
                .into_iter()
                .zip(authors.into_iter().zip(users))
                .map(|(loaded, (author, user))| match loaded {
                    Some(posts) => Ok(posts),
                    None => inner.authors.load(&*inner.disk.get()?, author, user, count_max),
                })
                .collect()
        })
        .await
    }

    async fn older_of(
        &self,
        authors: &[u32],
        before: PostId,
        count_max: usize,
    ) -> Result<Vec<Vec<PostId>>, StoreError> {
        let in_memory = |author: &u32| self.inner.authors.older(*author, before, count_max);
        let found: Vec<Option<Vec<PostId>>> = authors.iter().map(in_memory).collect();
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().flatten().collect());
        }
        let authors = authors.to_vec();
        self.run_blocking(move |inner| {
            let users = inner.accounts.users(&authors);
            let pulled = inner.pulled.authors();
            let older = |(found, (author, user)): (Option<Vec<PostId>>, (u32, UserId))| {
                if let Some(found) = found {
                    return Ok(found);
                }
                // Many reads ask for them.
                if pulled.contains(&author) {
                    inner.authors.load(&*inner.disk.get()?, author, user, count_max)?;
                }
                match inner.authors.older(author, before, count_max) {
                    Some(older) => Ok(older),
                    None => inner.disk.get()?.author_page(user, Some(before), count_max),
                }
            };
            found.into_iter().zip(authors.into_iter().zip(users)).map(older).collect()
        })
        .await
    }

    async fn follows(&self, follower: u32, followee: u32) -> Result<bool, StoreError> {
        Ok(self.inner.graph.follows(follower, followee))
    }

    fn pulled_authors(&self) -> Arc<[u32]> {
        self.inner.pulled.authors()
    }

    fn pulled_users(&self) -> Vec<UserId> {
        self.inner.accounts.users(&self.pulled_authors())
    }

    async fn followed_among(&self, reader: u32, accounts: &[u32]) -> Result<Vec<u32>, StoreError> {
        let follows = |account: &u32| self.inner.graph.follows(reader, *account);
        Ok(accounts.iter().copied().filter(follows).collect())
    }

    async fn hides(&self, reader: u32) -> Result<Arc<Hides>, StoreError> {
        Ok(self.inner.hides.of(reader))
    }

    async fn read_marker(&self, reader: u32) -> Result<PostId, StoreError> {
        let user = self.inner.accounts.users(&[reader]).first().copied();
        self.run_blocking(move |inner| {
            user.map_or(Ok(PostId(0)), |user| inner.disk.get()?.read_marker(user))
        })
        .await
    }

    async fn following(&self, reader: u32) -> Result<Vec<u32>, StoreError> {
        Ok(self.inner.graph.following(reader))
    }

    async fn list_follows(
        &self,
        account: u32,
        side: FollowSide,
        after: Option<UserId>,
        count_max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        self.run_blocking(move |inner| Ok(inner.list_follows(account, side, after, count_max)))
            .await
    }

    async fn count_follows(&self, account: u32) -> Result<FollowCounts, StoreError> {
        Ok(self.inner.graph.counts(account))
    }

    async fn marks(&self) -> Result<Vec<Resume>, StoreError> {
        let since_open = self.inner.lock_applied().keys().copied().max();
        let last = self.inner.marks.keys().copied().max().max(since_open);
        let count = last.map_or(0, |last| last + 1);
        let mut marks = Vec::new();
        for partition in 0..count {
            marks.push(self.marks_of(partition));
        }
        Ok(marks)
    }

    async fn greatest_post(&self) -> Result<Option<PostId>, StoreError> {
        let greatest = self.inner.greatest_post.load(Ordering::Relaxed);
        Ok((greatest > 0).then_some(PostId(greatest)))
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        let (live_timelines, timeline_entries, timeline_bytes) = self.inner.homes.totals();
        Ok(StoreSize {
            accounts: self.inner.accounts.len() as u64,
            follows: self.inner.graph.edge_count(),
            live_timelines,
            timeline_entries,
            timeline_bytes,
        })
    }
}
