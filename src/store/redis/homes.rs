//! Home timelines in Redis.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Inner, RedisStore,
    control::{Call, bytes},
    damaged, keys,
    ledger::{id_bytes, post_id, with_ids},
    lists::{DeletedMarks, Part, Read},
    push::PushReport,
    reply, scripts,
};
use crate::{
    domain::{PostId, UserId},
    store::{
        Floor, HomeEnd, HomePage, HomeRead, Homes, NewestPosts, PushOutcome, Pushes, RebuildTicket,
        StoreError,
    },
};

/// Ids taken away that one rebuild remembers, at the most. They are in one entry of the
/// list, which is written anew with each of them.
const TAKEN_MAX: &[u8] = b"8192";
/// Keys that are looked at to come across a live timeline.
const LOOKS_FOR_LIVE: usize = 64;
/// With fewer readers, leaving out those who sleep costs more than it saves.
const LEAVE_OUT_FROM: usize = 32;

impl Homes for RedisStore {
    async fn push(&self, pushes: &Pushes<UserId>) -> Result<PushOutcome, StoreError> {
        if pushes.len() < LEAVE_OUT_FROM || self.inner.settings.sleepers_bytes_max == 0 {
            let report = self.inner.push(pushes).await?;
            self.inner.settle(pushes, report).await
        } else {
            self.inner.push_to_awake(pushes).await
        }
    }

    async fn push_again(&self, pushes: &Pushes<UserId>) -> Result<PushOutcome, StoreError> {
        self.inner.push_again(pushes).await
    }

    async fn awake(&self, readers: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let calls = readers.iter().map(|reader| Call::of("EXISTS", &[&keys::home(*reader)]));
        let there = self.inner.control.run(calls.collect()).await?;
        let mut awake = Vec::new();
        for (reader, there) in readers.iter().zip(there) {
            if reply::yes_or_no(&there)? {
                awake.push(*reader);
            }
        }
        Ok(awake)
    }

    async fn merge(&self, reader: UserId, posts: &NewestPosts) -> Result<(), StoreError> {
        let call = self.inner.merge(reader, posts.floor, &posts.ids);
        self.inner.write(vec![call]).await.map(drop)
    }

    async fn purge(&self, reader: UserId, posts: &NewestPosts) -> Result<(), StoreError> {
        self.inner.write(vec![take(reader, posts.floor, &posts.ids)]).await.map(drop)
    }

    async fn remove(&self, readers: &[UserId], post: PostId) -> Result<(), StoreError> {
        let calls = readers.iter().map(|reader| take(*reader, None, &[post])).collect();
        self.inner.write(calls).await.map(drop)
    }

    async fn page(
        &self,
        reader: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomeRead, StoreError> {
        let part = Part { before, len: piece_len(count_max) };
        let Some(mut read) = self.inner.list(reader, part).await? else {
            return Ok(HomeRead::Asleep);
        };
        let hides = Arc::new(std::mem::take(&mut read.hides));
        let page = self.inner.cut(&read, before, count_max).await?;
        Ok(page.map_or(HomeRead::Asleep, |page| HomeRead::Page(HomePage { hides, ..page })))
    }

    async fn look_at_page(
        &self,
        reader: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomeRead, StoreError> {
        let Some(read) = self.inner.look_at_list(reader).await? else {
            return Ok(HomeRead::Asleep);
        };
        let page = self.inner.cut(&read, before, count_max).await?;
        Ok(page.map_or(HomeRead::Asleep, HomeRead::Page))
    }

    async fn ends(&self, readers: &[UserId]) -> Result<Vec<HomeEnd>, StoreError> {
        let calls = readers.iter().flat_map(|reader| {
            let key = keys::home(*reader);
            [Call::of("LLEN", &[&key]), Call::of("LINDEX", &[&key, b"-1"])]
        });
        let replies = self.inner.control.run(calls.collect()).await?;
        let ends = replies.chunks(2).map(|replies| {
            let [len, last] = replies else { return Err(damaged("a home timeline")) };
            // The last entry is the marker, and no id, where the list holds nothing else.
            let last = bytes(last.clone()).and_then(|last| post_id(&last));
            Ok(HomeEnd {
                len: reply::number(len, "the length of a home timeline")?,
                last: last.map_or(0, |id| id.0),
                floor: 0,
            })
        });
        ends.collect()
    }

    async fn some_live(&self) -> Result<Option<UserId>, StoreError> {
        let calls = (0..LOOKS_FOR_LIVE).map(|_| Call::of("RANDOMKEY", &[]));
        let some = self.inner.control.run(calls.collect()).await?;
        Ok(some.into_iter().filter_map(bytes).find_map(|key| keys::reader_of_home(&key)))
    }

    async fn begin_rebuild(&self, reader: UserId) -> Result<RebuildTicket, StoreError> {
        let ticket = rand::random::<u64>().to_be_bytes();
        let ttl = self.inner.ttl();
        let call = scripts::BEGIN_REBUILD.call(&keys::home(reader), &[&ticket, ttl.as_bytes()]);
        let reply = self.inner.control.one(call).await?;
        let ticket = bytes(reply).and_then(|bytes| bytes.try_into().ok());
        let ticket = ticket.ok_or_else(|| damaged("the marker of a home timeline"))?;
        // Whoever joins a rebuild too: the one who began it may never have come so far.
        self.inner.announce_wake(reader).await?;
        Ok(RebuildTicket(u64::from_be_bytes(ticket)))
    }

    async fn finish_rebuild(
        &self,
        reader: UserId,
        ticket: RebuildTicket,
        posts: NewestPosts,
    ) -> Result<bool, StoreError> {
        let floor = floor_bytes(posts.floor);
        let ids = id_bytes(&posts.ids);
        let ticket = ticket.0.to_be_bytes();
        let kept = self.inner.limits.kept.to_string();
        let ttl = self.inner.ttl();
        let arguments = with_ids([&ticket, &floor, kept.as_bytes(), ttl.as_bytes()], &ids);
        let call = scripts::FINISH_REBUILD.call(&keys::home(reader), &arguments);
        reply::yes_or_no(&self.inner.control.one(call).await?)
    }

    fn entries_max(&self) -> usize {
        self.inner.limits.kept
    }
}

impl Inner {
    async fn push(&self, pushes: &Pushes<UserId>) -> Result<PushReport, StoreError> {
        Ok(self.pusher.push(pushes).await.map_err(|error| error.error)?)
    }

    /// Pushes to all who are not known to sleep.
    async fn push_to_awake(&self, pushes: &Pushes<UserId>) -> Result<PushOutcome, StoreError> {
        // Until the answers are in: what they teach must not be older than what another
        // push has heard.
        let mut sleepers = self.sleepers.lock().await;
        sleepers.resumed(self.resumed.load(Ordering::Acquire));
        self.hear_wakes(&mut sleepers).await?;
        let to_awake = sleepers.leave_out(pushes);
        let report = self.push(&to_awake).await?;
        sleepers.learn(&report.asleep);
        drop(sleepers);
        let mut outcome = self.settle(&to_awake, report).await?;
        outcome.skipped += (pushes.id_count() - to_awake.id_count()) as u64;
        Ok(outcome)
    }

    /// How many seconds a list lives that nobody reads.
    pub(super) fn ttl(&self) -> String {
        self.settings.idle_max.as_secs().to_string()
    }

    /// Does what a push leaves to do: writes what nobody knows to be written, and
    /// trims.
    async fn settle(
        &self,
        pushes: &Pushes<UserId>,
        report: PushReport,
    ) -> Result<PushOutcome, StoreError> {
        let mut outcome = report.outcome;
        if !report.unknown.is_empty() {
            outcome += self.push_again(&pushes.only(&report.unknown)).await?;
        }
        if !report.over_full.is_empty() {
            self.trim(&report.over_full).await?;
        }
        Ok(outcome)
    }

    async fn push_again(&self, pushes: &Pushes<UserId>) -> Result<PushOutcome, StoreError> {
        let calls = pushes.iter().map(|(reader, ids)| self.merge(reader, None, ids)).collect();
        let replies = self.write(calls).await?;
        let mut outcome = PushOutcome::default();
        for ((_, ids), reply) in pushes.iter().zip(replies) {
            if reply < 0 {
                outcome.skipped += ids.len() as u64;
            } else {
                outcome.deliveries += ids.len() as u64;
                outcome.pushes += 1;
            }
        }
        Ok(outcome)
    }

    /// Puts ids where they belong in a live list.
    fn merge(&self, reader: UserId, floor: Option<PostId>, ids: &[PostId]) -> Call {
        let floor = floor_bytes(floor);
        let ids = id_bytes(ids);
        let kept = self.limits.kept.to_string();
        let version = version();
        let arguments = with_ids([&floor, kept.as_bytes(), &version], &ids);
        scripts::MERGE.call(&keys::home(reader), &arguments)
    }

    /// Cuts a page out of all the ids above the floor, newest first; none if there are
    /// too few of them.
    async fn cut(
        &self,
        read: &Read,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Option<HomePage>, StoreError> {
        let (ids, floor, marks) = (&read.list.ids, read.list.floor, &read.deleted_marks);
        let cap = self.limits.cap;
        if floor > PostId(0) && ids.len() < cap {
            return Ok(None);
        }
        let complete = floor == PostId(0) && ids.len() <= cap;
        let (shown, spare) = ids.split_at(ids.len().min(cap));
        let mut oldest = shown.last().copied();
        let start = before.map_or(0, |before| shown.partition_point(|id| *id >= before));
        let mut page = Vec::new();
        let mut more = false;
        // The deleted are left out; looked for in pieces, since they are few.
        for piece in shown[start..].chunks(piece_len(count_max)) {
            let kept = self.not_deleted(piece, marks).await?;
            let room = count_max - page.len();
            more = kept.len() > room;
            page.extend(kept.into_iter().take(room));
            if more {
                break;
            }
        }
        if !more && !complete {
            // This is where CAP posts end, and those that are deleted make room: those of
            // this page, and those above it.
            let above = start - self.not_deleted(&shown[..start], marks).await?.len();
            let hidden = above + (shown.len() - start - page.len());
            let mut others = Vec::new();
            if hidden > 0 {
                others = self.not_deleted(spare, marks).await?;
            }
            if others.len() < hidden && floor > PostId(0) {
                return Ok(None);
            }
            others.truncate(hidden);
            oldest = others.last().copied().or(oldest);
            others.retain(|id| before.is_none_or(|before| *id < before));
            let room = count_max - page.len();
            more = others.len() > room;
            page.extend(others.into_iter().take(room));
        }
        let floor = match oldest {
            Some(oldest) if !complete => Floor::Cap(oldest),
            _ => Floor::Beginning,
        };
        Ok(Some(HomePage { ids: page, more, floor, hides: Arc::default() }))
    }

    /// Those of `ids` that are not deleted; asks for those that were not looked for.
    async fn not_deleted(
        &self,
        ids: &[PostId],
        marks: &DeletedMarks,
    ) -> Result<Vec<PostId>, StoreError> {
        let is_unknown = |id: &PostId| marks.is_deleted(*id).is_none();
        let unknown: Vec<PostId> = ids.iter().copied().filter(is_unknown).collect();
        let mut others = DeletedMarks::default();
        if !unknown.is_empty() {
            let reply = self.control.one(DeletedMarks::ask(&unknown)).await?;
            others = DeletedMarks::read(&unknown, reply);
        }
        let is_shown = |id: &PostId| {
            let deleted = marks.is_deleted(*id).or_else(|| others.is_deleted(*id));
            deleted != Some(true)
        };
        Ok(ids.iter().copied().filter(is_shown).collect())
    }
}

/// How many ids are looked for among the deleted at once, for a page of so many.
fn piece_len(count_max: usize) -> usize {
    count_max.saturating_add(1).max(16)
}

/// What a list's marker says after a change of what it had: nothing that any said before.
pub(super) fn version() -> [u8; 8] {
    rand::random::<u64>().to_be_bytes()
}

/// A floor as the scripts take it; no floor is below every id.
fn floor_bytes(floor: Option<PostId>) -> [u8; 8] {
    floor.map_or(0, |floor| floor.0).to_be_bytes()
}

/// Takes ids out of a live list, and whatever may be lost at or below a floor.
fn take(reader: UserId, floor: Option<PostId>, ids: &[PostId]) -> Call {
    let floor = floor_bytes(floor);
    let ids = id_bytes(ids);
    let version = version();
    let arguments = with_ids([&floor, TAKEN_MAX, &version], &ids);
    scripts::TAKE.call(&keys::home(reader), &arguments)
}
