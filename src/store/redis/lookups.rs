//! What the API and those who pull ask of Redis.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use futures::future;
use redis::Value;

use super::{
    Inner, RedisStore,
    control::{Call, bytes, elements},
    damaged,
    followers::{self, Followers},
    hot_authors, keys,
    ledger::{COUNT, Made, post_id, resume_of},
    lists::DeletedMarks,
    reply, scripts,
};
use crate::{
    domain::{Post, PostId, UserId},
    store::{
        ClaimedPost, FollowCounts, FollowSide, Hides, Lookups, Moment, NewestPosts, Resume,
        StoreError, StoreSize,
    },
};

/// The marks of a partition that say how far its worker has come.
const MARKS: &[&[u8]] =
    &[b"applied", b"shown", b"attempted", b"delivered", b"history", b"greatest_post"];
/// Those that say where its watermarks are, and whether anything of it holds.
const WATERMARKS: &[&[u8]] = &[b"applied", b"shown", b"watermarks"];
/// How often a page of followers is begun again while their blocks change.
const PAGE_TRIES_MAX: usize = 3;
/// Seconds for which a request that was not carried out keeps the id it was given.
const CLAIM_SECS: &[u8] = b"3600";

impl Lookups for RedisStore {
    async fn exists(&self, account: UserId) -> Result<bool, StoreError> {
        let member = account.to_string();
        let calls = vec![
            Call::of("SISMEMBER", &[&keys::known(account), member.as_bytes()]),
            // One who has posts is not noted for that.
            Call::of("EXISTS", &[&keys::author(account)]),
        ];
        let replies = self.inner.control.run(calls).await?;
        let exists: Vec<bool> = replies.iter().map(reply::yes_or_no).collect::<Result<_, _>>()?;
        Ok(exists.contains(&true))
    }

    async fn posts(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        self.inner.posts(ids).await
    }

    /// Posts are known once they are applied, and not before.
    fn moment(&self) -> Moment {
        Moment(0)
    }

    fn remember(&self, _: Post, _: Moment) {}

    async fn requests(
        &self,
        requests: &[(UserId, String)],
    ) -> Result<Vec<Option<PostId>>, StoreError> {
        let requests: Vec<(UserId, &str)> =
            requests.iter().map(|(author, name)| (*author, name.as_str())).collect();
        let made = self.inner.requests_made(&requests, keys::request).await?;
        Ok(made.into_iter().map(|made| Some(PostId(made?.id))).collect())
    }

    /// A claim that nobody redeems is forgotten after a while.
    async fn claim_requests(
        &self,
        requests: &[(UserId, String, PostId)],
    ) -> Result<Vec<ClaimedPost>, StoreError> {
        let mut calls = Vec::with_capacity(requests.len() * 3);
        for (author, name, offered) in requests {
            let claim = keys::claim(*author, name);
            let offered = offered.0.to_be_bytes();
            calls.push(Call::of("SET", &[&claim, &offered, b"NX", b"EX", CLAIM_SECS]));
            calls.push(Call::of("GET", &[&claim]));
            // Last: whoever made it has not made it before that.
            calls.push(Call::of("GET", &[&keys::request(*author, name)]));
        }
        let replies = self.inner.control.run(calls).await?;
        let claimed = replies.chunks(3).zip(requests).map(|(replies, (.., offered))| {
            let value = |place: usize| bytes(replies.get(place).cloned().unwrap_or(Value::Nil));
            if let Some(made) = value(2) {
                return Ok(ClaimedPost::Made(PostId(Made::read(&made)?.id)));
            }
            let claimed = match value(1) {
                Some(id) => post_id(&id).ok_or_else(|| damaged("the claim of a request"))?,
                // It has expired since.
                None => *offered,
            };
            Ok(ClaimedPost::ToMake(claimed))
        });
        claimed.collect()
    }

    async fn author_page(
        &self,
        author: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        let call = older(author, before, count_max);
        ids_newest_first(self.inner.control.one(call).await?)
    }

    async fn older_of(
        &self,
        authors: &[UserId],
        before: PostId,
        count_max: usize,
    ) -> Result<Vec<Vec<PostId>>, StoreError> {
        let pulled = self.pulled_authors();
        let mut lists = Vec::new();
        if !pulled.is_empty() {
            let hot = authors.iter().map(|author| async {
                match pulled.contains(author) {
                    true => self.inner.older_of_hot(*author, before, count_max).await,
                    false => Ok(None),
                }
            });
            lists = future::try_join_all(hot).await?;
        }
        lists.resize(authors.len(), None);
        let unknown = authors.iter().zip(&lists).filter(|(_, list)| list.is_none());
        let calls = unknown.map(|(author, _)| older(*author, Some(before), count_max)).collect();
        let mut others = self.inner.control.run(calls).await?.into_iter();
        let list = |list: Option<Vec<PostId>>| match list {
            Some(list) => Ok(list),
            None => ids_newest_first(others.next().unwrap_or(Value::Nil)),
        };
        lists.into_iter().map(list).collect()
    }

    async fn are_outdated(&self, posts: &[PostId]) -> Result<bool, StoreError> {
        let marks = self.inner.control.one(DeletedMarks::ask(posts)).await?;
        let marks = DeletedMarks::read(posts, marks);
        let are_outdated = posts.iter().any(|post| marks.is_deleted(*post) == Some(true));
        if are_outdated {
            self.inner.hot_authors.forget();
        }
        Ok(are_outdated)
    }

    async fn newest_of(
        &self,
        authors: &[UserId],
        count_max: usize,
    ) -> Result<Vec<NewestPosts>, StoreError> {
        // One more tells where it stops to be complete.
        let first = format!("-{}", count_max + 1);
        let calls = authors
            .iter()
            .map(|author| Call::of("LRANGE", &[&keys::author(*author), first.as_bytes(), b"-1"]))
            .collect();
        let lists = self.inner.control.run(calls).await?;
        lists
            .into_iter()
            .map(|list| {
                let mut ids = ids(elements(list))?;
                let floor = (ids.len() > count_max).then(|| ids.remove(0));
                Ok(NewestPosts { ids, floor })
            })
            .collect()
    }

    async fn follows(&self, follower: UserId, followee: UserId) -> Result<bool, StoreError> {
        let member = followee.to_string();
        let call = Call::of("SISMEMBER", &[&keys::following(follower), member.as_bytes()]);
        reply::yes_or_no(&self.inner.control.one(call).await?)
    }

    fn pulled_authors(&self) -> Arc<[UserId]> {
        self.inner.pulled.authors()
    }

    fn pulled_users(&self) -> Vec<UserId> {
        self.pulled_authors().to_vec()
    }

    async fn followed_among(
        &self,
        reader: UserId,
        accounts: &[UserId],
    ) -> Result<Vec<UserId>, StoreError> {
        let members: Vec<String> = accounts.iter().map(UserId::to_string).collect();
        let key = keys::following(reader);
        let arguments: Vec<&[u8]> =
            [key.as_slice()].into_iter().chain(members.iter().map(String::as_bytes)).collect();
        let are = elements(self.inner.control.one(Call::of("SMISMEMBER", &arguments)).await?);
        let mut followed = Vec::new();
        for (account, is) in accounts.iter().zip(are) {
            if reply::yes_or_no(&is)? {
                followed.push(*account);
            }
        }
        Ok(followed)
    }

    async fn hides(&self, reader: UserId) -> Result<Arc<Hides>, StoreError> {
        Ok(Arc::new(self.inner.hides(reader).await?))
    }

    async fn read_marker(&self, reader: UserId) -> Result<PostId, StoreError> {
        let call = Call::of("GET", &[&keys::read_marker(reader)]);
        let Some(marker) = bytes(self.inner.control.one(call).await?) else {
            return Ok(PostId(0));
        };
        post_id(&marker).ok_or_else(|| damaged("a read marker"))
    }

    async fn following(&self, reader: UserId) -> Result<Vec<UserId>, StoreError> {
        let call = Call::of("SMEMBERS", &[&keys::following(reader)]);
        let members = elements(self.inner.control.one(call).await?);
        reply::accounts(&members, "whom an account follows")
    }

    async fn list_follows(
        &self,
        account: UserId,
        side: FollowSide,
        after: Option<UserId>,
        count_max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        match side {
            FollowSide::Followers => self.inner.followers_page(account, after, count_max).await,
            FollowSide::Following => {
                let mut users = self.following(account).await?;
                users.retain(|user| after.is_none_or(|after| *user > after));
                users.truncate(count_max);
                Ok(users)
            }
        }
    }

    async fn count_follows(&self, account: UserId) -> Result<FollowCounts, StoreError> {
        let calls = vec![
            Call::of("HGET", &[&keys::followers(account), COUNT]),
            Call::of("SCARD", &[&keys::following(account)]),
        ];
        let counts = self.inner.control.run(calls).await?;
        // No field where no one has ever followed the account.
        let count = |at: usize| {
            reply::number_or_zero(counts.get(at).unwrap_or(&Value::Nil), "a count of follows")
        };
        Ok(FollowCounts { followers: count(0)?, following: count(1)? })
    }

    async fn incarnation(&self) -> Result<u64, StoreError> {
        let inner = &self.inner;
        let incarnation = inner.incarnation().await?;
        if inner.incarnation.swap(incarnation, Ordering::AcqRel) != incarnation {
            inner.incarnations.fetch_add(1, Ordering::AcqRel);
        }
        Ok(incarnation)
    }

    async fn unnoticed(&self) -> Result<Vec<u32>, StoreError> {
        self.inner.unnoticed(&self.inner.partition_marks(WATERMARKS).await?).await
    }

    async fn marks(&self) -> Result<Vec<Resume>, StoreError> {
        let marks = self.inner.partition_marks(MARKS).await?;
        let marks: Vec<Resume> = marks.iter().map(resume_of).collect::<Result<_, _>>()?;
        // After the marks: what they say is delivered counts on it.
        self.inner.hear_pulled().await?;
        self.inner.hot_authors.come(&marks);
        Ok(marks)
    }

    async fn greatest_post(&self) -> Result<Option<PostId>, StoreError> {
        let marks = self.inner.partition_marks(MARKS).await?;
        let mut greatest = 0;
        for marks in &marks {
            greatest = greatest.max(reply::field(marks, "greatest_post")?);
        }
        Ok((greatest > 0).then_some(PostId(greatest)))
    }

    /// To count all of it would be to walk through all of it.
    async fn size(&self) -> Result<StoreSize, StoreError> {
        Ok(StoreSize::default())
    }
}

impl Inner {
    /// The posts of an author who is pulled, from memory if they can be.
    async fn older_of_hot(
        &self,
        author: UserId,
        before: PostId,
        count_max: usize,
    ) -> Result<Option<Vec<PostId>>, StoreError> {
        let newest = async {
            let call = older(author, None, hot_authors::KEPT);
            ids_newest_first(self.control.one(call).await?)
        };
        self.hot_authors.older(author, before, count_max, newest).await
    }

    /// Reads only the blocks that it takes, of which the largest accounts have thousands.
    async fn followers_page(
        &self,
        account: UserId,
        after: Option<UserId>,
        count_max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        for _ in 0..PAGE_TRIES_MAX {
            if let Some(page) = self.try_followers_page(account, after, count_max).await? {
                return Ok(page);
            }
        }
        Ok(self.read_followers(account).await?.after(after, count_max))
    }

    /// `None`: there are other blocks than there were at first.
    async fn try_followers_page(
        &self,
        account: UserId,
        after: Option<UserId>,
        count_max: usize,
    ) -> Result<Option<Vec<UserId>>, StoreError> {
        let key = keys::followers(account);
        let fields = elements(self.control.one(Call::of("HKEYS", &[&key])).await?);
        let names = fields.iter().cloned().filter_map(bytes).filter(|name| name != COUNT);
        let names: Option<Vec<u64>> = names.map(|name| reply::decimal(&name)).collect();
        let mut names = names.ok_or_else(|| damaged("a block of followers"))?;
        names.sort_unstable();
        let mut page = Vec::new();
        let mut next = followers::first_block(&names, after);
        while next < names.len() && page.len() < count_max {
            let missing = count_max - page.len();
            let end = names.len().min(next + followers::blocks_for(missing));
            let texts: Vec<String> = names[next..end].iter().map(u64::to_string).collect();
            let arguments: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let reply = self.control.one(scripts::READ_BLOCKS.call(&key, &arguments)).await?;
            let mut found = elements(reply).into_iter();
            let count = found.next().unwrap_or(Value::Nil);
            // Blocks are never taken away, so another one is one more.
            if reply::number(&count, "a count of blocks of followers")? != fields.len() as u64 {
                return Ok(None);
            }
            let blocks = names[next..end].iter().copied().zip(found.filter_map(bytes));
            // The last one ends where the next begins.
            let beyond = names.get(end).map(|name| (*name, followers::EMPTY_BLOCK.to_vec()));
            let followers = Followers::of_blocks(blocks.chain(beyond))
                .map_err(|error| damaged(&format!("{error} of account {account}, which")))?;
            page.extend(followers.after(after, missing));
            next = end;
        }
        Ok(Some(page))
    }

    /// These marks of every partition, and no others: this is asked for often, and cursors
    /// can be long.
    async fn partition_marks(
        &self,
        names: &[&[u8]],
    ) -> Result<Vec<HashMap<Vec<u8>, Vec<u8>>>, StoreError> {
        let calls = (0..self.settings.partitions)
            .map(|partition| {
                let key = keys::partition(partition);
                let arguments: Vec<&[u8]> =
                    [key.as_slice()].into_iter().chain(names.iter().copied()).collect();
                Call::of("HMGET", &arguments)
            })
            .collect();
        let named = |values| {
            let values = names.iter().zip(elements(values));
            values.filter_map(|(name, value)| Some((name.to_vec(), bytes(value)?))).collect()
        };
        Ok(self.control.run(calls).await?.into_iter().map(named).collect())
    }
}

/// Asks for the newest posts of an author, or those older than `before`.
fn older(author: UserId, before: Option<PostId>, count_max: usize) -> Call {
    let count = count_max.to_string();
    let before = before.map(|before| before.0.to_be_bytes());
    let mut arguments = vec![count.as_bytes()];
    arguments.extend(before.as_ref().map(<[u8; 8]>::as_slice));
    scripts::OLDER.call(&keys::author(author), &arguments)
}

fn ids_newest_first(list: Value) -> Result<Vec<PostId>, StoreError> {
    let mut ids = ids(elements(list))?;
    ids.reverse();
    Ok(ids)
}

fn ids(entries: Vec<redis::Value>) -> Result<Vec<PostId>, StoreError> {
    let ids = entries.into_iter().filter_map(bytes).map(|entry| post_id(&entry));
    ids.collect::<Option<_>>().ok_or_else(|| damaged("an entry of an author's list"))
}
