//! Whom readers hide: a set each, of a letter for the reason and a number.

use redis::Value;

use super::{
    Inner,
    control::{Call, bytes, elements},
    damaged, keys, reply,
};
use crate::{
    domain::UserId,
    store::{HideReason, Hides, StoreError},
};

impl Inner {
    /// Whom a reader hides.
    pub(super) async fn hides(&self, reader: UserId) -> Result<Hides, StoreError> {
        hides_of(self.control.one(hides_call(reader)).await?)
    }
}

/// Asks whom a reader hides.
pub(super) fn hides_call(reader: UserId) -> Call {
    Call::of("SMEMBERS", &[&keys::hides(reader)])
}

/// The same, read.
pub(super) fn hides_of(members: Value) -> Result<Hides, StoreError> {
    let mut hides = Hides::default();
    for member in elements(members).into_iter().filter_map(bytes) {
        let parts = member.split_first().and_then(|(reason, other)| {
            Some((HideReason::of_byte(*reason)?, UserId(reply::decimal(other)?)))
        });
        let (reason, other) = parts.ok_or_else(|| damaged("whom a reader hides"))?;
        hides.set(reason, other, true);
    }
    Ok(hides)
}

/// How it stands among those whom a reader hides.
pub(super) fn hide_member(reason: HideReason, other: UserId) -> Vec<u8> {
    format!("{}{other}", char::from(reason.byte())).into_bytes()
}
