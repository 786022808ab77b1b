//! Authors who are switched because of how many follow them.
//!
//! The worker appends to its own partition what an operator would have set, and goes by it
//! when it reads it there: so it stands in the log before which post it holds.

use std::{collections::BTreeMap, mem};

use futures::{StreamExt, TryStreamExt, stream};

use super::Worker;
use crate::{
    domain::{Event, UserId},
    event_log::{EventLog, codec},
    fanout::plan::Effects,
    store::{PULLED_MAX, Store, StoreError},
};

/// Authors whose followers are counted at once: those of one who posts for the first time are
/// read for that.
const COUNTED_AT_ONCE: usize = 64;

/// That an author is to be pulled, or to be pushed again.
#[derive(Clone, Copy)]
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
        if rule.above.is_none() {
            return Ok(Vec::new());
        }
        let posted = effects.posted.keys().map(|author| (*author, None));
        let lost = self.followers_lost(events);
        let left = lost.into_iter().map(|(author, lost)| (author, Some(lost)));
        let (authors, lost): (Vec<UserId>, Vec<Option<u64>>) =
            posted.chain(left).filter(|(author, _)| !self.switching.contains(author)).unzip();
        let accounts = self.store.accounts(&authors).await?;
        let reasons = authors.into_iter().zip(lost).zip(accounts);
        let reasons =
            reasons.filter_map(|((author, lost), account)| Some((author, lost, account?)));
        let switches = stream::iter(reasons).map(|(author, lost, account)| async move {
            let followers = self.store.count_followers(account).await?;
            let (pulled, is_due) = match lost {
                None => (true, rule.pulls(followers)),
                Some(lost) => (false, rule.returns(followers, lost)),
            };
            Ok::<_, StoreError>(is_due.then_some(Switch { author, pulled, followers }))
        });
        let switches: Vec<Option<Switch>> =
            switches.buffered(COUNTED_AT_ONCE).try_collect().await?;
        Ok(switches.into_iter().flatten().collect())
    }

    /// How many followers those who are pulled have lost.
    fn followers_lost(&self, events: &[Event]) -> BTreeMap<UserId, u64> {
        let mut lost = BTreeMap::new();
        for event in events {
            if let Event::Unfollowed { followee, .. } = event
                && self.pulled.contains(followee)
            {
                *lost.entry(*followee).or_default() += 1;
            }
        }
        lost
    }

    /// Has authors pulled, or pushed again. One that fails is tried again with the next batch:
    /// its timelines are right either way.
    pub(super) async fn append_switches(&mut self, switches: Vec<Switch>) {
        let unswitched = mem::take(&mut self.unswitched);
        for switch in unswitched.into_iter().chain(switches) {
            let Switch { author, pulled, followers } = switch;
            if self.switching.contains(&author) || self.pulled.contains(&author) == pulled {
                continue;
            }
            if pulled && self.store.pulled_authors().len() >= PULLED_MAX {
                if self.unpulled.insert(author) {
                    tracing::warn!(
                        author = author.0,
                        followers,
                        "{PULLED_MAX} authors are pulled already, and this one goes on being \
                         pushed: have some pushed who were pulled by hand, or set pull_above of \
                         the servers to more"
                    );
                }
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
                    if self.unswitched.iter().all(|other| other.author != author) {
                        self.unswitched.push(switch);
                    }
                }
            }
        }
    }
}
