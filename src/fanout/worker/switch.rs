//! Authors who are switched because of how many follow them.
//!
//! The worker appends to its own partition what an operator would have set, and goes by it
//! when it reads it there: so it stands in the log before which post it holds.

use std::collections::HashMap;

use super::Worker;
use crate::{
    domain::{Event, UserId},
    event_log::{EventLog, codec},
    fanout::plan::Effects,
    store::{PULLED_MAX, Store, StoreError},
};

/// That an author is to be pulled, or to be pushed again.
pub(super) struct Switch {
    author: UserId,
    pulled: bool,
    followers: u64,
}

impl<L: EventLog, S: Store> Worker<L, S> {
    /// Whom a batch gives reason to switch: those who post, and those whom somebody has
    /// ceased to follow.
    pub(super) async fn switches(
        &self,
        effects: &Effects,
        events: &[Event],
    ) -> Result<Vec<Switch>, StoreError> {
        let rule = self.settings.pull_rule;
        let mut switches = Vec::new();
        if rule.above.is_none() {
            return Ok(switches);
        }
        let posted: Vec<UserId> = effects.posted.keys().copied().collect();
        let lost = self.lost(events);
        let left: Vec<UserId> = lost.keys().copied().collect();
        for (author, account) in posted.iter().zip(self.store.accounts(&posted).await?) {
            let Some(account) = account else { continue };
            let followers = self.store.count_followers(account).await?;
            if rule.pulls(followers) {
                switches.push(Switch { author: *author, pulled: true, followers });
            }
        }
        for (author, account) in left.iter().zip(self.store.accounts(&left).await?) {
            let Some(account) = account else { continue };
            let followers = self.store.count_followers(account).await?;
            if rule.returns(followers, lost[author]) {
                switches.push(Switch { author: *author, pulled: false, followers });
            }
        }
        switches.retain(|switch| !self.switching.contains(&switch.author));
        Ok(switches)
    }

    /// How many followers those who are pulled have lost.
    fn lost(&self, events: &[Event]) -> HashMap<UserId, u64> {
        let mut lost = HashMap::new();
        for event in events {
            if let Event::Unfollowed { followee, .. } = event
                && self.pulled.contains(followee)
            {
                *lost.entry(*followee).or_default() += 1;
            }
        }
        lost
    }

    /// Has authors pulled, or pushed again. One that fails is left as it is until the next
    /// reason for it: its timelines are right either way.
    pub(super) async fn have_switched(&mut self, switches: Vec<Switch>) {
        for Switch { author, pulled, followers } in switches {
            if pulled && self.store.pulled().len() >= PULLED_MAX {
                tracing::warn!(
                    author = author.0,
                    followers,
                    "{PULLED_MAX} authors are pulled already, and this one goes on being pushed"
                );
                continue;
            }
            let event = codec::encode(&Event::PullChanged { author, pulled });
            match self.log.append(self.partition, vec![event]).await {
                Ok(_) => {
                    tracing::info!(author = author.0, followers, pulled, "an author is switched");
                    self.metrics.switched_authors.inc();
                    self.switching.insert(author);
                }
                Err(error) => {
                    tracing::warn!(author = author.0, pulled, %error, "an author is not switched");
                }
            }
        }
    }
}
