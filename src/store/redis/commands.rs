//! What a worker writes beside pushes: commands that change nothing when they come
//! again, over the connections that whoever takes over closes.

use super::{Inner, control::Call, resp::Reply, router::Work, slots};
use crate::store::StoreError;

/// How often commands are sent whose outcome nobody knows.
const TRIES_MAX: usize = 3;

impl Inner {
    /// Carries out commands that answer a number or a word; words are 0. The replies
    /// are in the places of the commands. One whose outcome nobody knows is sent again,
    /// and no more as it is sent [at first](Call::at_first).
    ///
    /// # Errors
    /// If some were not carried out, or may not have been.
    pub(super) async fn write(&self, calls: Vec<Call>) -> Result<Vec<i64>, StoreError> {
        let mut replies = vec![0; calls.len()];
        let mut left: Vec<&Call> = calls.iter().map(Call::first).collect();
        let mut places: Vec<usize> = (0..calls.len()).collect();
        for _ in 0..TRIES_MAX {
            let run = self.pusher.router.run(&Calls(&left)).await;
            for (place, reply) in run.done {
                replies[places[place as usize]] = reply;
            }
            if let Some((error, _)) = run.undone {
                return Err(error.into());
            }
            if run.unknown.is_empty() {
                return Ok(replies);
            }
            places = run.unknown.iter().map(|place| places[*place]).collect();
            left = places.iter().map(|place| &calls[*place]).collect();
        }
        Err(StoreError::Redis {
            reason: format!(
                "the connections to Redis broke {TRIES_MAX} times in a row while {} commands were \
                 under way; is it overloaded or cut off?",
                left.len()
            ),
            is_final: false,
        })
    }
}

struct Calls<'a>(&'a [&'a Call]);

impl Work for Calls<'_> {
    type Done = Vec<(u32, i64)>;

    fn count(&self) -> usize {
        self.0.len()
    }

    fn slot(&self, place: u32) -> u16 {
        slots::key_slot(self.0[place as usize].key())
    }

    fn pack(&self, place: u32, out: &mut Vec<u8>) {
        self.0[place as usize].pack(out);
    }

    fn take(&self, place: u32, reply: Reply<'_>, done: &mut Self::Done) -> bool {
        match reply {
            Reply::Integer(number) => done.push((place, number)),
            Reply::Simple(_) => {}
            // No command that is sent this way answers anything else.
            _ => return false,
        }
        true
    }

    fn join(done: &mut Self::Done, mut other: Self::Done) {
        done.append(&mut other);
    }
}
