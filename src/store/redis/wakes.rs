//! The stream of wakes: every reader who wakes tells the workers so (`sleepers`).

use redis::Value;

use super::{
    Inner,
    control::{Call, bytes, elements},
    damaged, keys,
    sleepers::{NOBODY, Sleepers, Wake},
};
use crate::{domain::UserId, store::StoreError};

/// Wakes that are kept, about: a worker that has not heard for longer forgets whom it
/// knows.
const KEPT_MAX: &[u8] = b"65536";
/// Wakes that are read at once.
const READ_MAX: usize = 4_096;

impl Inner {
    /// Tells the workers that a reader wakes. When this has come back, the ledger may be
    /// read for it.
    ///
    /// A command that is sent twice makes two wakes, which are as good as one.
    pub(super) async fn announce_wake(&self, reader: UserId) -> Result<Wake, StoreError> {
        let who = reader.0.to_be_bytes();
        let arguments: [&[u8]; 7] = [keys::WAKES, b"MAXLEN", b"~", KEPT_MAX, b"*", b"r", &who];
        let reply = self.control.one(Call::of("XADD", &arguments)).await?;
        let id = bytes(reply).ok_or_else(|| damaged("the stream of wakes"))?;
        Ok(Wake { id, reader })
    }

    /// Hears of all who have woken up to now.
    pub(super) async fn hear_wakes(&self, sleepers: &mut Sleepers) -> Result<(), StoreError> {
        while let Some(last) = sleepers.last() {
            let count = READ_MAX.to_string();
            let arguments: [&[u8]; 5] = [keys::WAKES, &last.id, b"+", b"COUNT", count.as_bytes()];
            let reply = self.control.one(Call::of("XRANGE", &arguments)).await?;
            let wakes: Option<Vec<Wake>> = elements(reply).into_iter().map(wake).collect();
            let wakes = wakes.ok_or_else(|| damaged("the stream of wakes"))?;
            if sleepers.hear(&wakes) && wakes.len() < READ_MAX {
                return Ok(());
            }
        }
        sleepers.begin(self.announce_wake(UserId(NOBODY)).await?);
        Ok(())
    }
}

/// An entry of the stream: its id, then a field and its value.
fn wake(entry: Value) -> Option<Wake> {
    let mut parts = elements(entry).into_iter();
    let id = bytes(parts.next()?)?;
    let reader = bytes(elements(parts.next()?).into_iter().nth(1)?)?.try_into().ok()?;
    Some(Wake { id, reader: UserId(u64::from_be_bytes(reader)) })
}
