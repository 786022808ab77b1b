//! Makes events hold in Redis.
//!
//! ```text
//!  mark: attempted ──► posts, requests, deleted ──► graph, author lists ──► mark: applied
//! ```
//!
//! Every write of it changes nothing when it comes again, and a batch that broke
//! off is applied again as a whole. So nobody sees what came and went within it.
//! Only what certainly comes for the first time is appended without a look.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

pub(super) use super::fold::Made;
use super::{
    Claim, ClaimState, Inner, Mark, RedisStore,
    control::{Call, bytes},
    cursors, damaged, fence, fields,
    fold::{self, Fold},
    followers::Followers,
    hides, keys, reply, scripts, watermarks,
};
use crate::{
    domain::{Event, PostId, UserId},
    event_log::codec,
    store::{Cursor, Ledger, Resume, Resumed, StoreError},
};

/// How long a deletion is remembered after the post has left every timeline: longer
/// than any read that began before.
const FORGET_AFTER_SECS: u64 = 60;
/// Deletions that are forgotten at once.
const FORGET_BATCH: usize = 256;

/// The name of the field that counts an account's followers.
pub(super) const COUNT: &[u8] = b"n";

impl Ledger for RedisStore {
    async fn apply(
        &self,
        partition: u32,
        first_offset: u64,
        events: Arc<[Event]>,
    ) -> Result<Vec<PostId>, StoreError> {
        let inner = &self.inner;
        let claim = inner.with_claim(partition, |claim| claim.clone())?;
        let known_len = claim.applied.saturating_sub(first_offset).min(events.len() as u64);
        let (known, new) = events.split_at(known_len as usize);
        let mut absent = inner.find_deleted(known).await?;
        if !new.is_empty() {
            let next_offset = first_offset + events.len() as u64;
            let applied = inner.apply(partition, &claim, first_offset, next_offset, new).await;
            // Some of it may hold though it has failed.
            inner.hot_authors.forget();
            absent.extend(applied?);
        }
        absent.sort_unstable();
        Ok(absent)
    }

    /// Takes the partition over: from now on only this process may write its marks. If
    /// a node has lost what it was given, the marks go back to where everything is
    /// known to hold, and no cursor is.
    async fn resume(&self, partition: u32, end: u64) -> Result<Resumed<UserId>, StoreError> {
        let inner = &self.inner;
        // Nothing of what was taken in hand before is under way here.
        inner.claims().remove(&partition);
        // An emptied Redis is this log's from here on.
        inner.check_log().await?;
        let worker = inner.settings.worker.as_str();
        let key = keys::partition(partition);
        let name = rand::random::<u64>();
        let epoch = format!("{worker} {name:016x}").into_bytes();
        let call = scripts::CLAIM.call(&key, &[&epoch]);
        let before = fields(inner.control.one(call).await?);
        let owner = before.get(b"owner".as_slice()).map(|owner| String::from_utf8_lossy(owner));
        let released = before.get(b"released".as_slice()).is_some_and(|value| value == b"1");
        // This process too, if it was: what it gave up half-way may still be under way.
        if let Some(owner) = owner
            && !released
        {
            fence::close_connections(&inner.settings.config, &owner).await?;
        }
        // What was cached of them may have been changed by another worker since.
        inner.followers.clear();
        let mut resumed = Resumed {
            marks: resume_of(&before)?,
            cursors: cursors::of_text(&text(&before, "cursors")),
            pulled: inner.hear_pulled().await?.to_vec(),
        };
        let watermarks = watermarks::of_slots(&text(&before, "watermarks"));
        // Watermarks from before must not be written over the ones of from now on.
        let _turn = inner.looked_at.lock().await;
        let look = inner.look(&[(partition, &watermarks)]).await?;
        if let Some(loss) = look.lost(partition, &watermarks) {
            for worker in &loss.workers {
                fence::close_connections(&inner.settings.config, worker).await?;
            }
            loss.go_back(&mut resumed, end);
            resumed.marks.history = name;
        }
        let resume = resumed.marks;
        let cursors = cursors::text(&resumed.cursors);
        let delivered = resume.delivered.unwrap_or_default();
        let marks: [Mark<'_>; 8] = [
            ("owner", &worker),
            ("released", &0),
            ("applied", &resume.applied),
            ("shown", &resume.shown),
            ("history", &resume.history),
            ("delivered", &delivered),
            ("cursors", &cursors),
            ("attempted", &resume.attempted),
        ];
        inner.mark(partition, &epoch, &marks).await?;
        let watermarks = inner.begin_watermarks(&look, partition, &watermarks, delivered).await?;
        let slots = watermarks::slots_text(&watermarks);
        inner.mark(partition, &epoch, &[("watermarks", &slots)]).await?;
        // Emptied before the look, it would be nobody's; what comes later is noticed.
        inner.check_log().await?;
        let claim = Claim {
            epoch,
            applied: resume.applied,
            attempted: resume.attempted,
            delivered,
            cursors: cursors.into(),
            greatest_post: reply::field(&before, "greatest_post")?,
            watermarks,
            state: ClaimState::Held,
        };
        inner.claims().insert(partition, claim);
        // Where something was lost, this is what was learnt before it was noticed.
        inner.resumed.fetch_add(1, Ordering::Release);
        Ok(resumed)
    }

    async fn shown(&self, partition: u32, offset: u64) -> Result<(), StoreError> {
        let epoch = self.inner.with_claim(partition, |claim| claim.epoch.clone())?;
        self.inner.mark(partition, &epoch, &[("shown", &offset)]).await
    }

    async fn delivered(
        &self,
        partition: u32,
        offset: u64,
        cursors: &[Cursor<UserId>],
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let cursors: Arc<str> = cursors::text(cursors).into();
        let (epoch, told) = inner
            .with_claim(partition, |claim| (claim.epoch.clone(), Arc::clone(&claim.cursors)))?;
        let mut marks: Vec<Mark<'_>> = vec![("delivered", &offset)];
        if cursors != told {
            marks.push(("cursors", &cursors));
        }
        inner.mark(partition, &epoch, &marks).await?;
        inner.with_claim(partition, |claim| {
            (claim.delivered, claim.cursors) = (offset, Arc::clone(&cursors));
        })?;
        inner.keep_watermarks().await;
        self.check(partition)
    }

    async fn release(&self, partition: u32) -> Result<(), StoreError> {
        if let Ok(epoch) = self.inner.with_claim(partition, |claim| claim.epoch.clone()) {
            self.inner.mark(partition, &epoch, &[("released", &1)]).await?;
        }
        self.abandon(partition);
        Ok(())
    }

    fn check(&self, partition: u32) -> Result<(), StoreError> {
        self.inner.with_claim(partition, |_| ())
    }

    fn abandon(&self, partition: u32) {
        self.inner.claims().remove(&partition);
    }

    /// How much outlives a loss of power is the business of Redis.
    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn followers_after(
        &self,
        author: UserId,
        after: Option<UserId>,
        count_max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        Ok(self.inner.followers(author).await?.after(after, count_max))
    }

    /// Of those who post, whose followers are asked for next.
    async fn count_followers(&self, author: UserId) -> Result<u64, StoreError> {
        Ok(self.inner.followers(author).await?.len() as u64)
    }

    async fn deleted_of(&self, author: UserId) -> Result<Vec<PostId>, StoreError> {
        let deleted = self.inner.control.one(Call::of("HGETALL", &[keys::DELETED])).await?;
        let author = author.to_string().into_bytes();
        let of_author = fields(deleted).into_iter().filter(|(_, value)| *value == author);
        let mut posts: Vec<PostId> = of_author.filter_map(|(post, _)| post_id(&post)).collect();
        posts.sort_unstable();
        Ok(posts)
    }

    /// A read that looked into a list before may look for its deletions after, so
    /// that they are kept for a while.
    async fn forget_deleted(&self, post: PostId) -> Result<(), StoreError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let gone = format!("-{}", now.as_secs());
        let id = post.0.to_be_bytes();
        let call = Call::of("HSET", &[keys::DELETED, &id, gone.as_bytes()]);
        self.inner.write(vec![call]).await?;
        self.inner.forget_old(now.as_secs()).await
    }

    async fn forget_pulled(&self, author: UserId) -> Result<(), StoreError> {
        let member = author.to_string();
        let call = Call::of("SREM", &[keys::PULLED, member.as_bytes()]);
        self.inner.write(vec![call]).await?;
        self.inner.pulled.change(author, false);
        Ok(())
    }
}

impl Inner {
    /// Looks at a claim that is still held.
    fn with_claim<T>(
        &self,
        partition: u32,
        act: impl FnOnce(&mut Claim) -> T,
    ) -> Result<T, StoreError> {
        match self.claims().get_mut(&partition) {
            None => Err(StoreError::Fenced { partition }),
            Some(claim) => match claim.state {
                ClaimState::Fenced => Err(StoreError::Fenced { partition }),
                ClaimState::Lost => Err(StoreError::Lost { partition }),
                ClaimState::Held => Ok(act(claim)),
            },
        }
    }

    async fn apply(
        &self,
        partition: u32,
        claim: &Claim,
        batch_offset: u64,
        next_offset: u64,
        events: &[Event],
    ) -> Result<Vec<PostId>, StoreError> {
        let first_offset = next_offset - events.len() as u64;
        let attempted = claim.attempted.max(next_offset);
        self.mark(partition, &claim.epoch, &[("attempted", &attempted)]).await?;
        // Should anything below fail, these events come again.
        if let Some(claim) = self.claims().get_mut(&partition) {
            claim.attempted = attempted;
        }
        let requests = fold::requests(events);
        let made = self.requests_made(&requests, keys::request).await?;
        let made: HashMap<(UserId, &str), Made> = requests
            .into_iter()
            .zip(made)
            .filter_map(|(request, post)| Some((request, post?)))
            .collect();
        let mut fold = Fold::new(batch_offset, first_offset, events, &made);
        if first_offset < claim.attempted {
            fold.take_back_doubtful();
        }
        let messages =
            self.fold_messages(first_offset, events, first_offset < claim.attempted).await?;
        // What comes for the first time is newer than all that was applied before, but
        // for posts that overtook each other on their way into the log.
        let newest = (first_offset >= claim.attempted).then_some(PostId(claim.greatest_post));
        self.write_posts(&fold).await?;
        self.write_graph(&fold).await?;
        self.write_readers(&fold).await?;
        self.write_pulled(&fold.pulled).await?;
        self.write_referrers(&fold).await?;
        self.write_author_lists(&fold, newest).await?;
        self.write_messages(&messages).await?;
        self.write_inboxes(&fold, &messages).await?;
        self.write_accounts(&fold.accounts).await?;
        let greatest_post = claim.greatest_post.max(fold.greatest_post);
        let marks: [Mark<'_>; 2] = [("applied", &next_offset), ("greatest_post", &greatest_post)];
        self.mark(partition, &claim.epoch, &marks).await?;
        if let Some(claim) = self.claims().get_mut(&partition) {
            (claim.applied, claim.greatest_post) = (next_offset, greatest_post);
        }
        Ok(fold.duplicates)
    }

    /// The posts themselves come before the lists that name them. One that is
    /// deleted is hidden first.
    async fn write_posts(&self, fold: &Fold<'_>) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        for (post, author) in &fold.deleted {
            let author = author.to_string();
            calls
                .push(Call::of("HSET", &[keys::DELETED, &post.0.to_be_bytes(), author.as_bytes()]));
        }
        calls.extend(set_fields(
            fold.posts
                .iter()
                .map(|post| (keys::posts_of_second(post.id), post.id.0, codec::encode_post(post))),
        ));
        for (author, request_id, made) in &fold.requests {
            let key = keys::request(*author, request_id);
            calls.push(Call::of("SET", &[&key, &made.bytes()]));
        }
        self.write(calls).await.map(drop)
    }

    /// Puts the posts into the lists of their authors, and takes the deleted out. Posts
    /// newer than `newest` are appended without a look, for nothing newer holds.
    async fn write_author_lists(
        &self,
        fold: &Fold<'_>,
        newest: Option<PostId>,
    ) -> Result<(), StoreError> {
        let mut by_author = BTreeMap::<UserId, Vec<PostId>>::new();
        for post in &fold.posts {
            by_author.entry(post.author).or_default().push(post.id);
        }
        let mut calls = Vec::new();
        for (author, posts) in &mut by_author {
            posts.sort_unstable();
            let (key, ids) = (keys::author(*author), id_bytes(posts));
            let insert = scripts::INSERT_POSTS.call(&key, &with_ids([], &ids));
            if newest.is_some_and(|newest| posts.first() > Some(&newest)) {
                calls.push(insert.at_first(Call::of("RPUSH", &with_ids([&key], &ids))));
            } else {
                calls.push(insert);
            }
        }
        for (post, author) in &fold.deleted {
            let id = post.0.to_be_bytes();
            calls.push(Call::of("HDEL", &[&keys::posts_of_second(*post), &id]));
            calls.push(Call::of("LREM", &[&keys::author(*author), b"0", &id]));
        }
        self.write(calls).await.map(drop)
    }

    async fn write_accounts(&self, accounts: &BTreeSet<UserId>) -> Result<(), StoreError> {
        let calls = accounts.iter().map(|account| {
            let member = account.to_string();
            Call::of("SADD", &[&keys::known(*account), member.as_bytes()])
        });
        self.write(calls.collect()).await.map(drop)
    }

    /// Whom readers hide, and how far they have read.
    async fn write_readers(&self, fold: &Fold<'_>) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        for (reader, post) in &fold.read_markers {
            let (key, post) = (keys::read_marker(*reader), post.0.to_be_bytes());
            calls.push(scripts::MOVE_READ_MARKER.call(&key, &[&post]));
        }
        for (reader, changes) in &fold.hides {
            for ((reason, other), hides) in changes {
                let command = if *hides { "SADD" } else { "SREM" };
                let member = hides::hide_member(*reason, *other);
                calls.push(Call::of(command, &[&keys::hides(*reader), &member]));
            }
        }
        self.write(calls).await.map(drop)
    }

    /// Authors who are pulled from now on. When they no longer are, the worker says.
    async fn write_pulled(&self, authors: &BTreeSet<UserId>) -> Result<(), StoreError> {
        for author in authors {
            let member = author.to_string();
            self.write(vec![Call::of("SADD", &[keys::PULLED, member.as_bytes()])]).await?;
            self.pulled.change(*author, true);
        }
        Ok(())
    }

    async fn write_graph(&self, fold: &Fold<'_>) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        let result = async {
            for (followee, changes) in &fold.follows {
                calls.extend(self.change_followers(*followee, changes).await?);
                for (follower, follows) in changes {
                    let command = if *follows { "SADD" } else { "SREM" };
                    let key = keys::following(*follower);
                    calls.push(Call::of(command, &[&key, followee.to_string().as_bytes()]));
                }
            }
            self.write(calls).await
        };
        let result = result.await;
        if result.is_err() {
            // What is in memory may not be what is there.
            fold.follows.keys().for_each(|followee| {
                self.followers.remove(followee);
            });
        }
        result.map(drop)
    }

    /// Changes the followers in memory; returns how to write the blocks that differ.
    async fn change_followers(
        &self,
        followee: UserId,
        changes: &BTreeMap<UserId, bool>,
    ) -> Result<Option<Call>, StoreError> {
        let mut cached = self.followers(followee).await?;
        // Changed in place, and weighed again when it comes back: nobody else asks for
        // it, since an author's followers have one writer.
        self.followers.remove(&followee);
        let followers = Arc::make_mut(&mut cached);
        let changed = followers.change(changes.iter().map(|(follower, now)| (*follower, *now)));
        if changed.is_empty() {
            self.followers.insert(followee, cached);
            return Ok(None);
        }
        let blocks: Vec<(String, Vec<u8>)> =
            changed.into_iter().map(|name| (name.to_string(), followers.block(name))).collect();
        let count = followers.len().to_string();
        let key = keys::followers(followee);
        let mut arguments: Vec<&[u8]> = vec![&key, COUNT, count.as_bytes()];
        for (name, block) in &blocks {
            arguments.extend([name.as_bytes(), block.as_slice()]);
        }
        let call = Call::of("HSET", &arguments);
        self.followers.insert(followee, cached);
        Ok(Some(call))
    }

    /// An account's followers, from memory if it can be.
    async fn followers(&self, account: UserId) -> Result<Arc<Followers>, StoreError> {
        if let Some(followers) = self.followers.get(&account) {
            return Ok(followers);
        }
        let followers = Arc::new(self.read_followers(account).await?);
        self.followers.insert(account, Arc::clone(&followers));
        Ok(followers)
    }

    pub(super) async fn read_followers(&self, account: UserId) -> Result<Followers, StoreError> {
        let key = keys::followers(account);
        let reply = self.control.one(Call::of("HGETALL", &[&key])).await?;
        let mut blocks = Vec::new();
        for (name, block) in fields(reply) {
            if name != COUNT {
                let name = reply::decimal(&name);
                blocks.push((name.ok_or_else(|| damaged("a block of followers"))?, block));
            }
        }
        Followers::of_blocks(blocks)
            .map_err(|error| damaged(&format!("{error} of account {account}, which")))
    }

    /// The posts that these events, applied before, made and that are gone.
    async fn find_deleted(&self, events: &[Event]) -> Result<Vec<PostId>, StoreError> {
        let posts: Vec<PostId> = events
            .iter()
            .filter_map(|event| match event {
                Event::PostPublished { post, .. } => Some(post.id),
                _ => None,
            })
            .collect();
        let call = |post: &PostId| {
            Call::of("HEXISTS", &[&keys::posts_of_second(*post), &post.0.to_be_bytes()])
        };
        let calls = posts.iter().map(call).collect();
        let there = self.control.run(calls).await?;
        let mut gone = Vec::new();
        for (post, there) in posts.into_iter().zip(there) {
            if !reply::yes_or_no(&there)? {
                gone.push(post);
            }
        }
        Ok(gone)
    }

    /// What requests have made, in the same places, which is kept under these keys.
    pub(super) async fn requests_made(
        &self,
        requests: &[(UserId, &str)],
        key: fn(UserId, &str) -> Vec<u8>,
    ) -> Result<Vec<Option<Made>>, StoreError> {
        let calls = requests.iter().map(|(user, name)| Call::of("GET", &[&key(*user, name)]));
        let made = self.control.run(calls.collect()).await?;
        made.into_iter()
            .map(|value| bytes(value).map(|made| Made::read(&made)).transpose())
            .collect()
    }

    /// Drops deletions that no read can need any more.
    async fn forget_old(&self, now_secs: u64) -> Result<(), StoreError> {
        let count = FORGET_BATCH.to_string();
        let scan = Call::of("HRANDFIELD", &[keys::DELETED, count.as_bytes(), b"WITHVALUES"]);
        let some = fields(self.control.one(scan).await?);
        let old: Vec<&[u8]> = some
            .iter()
            .filter(|(_, value)| {
                let since = value.strip_prefix(b"-").and_then(reply::decimal);
                since.is_some_and(|since| since.saturating_add(FORGET_AFTER_SECS) < now_secs)
            })
            .map(|(post, _)| post.as_slice())
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        let mut arguments = vec![keys::DELETED];
        arguments.extend(old);
        self.write(vec![Call::of("HDEL", &arguments)]).await.map(drop)
    }
}

/// A mark that is text; empty where there is none.
pub(super) fn text<'a>(marks: &'a HashMap<Vec<u8>, Vec<u8>>, name: &str) -> Cow<'a, str> {
    let value = marks.get(name.as_bytes());
    value.map(|value| String::from_utf8_lossy(value)).unwrap_or_default()
}

/// Sets fields, which ids name, of hashes: one command for each hash.
pub(super) fn set_fields(fields: impl Iterator<Item = (Vec<u8>, u64, Vec<u8>)>) -> Vec<Call> {
    let mut by_key = BTreeMap::<Vec<u8>, Vec<([u8; 8], Vec<u8>)>>::new();
    for (key, id, value) in fields {
        by_key.entry(key).or_default().push((id.to_be_bytes(), value));
    }
    let calls = by_key.into_iter().map(|(key, fields)| {
        let fields = fields.iter().flat_map(|(id, value)| [id.as_slice(), value]);
        let arguments: Vec<&[u8]> = [key.as_slice()].into_iter().chain(fields).collect();
        Call::of("HSET", &arguments)
    });
    calls.collect()
}

/// Where the marks of a partition say that a worker goes on.
///
/// # Errors
/// If one of them is no number.
pub(super) fn resume_of(marks: &HashMap<Vec<u8>, Vec<u8>>) -> Result<Resume, StoreError> {
    let number = |name| reply::field(marks, name);
    let applied = number("applied")?;
    Ok(Resume {
        applied,
        shown: number("shown")?.min(applied),
        attempted: number("attempted")?.max(applied),
        delivered: Some(number("delivered")?),
        history: number("history")?,
    })
}

/// Ids as they stand in lists.
pub(super) fn id_bytes(ids: &[PostId]) -> Vec<[u8; 8]> {
    ids.iter().map(|id| id.0.to_be_bytes()).collect()
}

/// Arguments that end with ids.
pub(super) fn with_ids<'a, const N: usize>(
    first: [&'a [u8]; N],
    ids: &'a [[u8; 8]],
) -> Vec<&'a [u8]> {
    first.into_iter().chain(ids.iter().map(<[u8; 8]>::as_slice)).collect()
}

/// An id of 8 bytes.
pub(super) fn post_id(bytes: &[u8]) -> Option<PostId> {
    Some(PostId(u64::from_be_bytes(bytes.try_into().ok()?)))
}
