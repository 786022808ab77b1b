//! How a timeline differs from what it should be: pure comparisons.

use std::fmt;

use crate::{
    domain::PostId,
    proto::v1::{Floor, FloorReason},
};

/// A difference between a timeline and the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where the two first differ, from 0, the newest.
    pub position: usize,
    /// What the model has there; `None` where it has ended.
    pub expected: Option<PostId>,
    /// What the server has there; `None` where it has ended.
    pub got: Option<PostId>,
    /// What that means.
    pub kind: DifferenceKind,
}

/// In which way a timeline is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The expected post is nowhere in the timeline.
    Missing,
    /// The post should not be in the timeline.
    Extra,
    /// The expected post is further down.
    OutOfOrder,
    /// The post was there already.
    Duplicate,
}

/// The first difference between two timelines, newest first; `None` if they are
/// equal.
pub fn compare(expected: &[PostId], got: &[PostId]) -> Option<Difference> {
    let common = expected.iter().zip(got).take_while(|(e, g)| e == g).count();
    let (e, g) = (expected.get(common).copied(), got.get(common).copied());
    let kind = match (e, g) {
        (None, None) => return None,
        (_, Some(g)) if got[..common].contains(&g) => DifferenceKind::Duplicate,
        (_, Some(g)) if !expected[common..].contains(&g) => DifferenceKind::Extra,
        (Some(e), _) if got[common..].contains(&e) => DifferenceKind::OutOfOrder,
        _ => DifferenceKind::Missing,
    };
    Some(Difference { position: common, expected: e, got: g, kind })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |id: Option<PostId>| id.map_or("the end".to_owned(), |id| format!("post {id}"));
        let kind = match self.kind {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Extra => "extra",
            DifferenceKind::OutOfOrder => "out of order",
            DifferenceKind::Duplicate => "duplicate",
        };
        let (expected, got) = (id(self.expected), id(self.got));
        write!(f, "{kind} at position {}: expected {expected}, got {got}", self.position)
    }
}

/// What is wrong with the floor of a page that has `above` posts of the timeline above it;
/// `None` if it tells the truth. `home` is the whole timeline, of which `cap` posts are held
/// ready.
pub(super) fn floor_problem(
    home: &[PostId],
    above: usize,
    floor: Option<&Floor>,
    cap: usize,
) -> Option<String> {
    let Some(floor) = floor else { return Some("has no floor".to_owned()) };
    let down_to = floor.complete_down_to_id;
    let oldest_ready = home.get(cap - 1).map_or(0, |id| id.0);
    match floor.reason() {
        FloorReason::Unspecified => Some("has a floor without a reason".to_owned()),
        FloorReason::Beginning if down_to != 0 => {
            Some(format!("is complete to the beginning, but only down to {down_to}"))
        }
        FloorReason::Beginning if above < cap && home.len() > cap => {
            Some(format!("has {} posts, and not all of them are held ready", home.len()))
        }
        FloorReason::Cap if above >= cap => {
            Some(format!("is held ready where {above} posts are above"))
        }
        FloorReason::Cap | FloorReason::Followees if down_to == 0 || down_to != oldest_ready => {
            Some(format!("is held ready down to {down_to}, and should be to {oldest_ready}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<PostId> {
        ids.iter().copied().map(PostId).collect()
    }

    fn kind(expected: &[u64], got: &[u64]) -> Option<(DifferenceKind, usize)> {
        compare(&ids(expected), &ids(got)).map(|difference| (difference.kind, difference.position))
    }

    #[test]
    fn every_kind_of_difference_is_found_and_named() {
        use DifferenceKind::{Duplicate, Extra, Missing, OutOfOrder};
        assert_eq!(kind(&[], &[]), None);
        assert_eq!(kind(&[9, 8, 7], &[9, 8, 7]), None);
        assert_eq!(kind(&[9, 8, 7], &[9, 7]), Some((Missing, 1)));
        assert_eq!(kind(&[9, 8, 7], &[9, 8]), Some((Missing, 2)));
        assert_eq!(kind(&[9], &[]), Some((Missing, 0)));
        assert_eq!(kind(&[9, 7], &[9, 8, 7]), Some((Extra, 1)));
        assert_eq!(kind(&[9, 7], &[9, 7, 5]), Some((Extra, 2)));
        assert_eq!(kind(&[9, 8, 7], &[9, 9, 8, 7]), Some((Duplicate, 1)));
        assert_eq!(kind(&[9, 8, 7], &[9, 8, 7, 8]), Some((Duplicate, 3)));
        assert_eq!(kind(&[9, 8, 7], &[9, 7, 8]), Some((OutOfOrder, 1)));
    }

    #[test]
    fn a_difference_reads_well() {
        let difference = compare(&ids(&[9, 8]), &ids(&[9])).expect("different");
        assert_eq!(difference.to_string(), "missing at position 1: expected post 8, got the end");
    }

    #[test]
    fn a_floor_must_tell_the_truth() {
        let home = ids(&[9, 8, 7, 6]);
        let problem = |above, complete_down_to_id, reason: FloorReason, cap| {
            let floor = Floor { complete_down_to_id, reason: reason.into() };
            floor_problem(&home, above, Some(&floor), cap)
        };
        assert_eq!(problem(0, 0, FloorReason::Beginning, 4), None);
        assert_eq!(problem(0, 8, FloorReason::Cap, 2), None);
        assert_eq!(problem(0, 6, FloorReason::Cap, 4), None);
        assert_eq!(problem(2, 0, FloorReason::Beginning, 2), None);
        assert_eq!(problem(2, 8, FloorReason::Followees, 2), None);
        assert!(problem(0, 0, FloorReason::Beginning, 2).is_some());
        assert!(problem(0, 8, FloorReason::Beginning, 2).is_some());
        assert!(problem(0, 7, FloorReason::Cap, 2).is_some());
        assert!(problem(2, 8, FloorReason::Cap, 2).is_some());
        assert!(problem(0, 0, FloorReason::Cap, 5).is_some());
        assert!(problem(0, 0, FloorReason::Unspecified, 4).is_some());
        assert!(floor_problem(&home, 0, None, 4).is_some());
    }
}
