//! What the floor of a page may claim.

use super::model::oldest_ready;
use crate::{
    domain::PostId,
    proto::v1::{Floor, FloorReason},
};

/// What a home timeline allows its floors.
#[derive(Clone, Copy)]
pub(super) struct FloorRules<'a> {
    /// The whole timeline, with what its reader does not see.
    pub(super) home: &'a [PostId],
    /// How many posts of it are held ready.
    pub(super) cap: usize,
    /// Whether an author of it was ever pulled: what is pulled takes no room in what is held
    /// ready, which then goes further down, by as much as only the server knows.
    pub(super) was_pulled: bool,
    /// Whether the reader does not see all of it: then only the server knows where a page
    /// begins and ends.
    pub(super) has_hidden: bool,
}

impl FloorRules<'_> {
    /// What is wrong with the floor of a page that is below the post `before`, or that is the
    /// first, and that may be the last; `None` if it tells the truth.
    pub(super) fn problem(
        &self,
        before: Option<PostId>,
        is_last: bool,
        floor: Option<&Floor>,
    ) -> Option<String> {
        let Some(floor) = floor else { return Some("has no floor".to_owned()) };
        let down_to = floor.complete_down_to_id;
        let oldest_ready = oldest_ready(self.home, self.cap).map_or(0, |id| id.0);
        let is_below = before.is_some_and(|before| before.0 <= oldest_ready);
        let may_be_below = is_below || self.has_hidden && (before.is_some() || is_last);
        match floor.reason() {
            FloorReason::Unspecified => Some("has a floor without a reason".to_owned()),
            FloorReason::Beginning if down_to != 0 => {
                Some(format!("is complete to the beginning, but only down to {down_to}"))
            }
            FloorReason::Cap | FloorReason::Followees if down_to == 0 || down_to > oldest_ready => {
                Some(format!("is held ready down to {down_to}, and should be to {oldest_ready}"))
            }
            _ if self.was_pulled => None,
            FloorReason::Beginning if !may_be_below && self.home.len() > self.cap => {
                Some(format!("has {} posts, and not all of them are held ready", self.home.len()))
            }
            FloorReason::Cap if is_below => {
                Some(format!("is held ready where it is below {oldest_ready}"))
            }
            FloorReason::Cap | FloorReason::Followees if down_to != oldest_ready => {
                Some(format!("is held ready down to {down_to}, and should be to {oldest_ready}"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: [PostId; 4] = [PostId(9), PostId(8), PostId(7), PostId(6)];

    fn rules(cap: usize) -> FloorRules<'static> {
        FloorRules { home: &HOME, cap, was_pulled: false, has_hidden: false }
    }

    /// Of a page that is not the last.
    fn problem(
        rules: FloorRules<'_>,
        before: u64,
        complete_down_to_id: u64,
        reason: FloorReason,
    ) -> Option<String> {
        let floor = Floor { complete_down_to_id, reason: reason.into() };
        let before = (before != 0).then_some(PostId(before));
        rules.problem(before, false, Some(&floor))
    }

    #[test]
    fn a_floor_must_tell_the_truth() {
        let problem = |before, down_to, reason, cap| problem(rules(cap), before, down_to, reason);
        assert_eq!(problem(0, 0, FloorReason::Beginning, 4), None);
        assert_eq!(problem(0, 8, FloorReason::Cap, 2), None);
        assert_eq!(problem(0, 6, FloorReason::Cap, 4), None);
        assert_eq!(problem(8, 0, FloorReason::Beginning, 2), None);
        assert_eq!(problem(8, 8, FloorReason::Followees, 2), None);
        assert!(problem(0, 0, FloorReason::Beginning, 2).is_some());
        assert!(problem(0, 8, FloorReason::Beginning, 2).is_some());
        assert!(problem(0, 7, FloorReason::Cap, 2).is_some());
        assert!(problem(0, 9, FloorReason::Cap, 2).is_some());
        assert!(problem(8, 8, FloorReason::Cap, 2).is_some());
        assert!(problem(0, 0, FloorReason::Cap, 5).is_some());
        assert!(problem(0, 0, FloorReason::Unspecified, 4).is_some());
        assert!(rules(4).problem(None, true, None).is_some());
    }

    #[test]
    fn more_may_be_held_ready_where_some_is_pulled_and_never_less() {
        let rules = FloorRules { was_pulled: true, ..rules(2) };
        let problem = |down_to, reason| problem(rules, 0, down_to, reason);
        assert_eq!(problem(8, FloorReason::Cap), None);
        assert_eq!(problem(7, FloorReason::Cap), None);
        assert_eq!(problem(0, FloorReason::Beginning), None);
        assert!(problem(9, FloorReason::Cap).is_some());
        assert!(problem(8, FloorReason::Beginning).is_some());
    }

    #[test]
    fn a_page_may_begin_anywhere_below_where_some_is_hidden() {
        let rules = FloorRules { has_hidden: true, ..rules(2) };
        let problem = |before, reason| problem(rules, before, 0, reason);
        assert_eq!(problem(9, FloorReason::Beginning), None);
        assert!(problem(0, FloorReason::Beginning).is_some());
        let beginning = Floor { reason: FloorReason::Beginning.into(), complete_down_to_id: 0 };
        assert_eq!(rules.problem(None, true, Some(&beginning)), None);
    }
}
