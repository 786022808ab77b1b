//! How many changes of each kind come between the posts.

use std::sync::Arc;

use super::{
    super::{settings::Settings, workload::Workload},
    Change, Changes,
    follows::ChurnPlan,
    hides::HidePlan,
    messages::MessagePlan,
    pulls::PullPlan,
};

/// Decides what changes, from the settings alone.
pub(crate) struct Plan {
    shares: Vec<Share>,
    churn: ChurnPlan,
    pulls: PullPlan,
    hides: HidePlan,
    messages: MessagePlan,
}

/// What a share of all actions is for.
#[derive(Clone, Copy)]
enum Kind {
    /// Follows, unfollows and deletions.
    Churn,
    Pulls,
    /// Mutes and blocks.
    Hides,
    /// Messages, and deletions of them.
    Messages,
}

struct Share {
    kind: Kind,
    percent: u8,
    /// How many of this kind have been planned.
    count: u64,
}

impl Plan {
    pub(crate) fn new(settings: &Settings, workload: &Arc<Workload>) -> Self {
        let (seed, graph) = (workload.seed(), &workload.graph);
        let shares = [
            (Kind::Churn, settings.churn_percent),
            (Kind::Pulls, settings.pulls_percent),
            (Kind::Hides, settings.hides_percent),
            (Kind::Messages, settings.messages_percent),
        ];
        Self {
            shares: shares.map(|(kind, percent)| Share { kind, percent, count: 0 }).into(),
            churn: ChurnPlan::new(seed, Arc::clone(graph)),
            pulls: PullPlan::new(seed, workload.popular()),
            hides: HidePlan::new(Arc::clone(workload)),
            messages: MessagePlan::new(seed),
        }
    }

    /// The change that is action number `action`, after `post_count` posts, recorded in
    /// `changes`; `None` where a post is due. Each kind keeps its share of all actions so
    /// far.
    pub(crate) fn next(
        &mut self,
        action: u64,
        post_count: u32,
        changes: &mut Changes,
    ) -> Option<Change> {
        let is_due =
            |share: &&mut Share| share.count * 100 < (action + 1) * u64::from(share.percent);
        let share = self.shares.iter_mut().find(is_due)?;
        share.count += 1;
        let change = match share.kind {
            Kind::Churn => self.churn.next(post_count, changes),
            Kind::Pulls => self.pulls.next(changes),
            Kind::Hides => self.hides.next(post_count, changes),
            Kind::Messages => self.messages.next(changes),
        };
        changes.record(change);
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::workload::tests::{planned, synthetic_settings};

    #[test]
    fn each_kind_has_its_share_of_all_actions() {
        let settings = Settings {
            churn_percent: 20,
            pulls_percent: 3,
            hides_percent: 7,
            ..synthetic_settings(200, 1)
        };
        let mut plan = Plan::new(&settings, &Arc::new(planned(&settings)));
        let mut changes = Changes::default();
        let (mut posts, mut pulls, mut hides, mut others) = (0, 0, 0, 0);
        for action in 0..10_000 {
            match plan.next(action, posts, &mut changes) {
                Some(Change::SetDelivery { .. }) => pulls += 1,
                Some(Change::Hide { .. }) => hides += 1,
                Some(_) => others += 1,
                None => posts += 1,
            }
        }
        assert_eq!((posts, others, pulls, hides), (7_000, 2_000, 300, 700));
    }
}
