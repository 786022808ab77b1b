//! Trims home lists that have grown too long.
//!
//! ```text
//!  too long ──► what would be dropped: LRANGE ──► the newest of it, the last of it
//!                                                   │
//!       dropped, the newest as the floor ◄── TRIM ◄─┘ if the last still stands there
//! ```
//!
//! Every delivery is dropped some day, so it counts what that costs. To find the newest id
//! in a script takes five times as long as to send all of them here and look there: Lua
//! makes a string of each. So they are looked at as they come, and none is kept. And nothing
//! is lost by the time between: a list only grows at its end, or is written anew, sorted, or
//! has ids taken out, which moves the others.

use super::{
    Inner,
    control::Call,
    homes::version,
    keys,
    ledger::post_id,
    push::OverFull,
    resp::{self, HomeKey, Reply},
    router::Work,
    scripts,
    slots::home_slot,
};
use crate::{
    domain::{PostId, UserId},
    store::StoreError,
};

/// Lists that are trimmed together: the commands for them are in memory, half a kilobyte each.
const TRIMMED_TOGETHER_MAX: usize = 10_000;

impl Inner {
    /// Drops what was pushed first into lists, as far as they have not changed meanwhile.
    pub(super) async fn trim(&self, lists: &[OverFull]) -> Result<(), StoreError> {
        for lists in lists.chunks(TRIMMED_TOGETHER_MAX) {
            let reads = Reads { lists, kept: self.limits.kept };
            // One that nobody knows the answer to is told as too long again by the next push.
            let run = self.pusher.router.run(&reads).await;
            if let Some((error, _)) = run.undone {
                return Err(error.into());
            }
            let trims = run.done.iter().filter_map(|(place, dropped)| {
                let list = &lists[*place as usize];
                trim(list.reader, reads.drop_count(list), dropped, version())
            });
            self.write(trims.collect()).await?;
        }
        Ok(())
    }
}

/// Reads of what would be dropped.
struct Reads<'a> {
    lists: &'a [OverFull],
    kept: usize,
}

impl Reads<'_> {
    /// How many of a list's ids are too many.
    fn drop_count(&self, list: &OverFull) -> usize {
        // The marker is an entry too.
        (list.length as usize).saturating_sub(1 + self.kept)
    }
}

/// What would be dropped of a list, as far as it was read.
#[derive(Debug, Default)]
struct Dropped {
    count: usize,
    last: Option<PostId>,
    newest: Option<PostId>,
}

impl Work for Reads<'_> {
    type Done = Vec<(u32, Dropped)>;

    fn count(&self) -> usize {
        self.lists.len()
    }

    fn slot(&self, place: u32) -> u16 {
        home_slot(&HomeKey::of(self.lists[place as usize].reader))
    }

    fn pack(&self, place: u32, out: &mut Vec<u8>) {
        let list = &self.lists[place as usize];
        let last = self.drop_count(list).to_string();
        resp::pack_command(out, &[b"LRANGE", &keys::home(list.reader), b"1", last.as_bytes()]);
    }

    fn take(&self, place: u32, reply: Reply<'_>, done: &mut Self::Done) -> bool {
        done.push((place, Dropped::default()));
        matches!(reply, Reply::Array(_))
    }

    fn take_element(&self, _: u32, element: Reply<'_>, done: &mut Self::Done) {
        let Some((_, dropped)) = done.last_mut() else { return };
        // Of a list that somebody has damaged too few are noted, and it is left alone: its
        // reader is told.
        if let Reply::Bulk(Some(id)) = element
            && let Some(id) = post_id(id)
        {
            dropped.note(id);
        }
    }

    fn join(done: &mut Self::Done, mut other: Self::Done) {
        done.append(&mut other);
    }
}

impl Dropped {
    fn note(&mut self, id: PostId) {
        self.count += 1;
        self.last = Some(id);
        self.newest = self.newest.max(Some(id));
    }
}

/// Drops the first `count` entries of a list; nothing where fewer ids than that were read.
fn trim(reader: UserId, count: usize, dropped: &Dropped, version: [u8; 8]) -> Option<Call> {
    let (last, newest) = (dropped.last?, dropped.newest?);
    let (last, newest) = (last.0.to_be_bytes(), newest.0.to_be_bytes());
    let place = count.to_string();
    (dropped.count == count).then(|| {
        let arguments: [&[u8]; 4] = [place.as_bytes(), &last, &newest, &version];
        scripts::TRIM.call(&keys::home(reader), &arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the replies come to for a list of 7 with so many ids too many.
    fn read(too_many: u64, entries: &[&[u8]]) -> (usize, Dropped) {
        let lists = [OverFull { reader: UserId(7), length: 1 + 10 + too_many }];
        let reads = Reads { lists: &lists, kept: 10 };
        let mut done = Vec::new();
        assert!(reads.take(0, Reply::Array(Some(entries.len())), &mut done));
        entries.iter().for_each(|entry| reads.take_element(0, Reply::Bulk(Some(entry)), &mut done));
        let (_, dropped) = done.pop().expect("one list");
        (reads.drop_count(&lists[0]), dropped)
    }

    fn ids(ids: &[u64]) -> Vec<[u8; 8]> {
        ids.iter().map(|id| id.to_be_bytes()).collect()
    }

    fn trim_of(too_many: u64, entries: &[&[u8]]) -> Option<Call> {
        let (count, dropped) = read(too_many, entries);
        trim(UserId(7), count, &dropped, [1; 8])
    }

    #[test]
    fn the_newest_of_what_is_dropped_is_the_floor_wherever_it_stands() {
        let ids = ids(&[3, 9, 4, 5]);
        let entries: Vec<&[u8]> = ids.iter().map(|id| id.as_slice()).collect();
        let mut packed = Vec::new();
        trim_of(4, &entries).expect("all are there").pack(&mut packed);
        let arguments = [&b"4"[..], &5_u64.to_be_bytes(), &9_u64.to_be_bytes(), &[1; 8]];
        let mut expected = Vec::new();
        for argument in arguments {
            expected.extend(format!("${}\r\n", argument.len()).into_bytes());
            expected.extend(argument);
            expected.extend(b"\r\n");
        }
        assert!(packed.ends_with(&expected), "{packed:?}");
    }

    #[test]
    fn a_list_that_has_lost_what_it_had_or_is_damaged_is_left_alone() {
        let ids = ids(&[3, 9, 4]);
        let entries: Vec<&[u8]> = ids.iter().map(|id| id.as_slice()).collect();
        assert!(trim_of(3, &entries).is_some());
        assert!(trim_of(4, &entries).is_none());
        assert!(trim_of(0, &[]).is_none());
        assert!(trim_of(3, &[entries[0], b"short", entries[2]]).is_none());
        assert!(trim_of(4, &[entries[0], b"short", entries[1], entries[2]]).is_none());
    }
}
