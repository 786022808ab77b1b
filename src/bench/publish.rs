//! *publish*: posts over `StreamBatchPublishPosts` and `StreamPublishPosts` into Kafka, beside
//! a bare producer of librdkafka with the same settings, the same payloads and a topic of the
//! same shape.
//!
//! ```text
//!  streams ──► API ──► producer ──► topic          in turns with
//!              payloads ──► producer ──► other topic
//! ```
//!
//! No worker runs: they would take the posts from the processors as well.

mod bare;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Instant,
};

use futures::{FutureExt, future, stream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::bare::Bare;
use super::{
    Axis, BenchError, Goal, Plot, Ratio, Row, Scale, Section, Series,
    ground::Ground,
    redis::BenchRedis,
    report::median,
    town::{Town, TownPost},
    workspace::dir_in,
};
use crate::{
    app::{self, App, Backend, Roles},
    client::{ClientError, Target},
    event_log::kafka,
    proto::v1::{
        BatchPublishPostsRequest, PublishPostRequest, post_service_client::PostServiceClient,
        stream_publish_posts_response::Result as Answer,
    },
};

/// Streams at once, each on a connection of its own.
const STREAMS: usize = 4;
/// So often each takes a turn, after one to warm up.
const ROUNDS: usize = 7;
/// With request ids one of so many of a turn's posts is published: an API remembers a million
/// ids that no worker has applied.
const NAMED_ONE_OF: usize = 4;

/// How posts are published.
struct Way {
    name: &'static str,
    /// Posts to a message of `StreamBatchPublishPosts`; `None`: by `StreamPublishPosts`.
    batch: Option<usize>,
    /// Whether each has a request id.
    is_named: bool,
}

const WAYS: [Way; 3] = [
    Way { name: "Roost, 256 to a message", batch: Some(256), is_named: false },
    Way { name: "Roost, one by one", batch: None, is_named: false },
    Way { name: "Roost, 256 to a message, request ids", batch: Some(256), is_named: true },
];

/// Not where the logs are embedded.
pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let (Some(roost), Some(bare)) = (ground.logs.new_topic(), ground.logs.new_topic()) else {
        let why = "the event log is the embedded one, and no bare producer stands beside it";
        return Ok(vec![Section::not_measured("publish", why)]);
    };
    let (town, turn_posts) = (ground.town().await?, ground.settings.turn_posts);
    ground.say("publishing, Kafka");
    let redis = &ground.redis;
    redis.empty().await?;
    let posts: Vec<TownPost> = town.posts_for_ever().take(turn_posts).collect();
    let named_posts = posts.len().div_ceil(NAMED_ONE_OF);
    let mut bare = Bare::open(bare, &town, turn_posts).await?;
    let mut api = RunningApi::start(roost, redis, &ground.settings.workspace).await?;
    let mut bare_rates = Vec::new();
    let mut way_rates = WAYS.map(|_| Vec::new());
    for round in 0..=ROUNDS {
        let bare_rate = bare.turn().await?;
        let mut rates = Vec::new();
        for way in &WAYS {
            let posts = if way.is_named { &posts[..named_posts] } else { &posts };
            rates.push(api.turn(way, &town, posts, round).await?);
        }
        if round > 0 {
            bare_rates.push(bare_rate);
            way_rates.iter_mut().zip(rates).for_each(|(of_way, rate)| of_way.push(rate));
        }
    }
    api.stop().await?;
    redis.empty().await?;
    let row = |name: &str, rates: &[f64]| Row::new(name).with("posts", median(rates), "/s");
    let ways = WAYS.iter().zip(&way_rates);
    let curve = |name: &str, rates: &[f64]| {
        Series::new(name, (1..).zip(rates).map(|(turn, rate)| (f64::from(turn), *rate)).collect())
    };
    let mut curves: Vec<Series> = ways.clone().map(|(way, rates)| curve(way.name, rates)).collect();
    curves.push(curve("bare producer", &bare_rates));
    let mut rows: Vec<Row> = ways.clone().map(|(way, rates)| row(way.name, rates)).collect();
    rows.push(row("bare producer", &bare_rates));
    let ratio_of = |(way, rates): (&Way, &Vec<f64>)| {
        let ratios: Vec<f64> =
            rates.iter().zip(&bare_rates).map(|(way, bare)| way / bare).collect();
        let name = format!("posts/s, {} ÷ bare producer", way.name);
        // The bare producer asks nobody whether it has sent a post before.
        Ratio { name, value: median(&ratios), goal: Goal::AtLeast(0.8).only_if(!way.is_named) }
    };
    Ok(vec![Section {
        name: "publish, Kafka".to_owned(),
        about: format!(
            "{turn_posts} posts a turn over {STREAMS} streams until all are acknowledged, and in \
             turns with them a bare producer that sends as many of the same payloads and waits \
             for the last acknowledgement; with request ids {named_posts} of them. Medians of \
             {ROUNDS} turns."
        ),
        rows,
        ratios: ways.map(ratio_of).collect(),
        plots: vec![Plot {
            title: "Turn by turn".to_owned(),
            x: Axis { name: "turn", unit: "", scale: Scale::Linear },
            y: Axis { name: "posts", unit: "/s", scale: Scale::Linear },
            series: curves,
        }],
        ..Section::default()
    }])
}

/// An API without workers.
struct RunningApi {
    app: App,
    channels: Vec<Channel>,
    _dir: tempfile::TempDir,
}

impl RunningApi {
    async fn start(
        kafka: kafka::Settings,
        redis: &BenchRedis,
        workspace: &Path,
    ) -> Result<Self, BenchError> {
        let dir = dir_in(workspace)?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = app::Settings {
            backend: Backend::Shared { kafka: Box::new(kafka), redis: redis.config() },
            roles: Roles { api: true, worker: false },
            ..app::Settings::new(dir.path().to_owned(), listen)
        };
        let app = App::start(settings, &CancellationToken::new()).await?;
        let target = Target::new(format!("http://{}", app.address()));
        let mut channels = Vec::new();
        for _ in 0..STREAMS {
            channels.push(target.connect().await?);
        }
        Ok(Self { app, channels, _dir: dir })
    }

    /// Publishes posts of a town, and returns how many a second. Request ids are those of the
    /// round.
    async fn turn(
        &mut self,
        way: &Way,
        town: &Town,
        posts: &[TownPost],
        round: usize,
    ) -> Result<f64, BenchError> {
        let request = |place: usize| {
            let request_id = way.is_named.then(|| format!("{round}-{place}"));
            let request = town.request(posts[place]);
            PublishPostRequest { request_id: request_id.unwrap_or_default(), ..request }
        };
        let lanes: Vec<(Channel, Vec<PublishPostRequest>)> = self
            .channels
            .iter()
            .enumerate()
            .map(|(lane, channel)| {
                let places = (lane..posts.len()).step_by(STREAMS);
                (channel.clone(), places.map(request).collect())
            })
            .collect();
        let begun = Instant::now();
        let streams = lanes.into_iter().map(|(channel, posts)| match way.batch {
            Some(batch) => tokio::spawn(publish_batches(channel, posts, batch)).boxed(),
            None => tokio::spawn(publish(channel, posts)).boxed(),
        });
        let mut made = 0;
        for done in future::join_all(streams).await {
            made += done.map_err(|_| BenchError::Panicked)??;
        }
        if made != posts.len() {
            return Err(BenchError::Unacknowledged);
        }
        Ok(made as f64 / begun.elapsed().as_secs_f64())
    }

    async fn stop(self) -> Result<(), BenchError> {
        drop(self.channels);
        Ok(self.app.stop().await?)
    }
}

/// Publishes on one stream, and returns how many posts have an id.
async fn publish(channel: Channel, posts: Vec<PublishPostRequest>) -> Result<usize, BenchError> {
    let mut client = PostServiceClient::new(channel);
    let answers = client.stream_publish_posts(stream::iter(posts)).await;
    let mut answers = answers.map_err(ClientError::from)?.into_inner();
    let mut made = 0;
    while let Some(answer) = answers.message().await.map_err(ClientError::from)? {
        match answer.result {
            Some(Answer::PostId(_)) => made += 1,
            Some(Answer::Error(error)) => return Err(BenchError::Refused(error.message)),
            None => {}
        }
    }
    Ok(made)
}

/// The same, with so many posts to a message.
async fn publish_batches(
    channel: Channel,
    posts: Vec<PublishPostRequest>,
    batch: usize,
) -> Result<usize, BenchError> {
    let mut posts = posts.into_iter();
    let messages = std::iter::from_fn(move || {
        let requests: Vec<PublishPostRequest> = posts.by_ref().take(batch).collect();
        (!requests.is_empty()).then_some(BatchPublishPostsRequest { requests })
    });
    let mut client = PostServiceClient::new(channel);
    let answers = client.stream_batch_publish_posts(stream::iter(messages)).await;
    let mut answers = answers.map_err(ClientError::from)?.into_inner();
    let mut made = 0;
    while let Some(mut answer) = answers.message().await.map_err(ClientError::from)? {
        if let Some(refused) = answer.refused_posts.pop() {
            return Err(BenchError::Refused(refused.error.unwrap_or_default().message));
        }
        made += answer.post_ids.len();
    }
    Ok(made)
}
