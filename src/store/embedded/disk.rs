//! What the embedded store keeps on disk, in fjall keyspaces.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `accounts` | user | nothing: an event has named the user |
//! | `posts` | post | the post |
//! | `author_posts` | author, post | nothing: an author timeline is a range of keys |
//! | `requests` | author, request id | the post that the request made |
//! | | sender, 0xFF, request id | the message that the request made; no text has such a byte |
//! | `follows` | followee, offset, part | a change of its followers, see [`edges`](super::edges) |
//! | `read_markers` | reader | the newest post that it has read |
//! | `referrers` | post, kind, referring post | nothing: it answers or repeats the post |
//! | `pulled` | author | nothing: its posts are pulled |
//! | `hides` | reader, reason, account | nothing: the reader does not see the account |
//! | `inboxes` | account, list, post or message | who has written it: the account is told of the post, has received or sent the message |
//! | `messages` | message | the message |
//!
//! Ids are 8 bytes, big-endian. Every batch of writes ends each keyspace with a
//! mark of how far the partition's events have come, under a key that starts with
//! the id 0, which is nobody's. A keyspace is recovered in the order in which it
//! was written, so whatever is lost at its end, by a loss of power or by damage,
//! takes the mark along: the store resumes from the least mark and is whole again.

mod inboxes;
mod messages;
mod referrers;

use std::{
    collections::BTreeMap,
    io,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::{
    domain::{Post, PostId, UserId},
    event_log::codec,
    free_space,
    store::{HideReason, StoreError, hides::HideChange},
};

/// The id that stands before all ids.
const MARK_PREFIX: [u8; 8] = [0; 8];

/// Below so many free bytes nothing is written: a write that fails half-way costs more, as the
/// files must be opened again then.
const COMMIT_FREE_MIN: u64 = 8 << 20;

pub(super) struct Disk {
    dir: String,
    /// Whether a write has failed.
    has_failed: AtomicBool,
    database: Database,
    accounts: Keyspace,
    posts: Keyspace,
    author_posts: Keyspace,
    requests: Keyspace,
    follows: Keyspace,
    hides: Keyspace,
    read_markers: Keyspace,
    pulled: Keyspace,
    referrers: Keyspace,
    inboxes: Keyspace,
    messages: Keyspace,
}

/// How far a partition's events have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// One past the last event applied.
    pub(super) next_offset: u64,
    /// The greatest post id applied so far, or 0.
    pub(super) greatest_post: u64,
}

impl Disk {
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let name = dir.display().to_string();
        let failed = |error: fjall::Error| failure(&name, error);
        // What is damaged in some ways makes it panic.
        let open = || Database::builder(dir).cache_size(cache_bytes).open();
        let opened = panic::catch_unwind(AssertUnwindSafe(open)).map_err(|_| {
            let reason = "its files cannot be read".to_owned();
            StoreError::Damaged { dir: name.clone(), reason }
        })?;
        let database = opened.map_err(failed)?;
        let keyspace = |keyspace: &str| {
            database.keyspace(keyspace, KeyspaceCreateOptions::default).map_err(failed)
        };
        Ok(Self {
            accounts: keyspace("accounts")?,
            posts: keyspace("posts")?,
            author_posts: keyspace("author_posts")?,
            requests: keyspace("requests")?,
            follows: keyspace("follows")?,
            hides: keyspace("hides")?,
            read_markers: keyspace("read_markers")?,
            pulled: keyspace("pulled")?,
            referrers: keyspace("referrers")?,
            inboxes: keyspace("inboxes")?,
            messages: keyspace("messages")?,
            database,
            dir: name,
            has_failed: AtomicBool::new(false),
        })
    }

    /// The mark of every partition that has one in all keyspaces.
    pub(super) fn marks(&self) -> Result<BTreeMap<u32, Mark>, StoreError> {
        let mut marks: Option<BTreeMap<u32, Mark>> = None;
        for keyspace in self.keyspaces() {
            let mut of_keyspace = BTreeMap::new();
            for entry in keyspace.prefix(MARK_PREFIX) {
                let (key, value) = entry.into_inner().map_err(|error| self.failure(error))?;
                let (partition, mark) =
                    decode_mark(&key, &value).ok_or_else(|| self.damage("a mark is malformed"))?;
                of_keyspace.insert(partition, mark);
            }
            marks = Some(match marks {
                None => of_keyspace,
                Some(marks) => least(&marks, &of_keyspace),
            });
        }
        Ok(marks.unwrap_or_default())
    }

    fn keyspaces(&self) -> [&Keyspace; 11] {
        let Self { accounts, posts, author_posts, requests, follows, .. } = self;
        let Self { hides, read_markers, pulled, referrers, inboxes, messages, .. } = self;
        [
            accounts,
            posts,
            author_posts,
            requests,
            follows,
            hides,
            read_markers,
            pulled,
            referrers,
            inboxes,
            messages,
        ]
    }

    /// Whether a write has failed, after which none is taken.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn set_failed(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    fn failed_to_write(&self, error: fjall::Error) -> StoreError {
        self.has_failed.store(true, Ordering::Relaxed);
        self.failure(error)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        match free_space::available(Path::new(&self.dir)) {
            Some(free) if free < COMMIT_FREE_MIN => {
                let reason = format!("its disk has less than {} MiB left", COMMIT_FREE_MIN >> 20);
                Err(StoreError::Disk { dir: self.dir.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn batch(&self) -> DiskBatch<'_> {
        DiskBatch { disk: self, batch: self.database.batch() }
    }

    /// Returns once all batches committed so far survive a loss of power.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = self.database.persist(PersistMode::SyncAll);
        synced.map_err(|error| self.failed_to_write(error))
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = Result<UserId, StoreError>> + '_ {
        self.users(&self.accounts)
    }

    /// The authors who are pulled.
    pub(super) fn pulled(&self) -> impl Iterator<Item = Result<UserId, StoreError>> + '_ {
        self.users(&self.pulled)
    }

    fn users<'a>(
        &'a self,
        keyspace: &'a Keyspace,
    ) -> impl Iterator<Item = Result<UserId, StoreError>> + 'a {
        keyspace.range(first_key()..).map(|entry| {
            let key = entry.key().map_err(|error| self.failure(error))?;
            let user = u64_at(&key, 0).ok_or_else(|| self.damage("an account is malformed"))?;
            Ok(UserId(user))
        })
    }

    /// All changes of followers, for each followee in their order.
    pub(super) fn follows(
        &self,
    ) -> impl Iterator<Item = Result<(UserId, fjall::Slice), StoreError>> + '_ {
        self.follows.range(first_key()..).map(|entry| {
            let (key, value) = entry.into_inner().map_err(|error| self.failure(error))?;
            let followee = u64_at(&key, 0).ok_or_else(|| self.damage("a follow is malformed"))?;
            Ok((UserId(followee), value))
        })
    }

    /// Reader, reason and account of all that is hidden.
    pub(super) fn hides(
        &self,
    ) -> impl Iterator<Item = Result<(UserId, HideReason, UserId), StoreError>> + '_ {
        self.hides.range(first_key()..).map(|entry| {
            let key = entry.key().map_err(|error| self.failure(error))?;
            let reason = key.get(8).and_then(|byte| HideReason::of_byte(*byte));
            let parts = (u64_at(&key, 0), reason, u64_at(&key, SECOND_PLACE));
            let (Some(reader), Some(reason), Some(other)) = parts else {
                return Err(self.damage("whom a reader hides is malformed"));
            };
            Ok((UserId(reader), reason, UserId(other)))
        })
    }

    pub(super) fn read_marker(&self, reader: UserId) -> Result<PostId, StoreError> {
        let key = reader.0.to_be_bytes();
        let value = self.read_markers.get(key).map_err(|error| self.failure(error))?;
        let Some(value) = value else { return Ok(PostId(0)) };
        let post = u64_at(&value, 0).ok_or_else(|| self.damage("a read marker is malformed"))?;
        Ok(PostId(post))
    }

    pub(super) fn post(&self, id: PostId) -> Result<Option<Post>, StoreError> {
        let value = self.posts.get(id.0.to_be_bytes()).map_err(|error| self.failure(error))?;
        value
            .map(|bytes| {
                codec::decode_post(&bytes)
                    .map_err(|error| self.damage(&format!("post {id} is not readable: {error}")))
            })
            .transpose()
    }

    pub(super) fn request(
        &self,
        author: UserId,
        request_id: &str,
    ) -> Result<Option<PostId>, StoreError> {
        Ok(self.made(&request_key(author, request_id))?.map(PostId))
    }

    /// The id that a request has made.
    fn made(&self, request_key: &[u8]) -> Result<Option<u64>, StoreError> {
        let value = self.requests.get(request_key).map_err(|error| self.failure(error))?;
        let Some(value) = value else { return Ok(None) };
        u64_at(&value, 0).map(Some).ok_or_else(|| self.damage("a request is malformed"))
    }

    /// Up to `count_max` posts of an author older than `before`, newest first.
    pub(super) fn author_page(
        &self,
        author: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        let oldest = author_post_key(author, PostId(0));
        let end = before.map_or(u64::MAX, |before| before.0.saturating_sub(1));
        let newest = author_post_key(author, PostId(end));
        self.author_posts
            .range(oldest..=newest)
            .rev()
            .take(count_max)
            .map(|entry| {
                let key = entry.key().map_err(|error| self.failure(error))?;
                u64_at(&key, 8)
                    .map(PostId)
                    .ok_or_else(|| self.damage("an author timeline is malformed"))
            })
            .collect()
    }

    pub(super) fn failure(&self, error: fjall::Error) -> StoreError {
        failure(&self.dir, error)
    }

    pub(super) fn damage(&self, reason: &str) -> StoreError {
        StoreError::Damaged { dir: self.dir.clone(), reason: reason.to_owned() }
    }
}

/// Writes that hold all together or not at all.
pub(super) struct DiskBatch<'a> {
    disk: &'a Disk,
    batch: OwnedWriteBatch,
}

impl DiskBatch<'_> {
    pub(super) fn add_account(&mut self, user: UserId) {
        self.batch.insert(&self.disk.accounts, user.0.to_be_bytes(), []);
    }

    pub(super) fn add_post(&mut self, post: &Post, request_id: Option<&str>) {
        let disk = self.disk;
        self.batch.insert(&disk.posts, post.id.0.to_be_bytes(), codec::encode_post(post));
        self.batch.insert(&disk.author_posts, author_post_key(post.author, post.id), []);
        if let Some(request_id) = request_id {
            let key = request_key(post.author, request_id);
            self.batch.insert(&disk.requests, key, post.id.0.to_be_bytes());
        }
    }

    pub(super) fn remove_post(&mut self, post: PostId, author: UserId) {
        self.batch.remove(&self.disk.posts, post.0.to_be_bytes());
        self.batch.remove(&self.disk.author_posts, author_post_key(author, post));
    }

    /// Adds the change that the event at `offset` made to an account's followers.
    pub(super) fn add_follow_change(&mut self, followee: UserId, offset: u64, change: Vec<u8>) {
        self.batch.insert(&self.disk.follows, follow_key(followee, offset, 0), change);
    }

    /// Puts a snapshot of an account's followers, as they are after the event at
    /// `offset`, in the place of all changes up to there.
    pub(super) fn replace_follow_changes(
        &mut self,
        followee: UserId,
        offset: u64,
        snapshot: Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        for entry in
            self.disk.follows.range(follow_key(followee, 0, 0)..follow_key(followee, offset, 1))
        {
            let key = entry.key().map_err(|error| self.disk.failure(error))?;
            self.batch.remove(&self.disk.follows, key);
        }
        // From part 1 on: part 0 is the event's own, should it be applied again.
        for (part, value) in (1_u32..).zip(snapshot) {
            self.batch.insert(&self.disk.follows, follow_key(followee, offset, part), value);
        }
        Ok(())
    }

    pub(super) fn change_hide(&mut self, change: HideChange) {
        let HideChange { reader, reason, other, hides } = change;
        let key = join_by(reader.0, reason.byte(), other.0);
        if hides {
            self.batch.insert(&self.disk.hides, key, []);
        } else {
            self.batch.remove(&self.disk.hides, key);
        }
    }

    pub(super) fn set_pulled(&mut self, author: UserId, pulled: bool) {
        let key = author.0.to_be_bytes();
        if pulled {
            self.batch.insert(&self.disk.pulled, key, []);
        } else {
            self.batch.remove(&self.disk.pulled, key);
        }
    }

    pub(super) fn set_read_marker(&mut self, reader: UserId, post: PostId) {
        let (key, value) = (reader.0.to_be_bytes(), post.0.to_be_bytes());
        self.batch.insert(&self.disk.read_markers, key, value);
    }

    /// Makes a batch hold that has nothing to do with how far a partition has come.
    pub(super) fn commit_unmarked(self) -> Result<(), StoreError> {
        self.batch.commit().map_err(|error| self.disk.failed_to_write(error))
    }

    /// Marks how far the partition has come and makes the batch hold.
    pub(super) fn commit(mut self, partition: u32, mark: Mark) -> Result<(), StoreError> {
        self.disk.check_room()?;
        let (key, value) = encode_mark(partition, mark);
        for keyspace in self.disk.keyspaces() {
            self.batch.insert(keyspace, key, value);
        }
        self.batch.commit().map_err(|error| self.disk.failed_to_write(error))
    }
}

fn failure(dir: &str, error: fjall::Error) -> StoreError {
    let dir = dir.to_owned();
    let reason = error.to_string();
    match error {
        fjall::Error::Poisoned => StoreError::Poisoned { dir },
        fjall::Error::Locked => StoreError::InUse { dir },
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error))
            if is_of_disk(&error) =>
        {
            StoreError::Disk { dir, reason }
        }
        _ => StoreError::Damaged { dir, reason },
    }
}

/// Whether the system refuses or fails, rather than a file holding what it should not: one that
/// is missing, too short or of another kind has been damaged.
fn is_of_disk(error: &io::Error) -> bool {
    let is_of_file = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
    );
    error.raw_os_error().is_some() && !is_of_file
}

/// For each partition that both know, what both know.
fn least(one: &BTreeMap<u32, Mark>, other: &BTreeMap<u32, Mark>) -> BTreeMap<u32, Mark> {
    one.iter()
        .filter_map(|(partition, mark)| {
            let twin = other.get(partition)?;
            let mark = Mark {
                next_offset: mark.next_offset.min(twin.next_offset),
                greatest_post: mark.greatest_post.max(twin.greatest_post),
            };
            Some((*partition, mark))
        })
        .collect()
}

fn encode_mark(partition: u32, mark: Mark) -> ([u8; 12], [u8; 16]) {
    let mut key = [0; 12];
    key[8..].copy_from_slice(&partition.to_be_bytes());
    (key, join(mark.next_offset, mark.greatest_post))
}

fn decode_mark(key: &[u8], value: &[u8]) -> Option<(u32, Mark)> {
    let partition = u32::from_be_bytes(key.get(8..12)?.try_into().ok()?);
    let mark = Mark { next_offset: u64_at(value, 0)?, greatest_post: u64_at(value, 8)? };
    Some((partition, mark))
}

fn first_key() -> [u8; 8] {
    1_u64.to_be_bytes()
}

fn author_post_key(author: UserId, post: PostId) -> [u8; 16] {
    join(author.0, post.0)
}

fn request_key(author: UserId, request_id: &str) -> Vec<u8> {
    [&author.0.to_be_bytes(), request_id.as_bytes()].concat()
}

fn follow_key(followee: UserId, offset: u64, part: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&join(followee.0, offset));
    key[16..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Where the second id of [`join_by`] stands.
const SECOND_PLACE: usize = 9;

/// A key of two ids, with what the second one is to the first between them.
fn join_by(first: u64, kind: u8, second: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8] = kind;
    key[SECOND_PLACE..].copy_from_slice(&second.to_be_bytes());
    key
}

fn join(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_be_bytes());
    bytes[8..].copy_from_slice(&second.to_be_bytes());
    bytes
}

fn u64_at(bytes: &[u8], start: usize) -> Option<u64> {
    let bytes = bytes.get(start..start + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
