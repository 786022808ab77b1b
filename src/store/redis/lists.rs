//! Home lists as they were read last, in memory as long as there is room.
//!
//! ```text
//!  page ──► known? ──► what stands behind its end, and the marker ──► the same version ──► page
//!             └─ no ──► all of it ──► page, known from then on  ◄── another version
//! ```
//!
//! A list grows at its end. Whatever else happens to it, that it is written anew or has ids
//! taken out, leaves another version in its marker. So a list of 800 ids is read by what
//! has come since, and is what it would be if all of it were read. Only where a node has lost
//! the end of a list may another end have grown since; then all that is known is of another
//! incarnation of Redis, and is forgotten. Whom the reader hides, and which of the ids of the page
//! are deleted, comes in the same round trip.

use std::sync::{Arc, atomic::Ordering};

use quick_cache::{Weighter, sync::Cache};
use redis::Value;
use tokio::time::Instant;

use super::{
    Inner,
    control::{Call, bytes, elements},
    damaged,
    hides::{hides_call, hides_of},
    keys,
    ledger::{id_bytes, post_id, with_ids},
};
use crate::{
    domain::{PostId, UserId},
    store::{Hides, StoreError},
};

/// The marker of a live list: its kind, floor, ticket and version.
const MARKER_BYTES: usize = 25;
/// What a list takes beside its ids, about.
const LIST_BYTES: u64 = 256;
/// A list's life is made longer once so much of it is over.
const LIFE_PARTS: u32 = 64;

pub(super) type Lists = Cache<UserId, Known, ByBytes>;

/// Holds so many bytes at the most; past it, the least used go.
pub(super) fn lists(bytes_max: u64) -> Lists {
    Cache::with_weighter((bytes_max / LIST_BYTES / 8).max(1) as usize, bytes_max, ByBytes)
}

#[derive(Clone)]
pub(super) struct ByBytes;

impl Weighter<UserId, Known> for ByBytes {
    fn weight(&self, _: &UserId, known: &Known) -> u64 {
        LIST_BYTES + 8 * known.list.ids.len() as u64
    }
}

/// A list that is known.
#[derive(Clone, Debug)]
pub(super) struct Known {
    list: Arc<List>,
    /// When its life was made longer.
    renewed_at: Instant,
    /// Which incarnation of Redis it was read from, counted in this process.
    incarnation: u64,
}

/// What a read found.
pub(super) struct Read {
    pub(super) list: Arc<List>,
    renewed_at: Instant,
    pub(super) hides: Hides,
    pub(super) deleted_marks: DeletedMarks,
}

/// The part of a list that a page is cut out of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// It is older than this.
    pub(super) before: Option<PostId>,
    /// It has so many ids, unless it ends before.
    pub(super) len: usize,
}

/// Which of some ids are deleted; newest first.
#[derive(Debug, Default)]
pub(super) struct DeletedMarks(Vec<(PostId, bool)>);

/// A live list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List {
    marker: Vec<u8>,
    /// Above it the list is complete.
    pub(super) floor: PostId,
    /// The ids above the floor, newest first.
    pub(super) ids: Vec<PostId>,
    /// How many entries it has, the marker among them, and the last of them.
    len: usize,
    last: Vec<u8>,
}

impl Inner {
    /// A reader's list, and what else its page needs; none if there is no list that is live.
    /// Where the list is known, `part` is what is looked for among the deleted.
    pub(super) async fn list(
        &self,
        reader: UserId,
        part: Part,
    ) -> Result<Option<Read>, StoreError> {
        let incarnation = self.incarnations.load(Ordering::Acquire);
        let known = self.lists.get(&reader).filter(|known| known.incarnation == incarnation);
        let mut read = None;
        if let Some(known) = &known {
            read = self.what_has_come(reader, known, part).await?;
        }
        if read.is_none() {
            read = self.whole_list(reader).await?;
        }
        let Some(read) = read else {
            self.lists.remove(&reader);
            return Ok(None);
        };
        let is_as_known = |known: Known| {
            Arc::ptr_eq(&known.list, &read.list) && known.renewed_at == read.renewed_at
        };
        if !known.is_some_and(is_as_known) {
            let (list, renewed_at) = (Arc::clone(&read.list), read.renewed_at);
            self.lists.insert(reader, Known { list, renewed_at, incarnation });
        }
        Ok(Some(read))
    }

    /// A known list with what has come since; none if more has happened to it.
    async fn what_has_come(
        &self,
        reader: UserId,
        Known { list, renewed_at, .. }: &Known,
        part: Part,
    ) -> Result<Option<Read>, StoreError> {
        let (key, last) = (&keys::home(reader), (list.len - 1).to_string());
        let part = part.of(&list.ids);
        let mut calls = vec![
            hides_call(reader),
            // In a Cluster another node has the deleted, and may answer first or last. Either
            // does: what was deleted before this read began stays told for a while
            // (`forget_deleted`).
            DeletedMarks::ask(part),
            Call::of("LRANGE", &[key, last.as_bytes(), b"-1"]),
            // Behind what it vouches for.
            Call::of("LINDEX", &[key, b"0"]),
        ];
        let renews = renewed_at.elapsed() > self.settings.idle_max / LIFE_PARTS;
        if renews {
            calls.push(Call::of("EXPIRE", &[key, self.ttl().as_bytes()]));
        }
        let mut replies = self.control.run(calls).await?.into_iter();
        let hides = hides_of(replies.next().unwrap_or(Value::Nil))?;
        let deleted_marks = DeletedMarks::read(part, replies.next().unwrap_or(Value::Nil));
        let (end, marker) = (replies.next().unwrap_or(Value::Nil), replies.next().and_then(bytes));
        if marker.as_ref() != Some(&list.marker) {
            return Ok(None);
        }
        let renewed_at = if renews { Instant::now() } else { *renewed_at };
        let list = List::grown(list, &entries(end))?;
        Ok(list.map(|list| Read { list, renewed_at, hides, deleted_marks }))
    }

    /// A list, by somebody who is not its reader: its life is not made longer, and it is not
    /// remembered.
    pub(super) async fn look_at_list(&self, reader: UserId) -> Result<Option<Read>, StoreError> {
        let call = Call::of("LRANGE", &[&keys::home(reader), b"0", b"-1"]);
        let list = List::of(&entries(self.control.one(call).await?))?;
        Ok(list.map(|list| Read {
            list: Arc::new(list),
            renewed_at: Instant::now(),
            hides: Hides::default(),
            deleted_marks: DeletedMarks::default(),
        }))
    }

    async fn whole_list(&self, reader: UserId) -> Result<Option<Read>, StoreError> {
        let key = &keys::home(reader);
        let calls = vec![
            hides_call(reader),
            Call::of("LRANGE", &[key, b"0", b"-1"]),
            Call::of("EXPIRE", &[key, self.ttl().as_bytes()]),
        ];
        let mut replies = self.control.run(calls).await?.into_iter();
        let hides = hides_of(replies.next().unwrap_or(Value::Nil))?;
        let list = List::of(&entries(replies.next().unwrap_or(Value::Nil)))?;
        let renewed_at = Instant::now();
        let deleted_marks = DeletedMarks::default();
        Ok(list.map(|list| Read { list: Arc::new(list), renewed_at, hides, deleted_marks }))
    }
}

impl Part {
    fn of(self, ids: &[PostId]) -> &[PostId] {
        let start = self.before.map_or(0, |before| ids.partition_point(|id| *id >= before));
        &ids[start..ids.len().min(start + self.len)]
    }
}

impl DeletedMarks {
    /// Looks for ids among the deleted. One is looked for though there are none, so that the
    /// reply has its place.
    pub(super) fn ask(ids: &[PostId]) -> Call {
        let names = id_bytes(if ids.is_empty() { &[PostId(0)] } else { ids });
        Call::of("HMGET", &with_ids([keys::DELETED], &names))
    }

    /// What the reply says of them.
    pub(super) fn read(ids: &[PostId], reply: Value) -> Self {
        let deleted = elements(reply).into_iter().map(|value| value != Value::Nil);
        Self(ids.iter().copied().zip(deleted).collect())
    }

    /// Whether an id is deleted, if it was looked for.
    pub(super) fn is_deleted(&self, id: PostId) -> Option<bool> {
        let place = self.0.binary_search_by(|(looked, _)| id.cmp(looked));
        place.ok().map(|place| self.0[place].1)
    }
}

fn entries(list: Value) -> Vec<Vec<u8>> {
    elements(list).into_iter().filter_map(bytes).collect()
}

impl List {
    /// A list of these entries; none if they are of one that is not live.
    fn of(entries: &[Vec<u8>]) -> Result<Option<Self>, StoreError> {
        let Some((marker, others)) = entries.split_first() else { return Ok(None) };
        if marker.first() == Some(&b'R') {
            return Ok(None);
        }
        if marker.len() != MARKER_BYTES {
            return Err(damaged("the marker of a home timeline"));
        }
        let mut list = Self {
            marker: marker.clone(),
            floor: post_id(&marker[1..9]).unwrap_or(PostId(0)),
            ids: Vec::with_capacity(others.len()),
            len: 1,
            last: marker.clone(),
        };
        list.add(others)?;
        Ok(Some(list))
    }

    /// The list with what stands at its end now, from what was its last entry on; none if
    /// that is another one.
    fn grown(this: &Arc<Self>, end: &[Vec<u8>]) -> Result<Option<Arc<Self>>, StoreError> {
        match end.split_first() {
            Some((last, [])) if *last == this.last => Ok(Some(Arc::clone(this))),
            Some((last, others)) if *last == this.last => {
                let mut list = Self::clone(this);
                list.add(others)?;
                Ok(Some(Arc::new(list)))
            }
            _ => Ok(None),
        }
    }

    fn add(&mut self, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        for entry in entries {
            let id = post_id(entry).ok_or_else(|| damaged("an entry of a home timeline"))?;
            if id > self.floor {
                self.ids.push(id);
            }
        }
        self.len += entries.len();
        if let Some(last) = entries.last() {
            self.last.clone_from(last);
        }
        // It finds what is sorted already.
        self.ids.sort_by(|one, other| other.cmp(one));
        self.ids.dedup();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker(floor: u64) -> Vec<u8> {
        [b"L".as_slice(), &floor.to_be_bytes(), &[7; 16]].concat()
    }

    fn list_of(floor: u64, ids: &[u64]) -> Vec<Vec<u8>> {
        let ids = ids.iter().map(|id| id.to_be_bytes().to_vec());
        [marker(floor)].into_iter().chain(ids).collect()
    }

    fn live(entries: &[Vec<u8>]) -> Arc<List> {
        Arc::new(List::of(entries).unwrap().expect("it is live"))
    }

    proptest! {
        #[test]
        fn a_list_that_has_grown_is_as_if_it_were_read_whole(
            ids in proptest::collection::vec(1..60_u64, 0..40),
            cuts in proptest::collection::vec(0..40_usize, 0..4),
            floor in 0..20_u64,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(ids.len())).collect();
            cuts.push(ids.len());
            cuts.sort_unstable();
            let mut list = live(&list_of(floor, &ids[..cuts[0]]));
            for cut in cuts {
                let end = list_of(floor, &ids[..cut]).split_off(list.len - 1);
                list = List::grown(&list, &end).unwrap().expect("it has only grown");
            }
            prop_assert_eq!(&list, &live(&list_of(floor, &ids)));
            prop_assert!(list.ids.is_sorted_by(|one, other| one > other));
        }
    }

    #[test]
    fn one_that_ends_otherwise_is_read_whole() {
        let list = live(&list_of(0, &[1, 2, 3]));
        for ids in [&[1, 2][..], &[1, 2, 5], &[4, 5, 6, 7]] {
            let end = list_of(0, ids).split_off(list.len.min(ids.len() + 1) - 1);
            assert_eq!(List::grown(&list, &end).unwrap(), None, "{ids:?}");
        }
        assert_eq!(List::grown(&list, &[]).unwrap(), None);
    }

    #[test]
    fn what_was_looked_for_is_told_apart() {
        let ids: Vec<PostId> = [9, 7, 5, 3].map(PostId).to_vec();
        let part = |before: Option<u64>, len| Part { before: before.map(PostId), len };
        assert_eq!(part(None, 2).of(&ids), &ids[..2]);
        assert_eq!(part(Some(7), 9).of(&ids), &ids[2..]);
        assert_eq!(part(Some(1), 9).of(&ids), []);
        let reply = Value::Array(vec![Value::Nil, Value::BulkString(vec![1]), Value::Nil]);
        let marks = DeletedMarks::read(&ids[..3], reply);
        let told = [9, 8, 7, 5, 3].map(|id| marks.is_deleted(PostId(id)));
        assert_eq!(told, [Some(false), None, Some(true), Some(false), None]);
    }

    #[test]
    fn what_is_no_list_is_none_and_what_is_damaged_is_said_to_be() {
        assert_eq!(List::of(&[]).unwrap(), None);
        assert_eq!(List::of(&[[b"R".as_slice(), &[0; 24]].concat()]).unwrap(), None);
        assert!(List::of(&[b"L".to_vec()]).is_err());
        assert!(List::of(&[marker(0), b"short".to_vec()]).is_err());
    }
}
