//! How events come to hold: on disk first, then in memory; and how what is on disk
//! comes back into memory when the store is opened.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use super::{
    Inner,
    disk::{DiskBatch, Mark},
    edges::{self, ChangeKind},
};
use crate::{
    domain::{Event, PostId, UserId},
    store::{
        StoreError,
        hides::hide_changes,
        inboxes::{entries_of_message, entries_of_post},
        notified,
    },
};

/// An account's follow changes on disk are replaced by a snapshot once there are
/// more than this, and more than one in [`FOLLOWERS_PER_CHANGE`] followers: each
/// change is then rewritten a bounded number of times.
const FOLLOW_CHANGES_MAX: u32 = 256;
const FOLLOWERS_PER_CHANGE: u32 = 64;

impl Inner {
    /// Reads the accounts and the graph into memory.
    pub(super) fn load(&self) -> Result<(), StoreError> {
        let mut chunk = Vec::new();
        let disk = self.disk.get()?;
        for user in disk.accounts() {
            chunk.push(user?);
            if chunk.len() == 65_536 {
                self.number(&chunk)?;
                chunk.clear();
            }
        }
        self.number(&chunk)?;
        let mut unwritten = disk.batch();
        for entry in disk.follows() {
            let (followee, bytes) = entry?;
            let change = edges::decode(&bytes).ok_or_else(|| {
                disk.damage(&format!("a follow change of account {followee} is malformed"))
            })?;
            let mut users = change.followers.clone();
            users.push(followee);
            // Should the accounts on disk have lost their end, these mend it.
            for user in self.number(&users)?.1 {
                unwritten.add_account(user);
            }
            self.change_followers(followee, change.kind, &change.followers)?;
        }
        for entry in disk.hides() {
            let (reader, reason, other) = entry?;
            let (accounts, new) = self.number(&[reader])?;
            new.into_iter().for_each(|user| unwritten.add_account(user));
            self.hides.set(accounts[0], reason, other, true);
        }
        for author in disk.pulled() {
            let (accounts, new) = self.number(&[author?])?;
            new.into_iter().for_each(|user| unwritten.add_account(user));
            self.pulled.set(accounts[0], true);
        }
        unwritten.commit_unmarked()
    }

    /// The handles of these users, some of which may become known by this.
    pub(super) fn number(&self, users: &[UserId]) -> Result<(Vec<u32>, Vec<UserId>), StoreError> {
        let mut new = Vec::new();
        let numbers = self
            .accounts
            .number(users, &mut new)
            .ok_or(StoreError::TooManyAccounts { count_max: u64::from(u32::MAX) })?;
        Ok((numbers, new))
    }

    /// In memory; also counts the changes that are on disk.
    fn change_followers(
        &self,
        followee: UserId,
        kind: ChangeKind,
        followers: &[UserId],
    ) -> Result<(), StoreError> {
        let followee = self.number(&[followee])?.0[0];
        let followers = self.number(followers)?.0;
        if kind == ChangeKind::Replace {
            for follower in self.graph.followers(followee) {
                self.graph.unfollow(followee, follower);
            }
            self.follow_changes.with(followee, |count| *count = 0);
        }
        match kind {
            ChangeKind::Add | ChangeKind::Replace => self.graph.follow(followee, &followers),
            ChangeKind::Remove => {
                for follower in followers {
                    self.graph.unfollow(followee, follower);
                }
            }
        }
        self.follow_changes.with(followee, |count| *count = count.saturating_add(1));
        Ok(())
    }

    /// Only one call at a time for each partition.
    pub(super) fn apply(
        &self,
        partition: u32,
        first_offset: u64,
        events: &[Event],
    ) -> Result<Vec<PostId>, StoreError> {
        let applied = self.lock_applied().get(&partition).copied().unwrap_or(0);
        let known_len = applied.saturating_sub(first_offset).min(events.len() as u64) as usize;
        let (known, new) = events.split_at(known_len);
        let mut absent = self.write_again(partition, first_offset, known)?;
        absent.extend(self.find_deleted(known)?);
        if !new.is_empty() {
            let first_offset = first_offset + known_len as u64;
            let repeated = self.find_repeated(new)?;
            self.apply_to_disk(partition, first_offset, new, &repeated)?;
            let duplicates = repeated.others;
            self.apply_to_memory(new, &duplicates)?;
            self.write_snapshots(partition, first_offset + new.len() as u64, new)?;
            self.trim_inboxes(partition, first_offset + new.len() as u64, new)?;
            self.lock_applied().insert(partition, first_offset + new.len() as u64);
            absent.extend(duplicates);
        }
        absent.sort_unstable();
        Ok(absent)
    }

    /// Writes those of these events to disk that are in memory alone, since the files were
    /// opened again. Returns the posts that turn out to be made twice.
    fn write_again(
        &self,
        partition: u32,
        first_offset: u64,
        known: &[Event],
    ) -> Result<Vec<PostId>, StoreError> {
        let Some(on_disk) = self.behind(partition) else { return Ok(Vec::new()) };
        let Some(skipped) = on_disk.checked_sub(first_offset) else {
            return Err(StoreError::Lost { partition });
        };
        let unwritten = known.get(skipped as usize..).unwrap_or_default();
        let mut duplicates = Vec::new();
        if !unwritten.is_empty() {
            let repeated = self.find_repeated(unwritten)?;
            self.apply_to_disk(partition, on_disk, unwritten, &repeated)?;
            duplicates = repeated.others;
        }
        let (written, applied) =
            (on_disk + unwritten.len() as u64, self.applied_in_memory(partition));
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if written < applied {
            behind.insert(partition, written);
        } else {
            behind.remove(&partition);
        }
        Ok(duplicates)
    }

    fn applied_in_memory(&self, partition: u32) -> u64 {
        self.lock_applied().get(&partition).copied().unwrap_or(0)
    }

    fn apply_to_disk(
        &self,
        partition: u32,
        first_offset: u64,
        events: &[Event],
        repeated: &Repeated<PostId>,
    ) -> Result<(), StoreError> {
        let unsure = || self.unsure.lock().unwrap_or_else(PoisonError::into_inner);
        let was_unsure = unsure().contains(&partition);
        let are_unsure = was_unsure || self.behind(partition).is_some();
        let written = self.write_batch(partition, first_offset, events, repeated, are_unsure);
        match &written {
            Err(_) => drop(unsure().insert(partition)),
            Ok(()) if was_unsure => drop(unsure().remove(&partition)),
            Ok(()) => {}
        }
        written
    }

    /// Where it is not sure which accounts are on disk, all that are named are written.
    fn write_batch(
        &self,
        partition: u32,
        first_offset: u64,
        events: &[Event],
        repeated: &Repeated<PostId>,
        are_unsure: bool,
    ) -> Result<(), StoreError> {
        let disk = self.disk.get()?;
        let mut batch = disk.batch();
        self.write_accounts(events, are_unsure, &mut batch)?;
        let repeated_messages = self.find_repeated_messages(events)?;
        let (mut greatest_post, mut read_markers) = (0, HashMap::<UserId, PostId>::new());
        let mut made = HashMap::new();
        for (place, event) in events.iter().enumerate() {
            let offset = first_offset + place as u64;
            match event {
                Event::PostPublished { post, request_id } => {
                    greatest_post = greatest_post.max(post.id.0);
                    if !repeated.places.contains(&place) {
                        batch.add_post(post, request_id.as_deref());
                        batch.add_referrer(post);
                        made.insert(post.id, post);
                        batch.add_to_inboxes(entries_of_post(post));
                    }
                }
                Event::PostDeleted { post, author } => {
                    match made.get(post) {
                        Some(post) => batch.remove_referrer(post),
                        None => {
                            let post = self.disk.get()?.post(*post)?;
                            post.iter().for_each(|post| batch.remove_referrer(post));
                        }
                    }
                    batch.remove_post(*post, *author);
                }
                Event::Followed { followee, followers } => {
                    let change = edges::encode(ChangeKind::Add, followers.clone());
                    batch.add_follow_change(*followee, offset, change);
                }
                Event::Unfollowed { followee, follower } => {
                    let change = edges::encode(ChangeKind::Remove, vec![*follower]);
                    batch.add_follow_change(*followee, offset, change);
                }
                Event::MuteChanged { .. } | Event::BlockChanged { .. } => {
                    hide_changes(event).for_each(|change| batch.change_hide(change));
                }
                // On disk at once: with the process its timelines are gone, and whoever
                // makes them anew finds all posts.
                Event::PullChanged { author, pulled } => batch.set_pulled(*author, *pulled),
                Event::ReadMarkerMoved { reader, post } => {
                    let marker = read_markers.entry(*reader).or_insert(*post);
                    *marker = (*marker).max(*post);
                }
                Event::MessageSent { message, request_id } => {
                    greatest_post = greatest_post.max(message.id.0);
                    if !repeated_messages.places.contains(&place) {
                        batch.add_message(message, request_id.as_deref());
                        batch.add_to_inboxes(entries_of_message(message));
                    }
                }
                Event::MessageDeleted { message, .. } => batch.remove_message(*message),
            }
        }
        for (reader, post) in read_markers {
            if post > self.disk.get()?.read_marker(reader)? {
                batch.set_read_marker(reader, post);
            }
        }
        self.greatest_post.fetch_max(greatest_post, Ordering::Relaxed);
        batch.commit(partition, self.mark(first_offset + events.len() as u64))
    }

    fn apply_to_memory(&self, events: &[Event], duplicates: &[PostId]) -> Result<(), StoreError> {
        for event in events {
            match event {
                Event::PostPublished { post, .. } if duplicates.binary_search(&post.id).is_ok() => {
                    self.posts.forget(post.id);
                }
                Event::PostPublished { post, .. } => {
                    let author = self.number(&[post.author])?.0[0];
                    self.authors.insert(author, post.id);
                }
                Event::PostDeleted { post, author } => {
                    let author = self.number(&[*author])?.0[0];
                    self.posts.hide(*post, author);
                    self.posts.forget(*post);
                    self.authors.remove(author, *post);
                }
                Event::Followed { followee, followers } => {
                    self.change_followers(*followee, ChangeKind::Add, followers)?;
                }
                Event::Unfollowed { followee, follower } => {
                    self.change_followers(*followee, ChangeKind::Remove, &[*follower])?;
                }
                Event::MuteChanged { .. } | Event::BlockChanged { .. } => {
                    for change in hide_changes(event) {
                        let reader = self.number(&[change.reader])?.0[0];
                        self.hides.set(reader, change.reason, change.other, change.hides);
                    }
                }
                Event::PullChanged { author, pulled: true } => {
                    self.pulled.set(self.number(&[*author])?.0[0], true);
                }
                // When they no longer are, the worker says.
                Event::PullChanged { pulled: false, .. }
                | Event::ReadMarkerMoved { .. }
                | Event::MessageSent { .. }
                | Event::MessageDeleted { .. } => {}
            }
        }
        Ok(())
    }

    pub(super) fn mark(&self, next_offset: u64) -> Mark {
        Mark { next_offset, greatest_post: self.greatest_post.load(Ordering::Relaxed) }
    }

    /// The map is whole even after a panic: it is changed by single calls only.
    pub(super) fn lock_applied(&self) -> MutexGuard<'_, HashMap<u32, u64>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The posts that these events, applied before, made and that are gone.
    fn find_deleted(&self, events: &[Event]) -> Result<Vec<PostId>, StoreError> {
        let mut deleted = Vec::new();
        for event in events {
            if let Event::PostPublished { post, .. } = event
                && self.disk.get()?.post(post.id)?.is_none()
            {
                deleted.push(post.id);
            }
        }
        Ok(deleted)
    }

    /// The posts whose author has used their request id before.
    fn find_repeated(&self, events: &[Event]) -> Result<Repeated<PostId>, StoreError> {
        let requests = events.iter().map(|event| match event {
            Event::PostPublished { post, request_id: Some(name) } => {
                Some((post.author, name.as_str(), post.id))
            }
            _ => None,
        });
        Repeated::find(requests, |author, name| self.disk.get()?.request(author, name))
    }

    fn write_accounts(
        &self,
        events: &[Event],
        all: bool,
        batch: &mut DiskBatch<'_>,
    ) -> Result<(), StoreError> {
        let mut users = Vec::with_capacity(events.len());
        for event in events {
            users.push(event.key());
            match event {
                Event::Followed { followers, .. } => users.extend_from_slice(followers),
                Event::Unfollowed { follower, .. } => users.push(*follower),
                Event::MuteChanged { muted: other, .. }
                | Event::BlockChanged { blocked: other, .. } => users.push(*other),
                Event::PostPublished { post, .. } => {
                    users.extend(notified(post).into_iter().map(|(user, _)| user));
                }
                Event::MessageSent { message, .. } => {
                    users.extend_from_slice(&message.recipients);
                }
                Event::PostDeleted { .. }
                | Event::ReadMarkerMoved { .. }
                | Event::PullChanged { .. }
                | Event::MessageDeleted { .. } => {}
            }
        }
        let new = self.number(&users)?.1;
        for user in if all { users } else { new } {
            batch.add_account(user);
        }
        Ok(())
    }

    /// Writes a snapshot for those of the followees that have too many changes on
    /// disk, once all events before `next_offset` are in memory.
    fn write_snapshots(
        &self,
        partition: u32,
        next_offset: u64,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let followees: BTreeSet<UserId> = events
            .iter()
            .filter_map(|event| match event {
                Event::Followed { followee, .. } | Event::Unfollowed { followee, .. } => {
                    Some(*followee)
                }
                _ => None,
            })
            .collect();
        let disk = self.disk.get()?;
        let mut batch = None;
        for followee in followees {
            let account = self.number(&[followee])?.0[0];
            let changes = self.follow_changes.with(account, |count| *count);
            let followers = self.graph.counts(account).followers;
            if changes <= FOLLOW_CHANGES_MAX
                || u64::from(changes) <= followers / u64::from(FOLLOWERS_PER_CHANGE)
            {
                continue;
            }
            let followers = self.accounts.users(&self.graph.followers(account));
            batch.get_or_insert_with(|| disk.batch()).replace_follow_changes(
                followee,
                next_offset - 1,
                edges::encode_snapshot(followers),
            )?;
            self.follow_changes.with(account, |count| *count = 1);
        }
        batch.map_or(Ok(()), |batch| batch.commit(partition, self.mark(next_offset)))
    }
}

/// The events whose request was made before: the first of a request counts, even where a
/// later one would make the same id again, of something else.
pub(super) struct Repeated<Id> {
    /// The places of all of them.
    pub(super) places: HashSet<usize>,
    /// What those would make that is another one than the first has made, ascending.
    pub(super) others: Vec<Id>,
}

impl<Id: Copy + Ord> Repeated<Id> {
    /// Of the requests of these events, in their places, with what they would make. `made`
    /// knows what earlier ones have made.
    pub(super) fn find<'a>(
        requests: impl Iterator<Item = Option<(UserId, &'a str, Id)>>,
        made: impl Fn(UserId, &str) -> Result<Option<Id>, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut repeated = Self { places: HashSet::new(), others: Vec::new() };
        let mut first = HashMap::new();
        for (place, request) in requests.enumerate() {
            let Some((user, name, id)) = request else { continue };
            let made = match first.get(&(user, name)) {
                Some(made) => Some(*made),
                None => made(user, name)?,
            };
            first.entry((user, name)).or_insert(made.unwrap_or(id));
            if let Some(made) = made {
                repeated.places.insert(place);
                if made != id {
                    repeated.others.push(id);
                }
            }
        }
        repeated.others.sort_unstable();
        Ok(repeated)
    }
}
