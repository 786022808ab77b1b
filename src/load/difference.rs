//! How a timeline differs from what it should be: pure comparisons.

use std::fmt;

use crate::domain::PostId;

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
        let id = |id: Option<PostId>| id.map_or("the end".to_owned(), |id| id.to_string());
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
        assert_eq!(difference.to_string(), "missing at position 1: expected 8, got the end");
    }
}
