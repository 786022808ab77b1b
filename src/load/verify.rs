//! Compares what a server shows with the model: every home timeline by ids, and
//! for a sample of the accounts everything that a page says.

mod inboxes;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use hashbrown::HashSet;
use serde::Serialize;
use tokio::{sync::mpsc, task, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, transport::Channel};

use super::{
    LoadError,
    board::Board,
    difference::compare,
    floor::FloorRules,
    graph::UserIndex,
    model::{Home, Model, Newest, Told},
    probe::channel_of,
    random::{Purpose, below, generator},
    retry::retried,
    workload::Workload,
};
use crate::{
    client::{
        page::{PAGE_SIZE_MAX, Page, PageRequest, TimelineKind},
        progress::{REPORT_EVERY, Reporter},
    },
    domain::{MessageId, PostId},
    proto::v1::{Floor, FloorReason, Post, timeline_service_client::TimelineServiceClient},
};

/// A page size that divides nothing, so that pages begin and end anywhere.
const SMALL_PAGE_SIZE: i32 = 7;
const HYDRATED_PAGE_SIZE: i32 = 50;
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
    pub(super) told: Arc<Told>,
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
        let told: Vec<UserIndex> = (0..user_count)
            .filter(|user| !this.told.is_nothing(*user) || sample.contains(user))
            .collect();
        reporter.begin("comparing notifications and messages", Some(told.len() as u64));
        let checks = futures::stream::iter(told)
            .map(|user| {
                let (this, by_id) = (Arc::clone(&this), Arc::clone(&by_id));
                async move { this.check_inboxes(user, &by_id).await }
            })
            .buffer_unordered(READS_AT_ONCE);
        gather(checks, &mut verification, reporter).await?;
        reporter.end();
        Ok(verification)
    }

    /// The newest of a home timeline by ids, in the largest pages.
    async fn check_ids(&self, user: UserIndex, newest: Newest) -> Result<Findings, LoadError> {
        let Newest { shown: mut expected, oldest_ready } = newest;
        let cap = self.model.cap();
        let request = self.request(user, TimelineKind::Home, PAGE_SIZE_MAX, true);
        let mut home = self.read(user, PageRequest { all_reposts: true, ..request }, cap).await?;
        home.ids.truncate(cap);
        if let Some(end) = home.end(oldest_ready) {
            expected.retain(|id| *id >= end);
        }
        let problem = compare(&expected, &home.ids);
        Ok(Findings {
            entries: home.ids.len() as u64,
            problems: problem
                .map(|difference| format!("home timeline of {}: {difference}", self.name(user)))
                .into_iter()
                .collect(),
            ..Findings::default()
        })
    }

    /// Small pages, posts, floor and author timeline of one account.
    async fn check_closely(
        &self,
        user: UserIndex,
        by_id: &[(PostId, u32)],
    ) -> Result<Findings, LoadError> {
        let home = self.model.home(user);
        let cap = self.model.cap();
        let oldest_ready = home.delivered.get(cap - 1).copied();
        let mut problems = Vec::new();
        let mut found = |what: &str, problem: String| {
            problems.push(format!("{what} of {}: {problem}", self.name(user)));
        };

        let request = self.request(user, TimelineKind::Home, SMALL_PAGE_SIZE, true);
        let request = PageRequest { all_reposts: true, ..request };
        let paged = self.read(user, request, usize::MAX).await?;
        if let Some(difference) = compare(&paged.part_of(&home, oldest_ready).shown(), &paged.ids) {
            found("home timeline in small pages", difference.to_string());
        }
        let rules = FloorRules {
            home: &home.delivered,
            cap,
            was_pulled: self.model.was_pulled(user),
            has_hidden: !home.hidden.is_empty(),
        };
        for (place, (above, floor)) in (1..).zip(&paged.floors) {
            let before = above.checked_sub(1).map(|last| paged.ids[last]);
            let is_last = place == paged.floors.len();
            if let Some(problem) = rules.problem(before, is_last, floor.as_ref()) {
                found("home timeline", problem);
            }
        }
        let request = self.request(user, TimelineKind::Home, HYDRATED_PAGE_SIZE, false);
        let hydrated = self.read(user, request, usize::MAX).await?;
        let seen = hydrated.part_of(&home, oldest_ready).seen(|id| self.repeated(id, by_id));
        if let Some(difference) = compare(&seen, &hydrated.ids) {
            found("home timeline with posts", difference.to_string());
        }
        if let Some(problem) = self.post_problem(&hydrated.ids, &hydrated.posts, by_id) {
            found("home timeline with posts", problem);
        }
        for (page_size, ids_only) in [(SMALL_PAGE_SIZE, true), (HYDRATED_PAGE_SIZE, false)] {
            let request = self.request(user, TimelineKind::Author, page_size, ids_only);
            let own = self.read(user, request, usize::MAX).await?;
            if let Some(difference) = compare(self.model.author(user), &own.ids) {
                found("author timeline", difference.to_string());
            }
            if !ids_only && let Some(problem) = self.post_problem(&own.ids, &own.posts, by_id) {
                found("author timeline", problem);
            }
        }
        Ok(Findings { problems, ..Findings::default() })
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

    /// The first post that is not what was sent.
    fn post_problem(
        &self,
        ids: &[PostId],
        posts: &[Post],
        by_id: &[(PostId, u32)],
    ) -> Option<String> {
        if posts.len() != ids.len() {
            return Some(format!("has {} ids and {} posts", ids.len(), posts.len()));
        }
        posts.iter().zip(ids).find_map(|(post, id)| {
            let number = number_of(*id, by_id)?;
            let reference = self.workload.meant(number).and_then(|n| self.board.id(n));
            let sent = self.workload.request(number, reference);
            let created_ms = post
                .create_time
                .map(|time| time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000);
            let expected_ms = (id.0 >> PostId::NODE_AND_SEQUENCE_BITS) + PostId::EPOCH_UNIX_MS;
            let is_as_sent = post.id == id.0
                && post.author_id == sent.author_id
                && post.text == sent.text
                && post.origin == sent.origin
                && post.link == sent.link
                && post.reply_to_id == sent.reply_to_id
                && post.repost_of_id == sent.repost_of_id
                && post.mentioned_ids == sent.mentioned_ids
                && created_ms == i64::try_from(expected_ms).ok();
            (!is_as_sent).then(|| format!("post {id} is {post:?}, but {sent:?} was sent"))
        })
    }

    /// What a plain repost repeats.
    fn repeated(&self, id: PostId, by_id: &[(PostId, u32)]) -> Option<PostId> {
        let number = number_of(id, by_id)?;
        self.workload.repeats(number)?;
        self.board.id(self.workload.meant(number)?)
    }

    /// The request for the first page of a timeline.
    fn request(
        &self,
        user: UserIndex,
        kind: TimelineKind,
        page_size: i32,
        ids_only: bool,
    ) -> PageRequest {
        PageRequest {
            kind,
            user: self.workload.graph.id(user),
            page_size,
            page_token: String::new(),
            ids_only,
            all_reposts: false,
        }
    }

    /// Pages of a timeline until they have so many posts.
    async fn read(
        &self,
        user: UserIndex,
        mut request: PageRequest,
        count_min: usize,
    ) -> Result<Timeline, LoadError> {
        let client = TimelineServiceClient::new(channel_of(&self.channels, user));
        let mut timeline = Timeline::default();
        let kind = request.kind;
        loop {
            let page = retried(self.patience, || {
                let (mut client, request) = (client.clone(), request.clone());
                async move {
                    match request.send(&mut client).await {
                        // An account that nobody has named yet has posted nothing.
                        Err(status)
                            if kind == TimelineKind::Author && status.code() == Code::NotFound =>
                        {
                            Ok(Response::new(Page::default()))
                        }
                        other => other,
                    }
                }
            })
            .await?;
            request.page_token = page.next_page_token.clone();
            timeline.add(page)?;
            if request.page_token.is_empty() || timeline.ids.len() >= count_min {
                return Ok(timeline);
            }
        }
    }

    fn numbers_by_id(&self) -> Vec<(PostId, u32)> {
        let mut by_id: Vec<(PostId, u32)> = (0..self.workload.post_count())
            .filter_map(|number| self.board.id(number).map(|id| (id, number)))
            .collect();
        by_id.sort_unstable();
        by_id
    }

    fn name(&self, user: UserIndex) -> String {
        format!("account {}", self.workload.graph.id(user))
    }
}

/// What was read of one timeline, all pages together.
#[derive(Default)]
struct Timeline {
    ids: Vec<PostId>,
    posts: Vec<Post>,
    /// The floor of each page, with how many posts were above the page.
    floors: Vec<(usize, Option<Floor>)>,
    pages_without_posts: u32,
}

/// So many empty pages with a token for the next in a row are a token that leads
/// nowhere.
const EMPTY_PAGES_MAX: u32 = 100;

impl Timeline {
    /// Where it ends above the very end, since its reader follows too many: at its floor, and
    /// not before the end of what is held ready.
    fn end(&self, oldest_ready: Option<PostId>) -> Option<PostId> {
        let floor = self.floors.last().and_then(|(_, floor)| floor.as_ref())?;
        let is_cut = floor.reason() == FloorReason::Followees;
        is_cut.then(|| PostId(floor.complete_down_to_id).min(oldest_ready.unwrap_or(PostId(0))))
    }

    /// What it should be of the whole.
    fn part_of<'a>(&self, home: &'a Home, oldest_ready: Option<PostId>) -> Cow<'a, Home> {
        match self.end(oldest_ready) {
            Some(end) => Cow::Owned(home.cut_below(end)),
            None => Cow::Borrowed(home),
        }
    }

    fn add(&mut self, page: Page) -> Result<(), LoadError> {
        if page.post_ids.is_empty() {
            self.pages_without_posts += 1;
            if self.pages_without_posts > EMPTY_PAGES_MAX {
                return Err(
                    Status::data_loss("page tokens lead from empty page to empty page").into()
                );
            }
        } else {
            self.pages_without_posts = 0;
        }
        self.floors.push((self.ids.len(), page.floor));
        self.ids.extend(page.post_ids.into_iter().map(PostId));
        self.posts.extend(page.posts);
        Ok(())
    }
}

/// Which post of the workload has an id.
fn number_of(id: PostId, by_id: &[(PostId, u32)]) -> Option<u32> {
    by_id.binary_search_by_key(&id, |(id, _)| *id).ok().map(|place| by_id[place].1)
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
