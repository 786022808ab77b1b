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
//! makes a string of each. And nothing is lost by the time between: a list only grows at its
//! end, or is written anew, sorted, or has ids taken out, which moves the others.

use super::{
    Inner,
    control::{Call, bytes, elements},
    homes::version,
    keys,
    ledger::post_id,
    push::OverFull,
    scripts,
};
use crate::{
    domain::{PostId, UserId},
    store::StoreError,
};

/// Lists that are trimmed together: what is dropped of them is in memory for a moment.
const TRIMMED_TOGETHER_MAX: usize = 1_000;

impl Inner {
    /// Drops what was pushed first into lists, as far as they have not changed meanwhile.
    pub(super) async fn trim(&self, lists: &[OverFull]) -> Result<(), StoreError> {
        for lists in lists.chunks(TRIMMED_TOGETHER_MAX) {
            let reads = lists.iter().map(|list| {
                let drop = self.dropped(list).to_string();
                Call::of("LRANGE", &[&keys::home(list.reader), b"1", drop.as_bytes()])
            });
            let read = self.control.run(reads.collect()).await?;
            let mut trims = Vec::with_capacity(lists.len());
            for (list, read) in lists.iter().zip(read) {
                let ids = elements(read).into_iter().filter_map(bytes).map(|id| post_id(&id));
                // One that somebody has damaged is left alone: its reader is told.
                let Some(ids) = ids.collect::<Option<Vec<PostId>>>() else { continue };
                trims.extend(trim(list.reader, self.dropped(list), &ids, version()));
            }
            self.write(trims).await?;
        }
        Ok(())
    }

    /// How many of a list's ids are too many.
    fn dropped(&self, list: &OverFull) -> usize {
        // The marker is an entry too.
        (list.length as usize).saturating_sub(1 + self.limits.kept)
    }
}

/// Drops the first `count` ids of a list, which are `ids`; nothing where those are fewer.
fn trim(reader: UserId, count: usize, ids: &[PostId], version: [u8; 8]) -> Option<Call> {
    let (last, newest) = (ids.last()?, ids.iter().max()?);
    let (last, newest) = (last.0.to_be_bytes(), newest.0.to_be_bytes());
    let place = count.to_string();
    (ids.len() == count).then(|| {
        let arguments: [&[u8]; 4] = [place.as_bytes(), &last, &newest, &version];
        scripts::TRIM.call(&keys::home(reader), &arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_what_is_dropped_is_the_floor_wherever_it_stands() {
        let ids = [3, 9, 4, 5].map(PostId);
        let mut packed = Vec::new();
        trim(UserId(7), 4, &ids, [1; 8]).expect("all are there").pack(&mut packed);
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
    fn a_list_that_has_lost_what_it_had_is_left_alone() {
        assert!(trim(UserId(7), 4, &[3, 9, 4].map(PostId), [1; 8]).is_none());
        assert!(trim(UserId(7), 0, &[], [1; 8]).is_none());
    }
}
