//! Compares home and author timelines.

use std::{borrow::Cow, fmt::Display};

use tonic::{Code, Response, Status};

use super::{Findings, Verifier};
use crate::{
    client::page::{PAGE_SIZE_MAX, Page, PageRequest, TimelineKind},
    domain::PostId,
    load::{
        LoadError,
        difference::compare,
        floor::FloorRules,
        graph::UserIndex,
        model::{Home, Newest, oldest_ready},
        probe::channel_of,
        retry::retried,
    },
    proto::v1::{Floor, FloorReason, Post, timeline_service_client::TimelineServiceClient},
};

/// A page size that divides nothing, so that pages begin and end anywhere.
const SMALL_PAGE_SIZE: i32 = 7;
const HYDRATED_PAGE_SIZE: i32 = 50;
/// So many empty pages with a token for the next in a row are a token that leads
/// nowhere.
const EMPTY_PAGES_MAX: u32 = 100;

impl Verifier {
    /// The newest of a home timeline by ids, in the largest pages.
    pub(super) async fn check_ids(
        &self,
        user: UserIndex,
        newest: Newest,
    ) -> Result<Findings, LoadError> {
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
                .map(|difference| self.named("home timeline", user, difference))
                .into_iter()
                .collect(),
            ..Findings::default()
        })
    }

    /// Small pages, posts, floor and author timeline of one account.
    pub(super) async fn check_closely(
        &self,
        user: UserIndex,
        by_id: &[(PostId, u32)],
    ) -> Result<Findings, LoadError> {
        let home = self.model.home(user);
        let mut problems = self.check_small_pages(user, &home).await?;
        problems.extend(self.check_hydrated(user, &home, by_id).await?);
        problems.extend(self.check_author(user, by_id).await?);
        Ok(Findings { problems, ..Findings::default() })
    }

    /// A home timeline by ids, to its very end, and what the floor of each page claims.
    async fn check_small_pages(
        &self,
        user: UserIndex,
        home: &Home,
    ) -> Result<Vec<String>, LoadError> {
        let cap = self.model.cap();
        let oldest_ready = oldest_ready(&home.delivered, cap);
        let request = self.request(user, TimelineKind::Home, SMALL_PAGE_SIZE, true);
        let request = PageRequest { all_reposts: true, ..request };
        let paged = self.read(user, request, usize::MAX).await?;
        let mut problems = Vec::new();
        if let Some(difference) = compare(&paged.part_of(home, oldest_ready).shown(), &paged.ids) {
            problems.push(self.named("home timeline in small pages", user, difference));
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
            let problem = rules.problem(before, is_last, floor.as_ref());
            problems.extend(problem.map(|problem| self.named("home timeline", user, problem)));
        }
        Ok(problems)
    }

    /// A home timeline as its reader sees it, with the posts.
    async fn check_hydrated(
        &self,
        user: UserIndex,
        home: &Home,
        by_id: &[(PostId, u32)],
    ) -> Result<Vec<String>, LoadError> {
        let oldest_ready = oldest_ready(&home.delivered, self.model.cap());
        let request = self.request(user, TimelineKind::Home, HYDRATED_PAGE_SIZE, false);
        let hydrated = self.read(user, request, usize::MAX).await?;
        let seen = hydrated.part_of(home, oldest_ready).seen(|id| self.repeated(id, by_id));
        let difference = compare(&seen, &hydrated.ids).map(|difference| difference.to_string());
        let problems =
            difference.into_iter().chain(self.post_problem(&hydrated.ids, &hydrated.posts, by_id));
        let named = |problem| self.named("home timeline with posts", user, problem);
        Ok(problems.map(named).collect())
    }

    /// An author timeline, by ids and with the posts.
    async fn check_author(
        &self,
        user: UserIndex,
        by_id: &[(PostId, u32)],
    ) -> Result<Vec<String>, LoadError> {
        let mut problems = Vec::new();
        for (page_size, ids_only) in [(SMALL_PAGE_SIZE, true), (HYDRATED_PAGE_SIZE, false)] {
            let request = self.request(user, TimelineKind::Author, page_size, ids_only);
            let own = self.read(user, request, usize::MAX).await?;
            let difference = compare(self.model.author(user), &own.ids);
            problems.extend(difference.map(|difference| difference.to_string()));
            if !ids_only {
                problems.extend(self.post_problem(&own.ids, &own.posts, by_id));
            }
        }
        let named = |problem| self.named("author timeline", user, problem);
        Ok(problems.into_iter().map(named).collect())
    }

    fn named(&self, what: &str, user: UserIndex, problem: impl Display) -> String {
        format!("{what} of {}: {problem}", self.name(user))
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
