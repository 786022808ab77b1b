//! The fan-outs that a batch asks for.

use super::Worker;
use crate::{
    domain::{PostId, UserId},
    event_log::EventLog,
    fanout::{FanoutError, plan::Effects, queue::Job},
    store::{Store, Work},
};

impl<L: EventLog, S: Store> Worker<L, S> {
    /// The fan-outs that a batch asks for, in the order of the log.
    pub(super) async fn jobs(
        &self,
        effects: &Effects,
        look_below: u64,
    ) -> Result<Vec<Job<S::Account>>, FanoutError> {
        let posted: Vec<UserId> = effects.posted.keys().copied().collect();
        let deleted: Vec<UserId> = effects.deleted.iter().map(|(author, ..)| *author).collect();
        let mut jobs = Vec::with_capacity(posted.len() + deleted.len());
        let authors = self.store.accounts(&posted).await?;
        for (author, posted) in authors.into_iter().zip(effects.posted.values()) {
            let Some(author) = author else { continue };
            jobs.extend(self.deliveries(author, &posted.ids, posted.offset, look_below));
        }
        let authors = self.store.accounts(&deleted).await?;
        for (author, (_, post, offset)) in authors.into_iter().zip(&effects.deleted) {
            let Some(author) = author else { continue };
            jobs.extend(self.jobs_of(author, Work::Remove(*post), *offset, look_below));
        }
        jobs.sort_by_key(|job| job.offset);
        Ok(jobs)
    }

    /// The fan-outs that bring to everybody what authors have posted while they were pulled,
    /// with a look: they may have had some of it.
    pub(super) async fn jobs_of_returned(
        &self,
        effects: &Effects,
        look_below: u64,
    ) -> Result<Vec<Job<S::Account>>, FanoutError> {
        let mut jobs = Vec::new();
        for (user, offset) in &effects.returned {
            let Some(author) = self.store.account(*user).await? else { continue };
            let mut ids = self.newest_of(author).await?.ids;
            if let Some(posted) = effects.posted.get(user) {
                ids.retain(|id| !posted.ids.contains(id));
            }
            let deliveries = self.deliveries(author, &ids, *offset, look_below);
            jobs.extend(deliveries.map(|job| Job { again: true, ..job }));
        }
        Ok(jobs)
    }

    /// The fan-outs that deliver an author's posts.
    fn deliveries(
        &self,
        author: S::Account,
        ids: &[PostId],
        offset: u64,
        look_below: u64,
    ) -> impl Iterator<Item = Job<S::Account>> {
        let pieces = ids.chunks(self.settings.fanout_posts_max.max(1));
        pieces.flat_map(move |ids| {
            self.jobs_of(author, Work::Deliver(ids.to_vec()), offset, look_below)
        })
    }

    /// A fan-out in as many parts as have come to different places before.
    fn jobs_of(
        &self,
        author: S::Account,
        work: Work,
        offset: u64,
        look_below: u64,
    ) -> impl Iterator<Item = Job<S::Account>> {
        let again = offset < look_below;
        let parts = self.half_done.split(author, work).into_iter();
        parts.map(move |(work, after)| Job { author, work, after, offset, again })
    }
}
