//! Changes of an account's followers as bytes.
//!
//! ```text
//! kind (1 byte) │ ascending ids
//! ```
//!
//! Folding the changes of an account in their order gives its followers.

use crate::{domain::UserId, store::ascending_ids};

/// Followers to a part of a snapshot.
const SNAPSHOT_PART_LEN: usize = 65_536;

/// What a change does to the followers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// Adds these.
    Add = 1,
    /// Takes these away.
    Remove = 2,
    /// Forgets those before, and has these.
    Replace = 3,
}

/// A change read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FollowChange {
    pub(super) kind: ChangeKind,
    /// Ascending.
    pub(super) followers: Vec<UserId>,
}

/// Writes a change; the followers may come in any order, and repeated.
pub(super) fn encode(kind: ChangeKind, mut followers: Vec<UserId>) -> Vec<u8> {
    followers.sort_unstable();
    followers.dedup();
    let mut bytes = vec![kind as u8];
    ascending_ids::encode(0, followers.iter().map(|follower| follower.0), &mut bytes);
    bytes
}

/// Writes all followers of an account as one change in several parts.
pub(super) fn encode_snapshot(mut followers: Vec<UserId>) -> Vec<Vec<u8>> {
    followers.sort_unstable();
    let mut parts: Vec<Vec<u8>> = followers
        .chunks(SNAPSHOT_PART_LEN)
        .map(|part| encode(ChangeKind::Add, part.to_vec()))
        .collect();
    match parts.first_mut() {
        Some(first) => first[0] = ChangeKind::Replace as u8,
        None => parts.push(encode(ChangeKind::Replace, Vec::new())),
    }
    parts
}

/// Reads a change; `None` if these bytes are not one.
pub(super) fn decode(bytes: &[u8]) -> Option<FollowChange> {
    let (kind, ids) = bytes.split_first()?;
    let kind = match kind {
        1 => ChangeKind::Add,
        2 => ChangeKind::Remove,
        3 => ChangeKind::Replace,
        _ => return None,
    };
    let ids = ascending_ids::decode(0, ids)?;
    Some(FollowChange { kind, followers: ids.into_iter().map(UserId).collect() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ids in proptest::collection::vec(any::<u64>(), 0..50)) {
            let sorted: BTreeSet<UserId> = ids.iter().copied().map(UserId).collect();
            let bytes = encode(ChangeKind::Remove, ids.into_iter().map(UserId).collect());
            let change = decode(&bytes).unwrap();
            prop_assert_eq!(change.kind, ChangeKind::Remove);
            prop_assert_eq!(change.followers, sorted.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_snapshot_replaces_and_then_adds() {
        let followers: Vec<UserId> = (1..=150_000).map(UserId).collect();
        let parts = encode_snapshot(followers.clone());
        let changes: Vec<FollowChange> = parts.iter().map(|part| decode(part).unwrap()).collect();
        let kinds: Vec<ChangeKind> = changes.iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [ChangeKind::Replace, ChangeKind::Add, ChangeKind::Add]);
        let joined: Vec<UserId> = changes.into_iter().flat_map(|change| change.followers).collect();
        assert_eq!(joined, followers);
    }

    #[test]
    fn what_has_no_kind_is_no_change() {
        assert_eq!((decode(&[]), decode(&[0, 0]), decode(&[4, 0])), (None, None, None));
        assert!(decode(&[3, 0]).is_some());
    }

    #[test]
    fn an_empty_snapshot_forgets() {
        let parts = encode_snapshot(Vec::new());
        assert_eq!(decode(&parts[0]).unwrap().kind, ChangeKind::Replace);
    }
}
