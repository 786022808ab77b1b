//! *read*: pages of home timelines over gRPC, alone and while a fan-out runs, beside a
//! bare call that returns the same bytes.
//!
//! Both are called by the same clients in turns, so that what else happens on the machine
//! slows both.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tonic::transport::Channel;

use super::{
    BenchError, Goal, Plot, Ratio, Section, Series,
    audience::{Audience, FILLERS},
    closed_loop::{self, Answered, Calls, Turn},
    cost::Cost,
    ground::Ground,
    report::median,
    roost::Roost,
    serving::Serving,
    town::Town,
};
use crate::{
    client::ClientError,
    domain::Event,
    proto::v1::{
        ListHomeTimelineRequest, ListHomeTimelineResponse,
        timeline_service_client::TimelineServiceClient,
    },
    store::Store,
};

/// Calls under way at once.
const CALLERS: usize = 64;
/// So often both take a turn.
const ROUNDS: usize = 7;
/// Posts that are fanned out at once while reads are measured beside them.
const FANOUT_POSTS: usize = 1_000;
/// So many of those whom everybody follows are pulled.
const PULLED: [usize; 3] = [1, 4, FILLERS];
/// Pages that are looked at to find one of the usual size.
const SAMPLE_PAGES: usize = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
struct Page {
    size: i32,
    ids_only: bool,
}

const PAGES: [Page; 4] = [
    Page { size: 20, ids_only: true },
    Page { size: 100, ids_only: true },
    Page { size: 20, ids_only: false },
    Page { size: 100, ids_only: false },
];

impl Page {
    fn name(self) -> String {
        format!("{} {}", self.size, if self.ids_only { "ids" } else { "posts" })
    }

    fn request(self, audience: &Audience, turn: Turn) -> ListHomeTimelineRequest {
        ListHomeTimelineRequest {
            user_id: audience.reader(turn).0,
            page_size: self.size,
            page_token: String::new(),
            ids_only: self.ids_only,
            ..ListHomeTimelineRequest::default()
        }
    }
}

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let dir = ground.dir()?;
    let roost = Roost::embedded(&dir, ground.settings.partitions)?;
    let embedded = of_store(ground, "embedded", roost, false).await?;
    let roost = ground.roost().await?;
    let redis = of_store(ground, "Redis", roost, true).await?;
    Ok(vec![embedded, redis])
}

/// Measures the reads of a Roost with an empty log and store.
async fn of_store<S: Store>(
    ground: &mut Ground<'_>,
    name: &'static str,
    mut roost: Roost<S>,
    is_on_redis: bool,
) -> Result<Section, BenchError> {
    let town = ground.town().await?;
    ground.say(&format!("waking readers, {name}"));
    let audience = Arc::new(Audience::of(&town));
    audience.seat(&mut roost, &town).await?;
    let serving = Serving::roost(roost.api().await).await?;
    let section = Section {
        name: format!("read, {name}"),
        about: format!(
            "{CALLERS} calls under way at once on loopback, by {} readers with full timelines \
             who are drawn by Zipf's law; beside each, in turns, a bare tonic call that answers \
             with the same bytes.",
            audience.len()
        ),
        ..Section::default()
    };
    let channels = serving.connect().await?;
    let mut reads = Reads { ground, name, roost, is_on_redis, audience, channels, section };
    let alone = reads.alone().await?;
    reads.beside_fanout(&town).await?;
    reads.with_pulled(alone).await?;
    let Reads { roost, channels, section, .. } = reads;
    drop(channels);
    serving.stop().await?;
    roost.stop().await?;
    Ok(section)
}

/// A Roost whose readers are there, and what is known of their reads.
struct Reads<'r, 'g, S> {
    ground: &'r mut Ground<'g>,
    name: &'static str,
    roost: Roost<S>,
    /// What a read costs Redis is measured too.
    is_on_redis: bool,
    audience: Arc<Audience>,
    channels: Vec<Channel>,
    section: Section,
}

impl<S: Store> Reads<'_, '_, S> {
    /// All pages while nothing else happens; returns the reads of the first of them by the
    /// bare calls.
    async fn alone(&mut self) -> Result<f64, BenchError> {
        self.say("reading");
        let (mut curves, mut ratios) = (Vec::new(), Vec::new());
        for page in PAGES {
            let pair = Pair::of(page, &self.audience, &self.channels).await?;
            let (measured, cost) = self.measure(&pair).await?;
            pair.stop().await?;
            curves.extend(measured.curves(page));
            ratios.push(measured.add_to(&mut self.section, &page.name(), page.ids_only, cost));
        }
        self.plot("Call to answer", curves);
        Ok(ratios[0])
    }

    /// The same while posts are fanned out without pause.
    async fn beside_fanout(&mut self, town: &Town) -> Result<(), BenchError> {
        self.say("reading beside a fan-out");
        let mut posts = town.posts_for_ever().map(|post| town.event(post));
        let mut curves = Vec::new();
        for page in PAGES {
            let pair = Pair::of(page, &self.audience, &self.channels).await?;
            let measured = tokio::select! {
                measured = pair.measure(self.ground.settings.turn) => measured?,
                failed = keep_busy(&mut self.roost, &mut posts) => return Err(failed),
            };
            pair.stop().await?;
            curves.extend(measured.curves(page));
            let name = format!("{}, beside a fan-out", page.name());
            // What Redis uses is mostly the fan-out's.
            measured.add_to(&mut self.section, &name, false, None);
            self.roost.settle().await?;
        }
        self.plot("Call to answer, beside a fan-out", curves);
        Ok(())
    }

    /// The first page, by readers more and more of whose followees are pulled; beside what it
    /// came to `alone`.
    async fn with_pulled(&mut self, alone: f64) -> Result<(), BenchError> {
        self.say("reading with pulled followees");
        let (page, writes) = (PAGES[0], self.roost.writes());
        for count in PULLED {
            for author in self.audience.fillers().take(count) {
                writes.set_delivery(author, true).await?;
            }
            let pair = Pair::of(page, &self.audience, &self.channels).await?;
            let (measured, cost) = self.measure(&pair).await?;
            pair.stop().await?;
            let name = format!("{}, {count} followees pulled", page.name());
            let ratio = measured.add_to(&mut self.section, &name, false, cost);
            self.section.ratios.push(Ratio {
                name: format!("reads/s, {count} followees pulled ÷ none"),
                value: ratio / alone,
                goal: None,
            });
        }
        Ok(())
    }

    /// What both did, and the CPU of Redis meanwhile.
    async fn measure(&self, pair: &Pair) -> Result<(Measured, Option<Duration>), BenchError> {
        let redis = self.is_on_redis.then_some(&self.ground.redis);
        let before = Cost::until_now(redis).await?;
        let measured = pair.measure(self.ground.settings.turn).await?;
        Ok((measured, Cost::until_now(redis).await?.since(&before).redis))
    }

    fn say(&mut self, phase: &str) {
        self.ground.say(&format!("{phase}, {}", self.name));
    }

    fn plot(&mut self, title: &str, curves: Vec<Series>) {
        self.section.plots.push(Plot::of_latencies(title, "share of the calls", curves));
    }
}

/// Publishes for ever, and returns what has gone wrong.
async fn keep_busy<S: Store>(
    roost: &mut Roost<S>,
    posts: &mut impl Iterator<Item = Event>,
) -> BenchError {
    loop {
        if let Err(error) = roost.append(posts.take(FANOUT_POSTS)).await {
            return error;
        }
        if let Err(error) = roost.settle().await {
            return error;
        }
    }
}

/// Roost and the bare service.
struct Pair {
    page: Page,
    audience: Arc<Audience>,
    roost: Vec<Channel>,
    bare: Vec<Channel>,
    serving: Serving,
}

/// What both did.
struct Measured {
    roost: Calls,
    bare: Calls,
    /// The one's calls a second by the other's, in each round.
    ratios: Vec<f64>,
}

impl Pair {
    /// Lets the bare service answer with one of Roost's pages of the usual size.
    async fn of(
        page: Page,
        audience: &Arc<Audience>,
        roost: &[Channel],
    ) -> Result<Self, BenchError> {
        let mut client = TimelineServiceClient::new(roost[0].clone());
        let mut pages: Vec<ListHomeTimelineResponse> = Vec::new();
        for number in 0..SAMPLE_PAGES {
            let request = page.request(audience, Turn { caller: 0, number });
            let answer = client.list_home_timeline(request).await.map_err(ClientError::from)?;
            pages.push(answer.into_inner());
        }
        let bytes = pages.iter().map(Message::encoded_len).sum::<usize>() / SAMPLE_PAGES;
        let usual = pages.into_iter().min_by_key(|page| page.encoded_len().abs_diff(bytes));
        let serving = Serving::bare(usual.unwrap_or_default()).await?;
        let bare = serving.connect().await?;
        Ok(Self { page, audience: Arc::clone(audience), roost: roost.to_vec(), bare, serving })
    }

    async fn measure(&self, turn: Duration) -> Result<Measured, BenchError> {
        let mut measured =
            Measured { roost: Calls::none()?, bare: Calls::none()?, ratios: Vec::new() };
        for _ in 0..ROUNDS {
            let roost = self.call(&self.roost, turn).await?;
            let bare = self.call(&self.bare, turn).await?;
            measured.ratios.push(roost.rate() / bare.rate());
            measured.roost.follow(&roost)?;
            measured.bare.follow(&bare)?;
        }
        Ok(measured)
    }

    async fn call(&self, channels: &[Channel], time: Duration) -> Result<Calls, BenchError> {
        let clients: Arc<[_]> = channels.iter().cloned().map(TimelineServiceClient::new).collect();
        let (page, audience) = (self.page, Arc::clone(&self.audience));
        let [calls] = closed_loop::run(CALLERS, time, move |turn| {
            let mut client = clients[turn.caller % clients.len()].clone();
            let request = page.request(&audience, turn);
            async move {
                let answer = client.list_home_timeline(request).await.map_err(ClientError::from)?;
                Ok(Answered::<1> { kind: 0, bytes: answer.into_inner().encoded_len() })
            }
        })
        .await?;
        Ok(calls)
    }

    async fn stop(self) -> Result<(), BenchError> {
        drop(self.bare);
        self.serving.stop().await
    }
}

impl Measured {
    /// How long calls took, of the smaller pages: others look alike.
    fn curves(&self, page: Page) -> Vec<Series> {
        if page.size != PAGES[0].size {
            return Vec::new();
        }
        let name = page.name();
        vec![self.roost.series(&name), self.bare.series(format!("{name}: bare"))]
    }

    /// Returns the reads by the bare calls.
    fn add_to(
        self,
        section: &mut Section,
        name: &str,
        is_goal: bool,
        redis_cpu: Option<Duration>,
    ) -> f64 {
        let mut row = self.roost.row(name);
        if let Some(cpu) = redis_cpu {
            let each = cpu.as_secs_f64() * 1e6 / self.roost.count().max(1) as f64;
            row = row.with("Redis CPU a call", each, "µs");
        }
        section.rows.extend([row, self.bare.row(format!("{name}: bare"))]);
        let ratio = median(&self.ratios);
        section.ratios.push(Ratio {
            name: format!("reads/s ÷ bare calls/s, {name}"),
            value: ratio,
            goal: is_goal.then_some(Goal::AtLeast(0.7)),
        });
        ratio
    }
}
