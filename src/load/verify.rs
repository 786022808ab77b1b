//! Compares what a server shows with the model: every home timeline by ids, and
//! for a sample of the accounts everything that a page says.

mod inboxes;
mod posts;
mod timelines;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use hashbrown::HashSet;
use serde::Serialize;
use tokio::{sync::mpsc, task, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    LoadError,
    board::Board,
    graph::UserIndex,
    model::{ExpectedInboxes, Model},
    random::{Purpose, below, generator},
    workload::Workload,
};
use crate::{
    client::progress::{REPORT_EVERY, Reporter},
    domain::MessageId,
};

const READS_AT_ONCE: usize = 128;
/// Timelines that the model computes ahead of the reads.
const EXPECTED_AHEAD_MAX: usize = 1_024;
/// How many accounts are looked at closely.
const SAMPLE_USERS: u32 = 200;
/// How many differences are told in full.
const DIFFERENCES_TOLD: usize = 10;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Home timelines that were compared id by id: all there are.
    pub home_timelines: u64,
    /// Ids in them.
    pub entries: u64,
    /// Accounts whose home and author timelines were also compared in small pages,
    /// with the posts, and with what the floor claims.
    pub sampled_users: u64,
    /// Notifications in the lists that were compared: those of all accounts that should
    /// have some, and of the sample.
    pub notifications: u64,
    /// Messages in the lists of those who have received or sent some, each as often as it
    /// is listed.
    pub messages: u64,
    /// How many problems were found. A timeline that differs from the model counts
    /// once for each way in which it was read.
    pub difference_count: u64,
    /// The first of them.
    pub differences: Vec<String>,
}

/// What is to be compared, and with what.
pub(super) struct Verifier {
    pub(super) workload: Arc<Workload>,
    pub(super) board: Arc<Board>,
    pub(super) model: Arc<Model>,
    pub(super) inboxes: Arc<ExpectedInboxes>,
    /// The authors who are pulled.
    pub(super) pulled: BTreeSet<UserIndex>,
    /// Whether authors should be pulled, where the server has agreed.
    pub(super) asked_for: BTreeMap<UserIndex, bool>,
    /// The numbers of all messages.
    pub(super) messages: BTreeMap<MessageId, u32>,
    pub(super) channels: Vec<Channel>,
    pub(super) patience: Duration,
}

/// What the comparison of one account found.
#[derive(Default)]
struct Findings {
    entries: u64,
    notifications: u64,
    messages: u64,
    problems: Vec<String>,
}

impl Verification {
    fn add(&mut self, findings: Findings) {
        self.entries += findings.entries;
        self.notifications += findings.notifications;
        self.messages += findings.messages;
        self.difference_count += findings.problems.len() as u64;
        let room = DIFFERENCES_TOLD.saturating_sub(self.differences.len());
        self.differences.extend(findings.problems.into_iter().take(room));
    }
}

impl Verifier {
    /// Compares everything. Many reads are under way at once; how far it has come
    /// is reported.
    ///
    /// # Errors
    /// If the server cannot be read; a difference is no error.
    pub(super) async fn verify(
        self,
        reporter: &mut impl Reporter,
    ) -> Result<Verification, LoadError> {
        let user_count = self.workload.graph.user_count();
        let mut verification = Verification::default();
        let this = Arc::new(self);

        reporter.begin("comparing home timelines", Some(user_count.into()));
        let (expected, ahead) = mpsc::channel(EXPECTED_AHEAD_MAX);
        let model = Arc::clone(&this.model);
        let computing = task::spawn_blocking(move || {
            for user in 0..user_count {
                // Whoever no longer listens has an error to tell.
                if expected.blocking_send((user, model.newest(user))).is_err() {
                    return;
                }
            }
        });
        let checks = ReceiverStream::new(ahead)
            .map(|(user, newest)| {
                let this = Arc::clone(&this);
                async move { this.check_ids(user, newest).await }
            })
            .buffer_unordered(READS_AT_ONCE);
        verification.home_timelines = gather(checks, &mut verification, reporter).await?;
        computing.await?;
        reporter.end();

        let sample = sample(this.workload.seed(), user_count);
        reporter.begin("comparing pages and posts", Some(sample.len() as u64));
        let by_id = Arc::new(
            task::spawn_blocking({
                let this = Arc::clone(&this);
                move || this.numbers_by_id()
            })
            .await?,
        );
        let checks = futures::stream::iter(sample.clone())
            .map(|user| {
                let (this, by_id) = (Arc::clone(&this), Arc::clone(&by_id));
                async move { this.check_closely(user, &by_id).await }
            })
            .buffer_unordered(READS_AT_ONCE);
        verification.sampled_users = gather(checks, &mut verification, reporter).await?;
        reporter.end();
        verification.add(Findings { problems: this.pulled_problems(), ..Findings::default() });

        verification.add(this.check_messages_are_no_posts().await?);
        let with_inboxes: Vec<UserIndex> = (0..user_count)
            .filter(|user| !this.inboxes.is_nothing(*user) || sample.contains(user))
            .collect();
        reporter.begin("comparing notifications and messages", Some(with_inboxes.len() as u64));
        let checks = futures::stream::iter(with_inboxes)
            .map(|user| {
                let (this, by_id) = (Arc::clone(&this), Arc::clone(&by_id));
                async move { this.check_inboxes(user, &by_id).await }
            })
            .buffer_unordered(READS_AT_ONCE);
        gather(checks, &mut verification, reporter).await?;
        reporter.end();
        Ok(verification)
    }

    /// Who is not pulled or pushed as was asked for.
    fn pulled_problems(&self) -> Vec<String> {
        let how = |pulled| if pulled { "pulled" } else { "pushed" };
        self.asked_for
            .iter()
            .map(|(author, asked_for)| (author, self.pulled.contains(author), *asked_for))
            .filter(|(_, is_pulled, asked_for)| is_pulled != asked_for)
            .map(|(author, is_pulled, asked_for)| {
                let name = self.name(*author);
                format!("{name} is {}, but {} was asked for last", how(is_pulled), how(asked_for))
            })
            .collect()
    }

    fn name(&self, user: UserIndex) -> String {
        format!("account {}", self.workload.graph.id(user))
    }
}

/// Adds up findings as they come; returns how many there were.
async fn gather(
    checks: impl futures::Stream<Item = Result<Findings, LoadError>>,
    verification: &mut Verification,
    reporter: &mut impl Reporter,
) -> Result<u64, LoadError> {
    let mut count = 0;
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(checks);
    loop {
        tokio::select! {
            findings = checks.next() => {
                let Some(findings) = findings.transpose()? else { break };
                count += 1;
                verification.add(findings);
            }
            _ = ticks.tick() => reporter.advance(count),
        }
    }
    reporter.advance(count);
    Ok(count)
}

/// The accounts to look at closely: all of a small population.
fn sample(seed: u64, user_count: u32) -> Vec<UserIndex> {
    if user_count <= SAMPLE_USERS {
        return (0..user_count).collect();
    }
    let mut random = generator(seed, Purpose::Sample, u64::MAX);
    let mut users = HashSet::new();
    while users.len() < SAMPLE_USERS as usize {
        users.insert(below(&mut random, u64::from(user_count)) as UserIndex);
    }
    let mut users: Vec<UserIndex> = users.into_iter().collect();
    users.sort_unstable();
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_no_account_twice() {
        assert_eq!(sample(1, 3), [0, 1, 2]);
        let sample = sample(1, 1_000);
        assert_eq!(sample.len(), 200);
        assert!(sample.is_sorted_by(|a, b| a < b));
    }
}
