//! *mixed*: reads of home timelines and of authors, and posts, in the shares in which
//! DeathStarBench drives its social network.
//!
//! As there, of ten calls six read a home timeline, three an author's, and one posts; a
//! read asks for ten posts and is answered with them. There a read begins anywhere in the
//! first hundred posts and all read alike; here it begins at the newest, and a few read
//! much. There a post has 256 characters, here 140.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tonic::transport::Channel;

use super::{
    BenchError, Plot, Row, Section,
    audience::{Audience, CALLER_STRIDE},
    closed_loop::{self, Answered, Calls, Turn},
    ground::Ground,
    roost::Roost,
    serving::Serving,
    town::Town,
};
use crate::{
    client::ClientError,
    domain::UserId,
    proto::v1::{
        ListAuthorTimelineRequest, ListHomeTimelineRequest, PublishPostRequest,
        post_service_client::PostServiceClient, timeline_service_client::TimelineServiceClient,
    },
    store::Store,
};

/// Calls under way at once.
const CALLERS: usize = 64;
/// Posts on a page.
const PAGE_SIZE: i32 = 10;
/// So many turns long, as turns of other scenarios go.
const TURNS: u32 = 10;

const KINDS: [&str; 3] = ["home reads", "author reads", "posts"];
const HOME: usize = 0;
const AUTHOR: usize = 1;
const POST: usize = 2;
/// What one caller does, again and again; each begins elsewhere.
const SHARES: [usize; 10] = [HOME, AUTHOR, HOME, HOME, POST, HOME, AUTHOR, HOME, AUTHOR, HOME];

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let (town, turn) = (ground.town().await?, ground.settings.turn);
    ground.say("reading and posting, embedded");
    let dir = ground.dir()?;
    let roost = Roost::embedded(&dir, ground.settings.partitions)?;
    let embedded = of_store("embedded", roost, &town, turn).await?;
    ground.say("reading and posting, Redis");
    let roost = ground.roost().await?;
    let redis = of_store("Redis", roost, &town, turn).await?;
    Ok(vec![embedded, redis])
}

/// Measures a Roost with an empty log and store.
async fn of_store<S: Store>(
    name: &str,
    mut roost: Roost<S>,
    town: &Town,
    turn: Duration,
) -> Result<Section, BenchError> {
    let audience = Arc::new(Audience::of(town));
    audience.seat(&mut roost, town).await?;
    let posts: Arc<[PublishPostRequest]> =
        town.posts().iter().map(|post| town.request(*post)).collect();
    let serving = Serving::roost(roost.api().await).await?;
    let channels = serving.connect().await?;
    let kinds = call(&channels, &audience, &posts, turn * TURNS).await?;
    drop(channels);
    serving.stop().await?;
    roost.stop().await?;
    let all: f64 = kinds.iter().map(Calls::rate).sum();
    let rows = KINDS.iter().zip(&kinds).map(|(kind, calls)| calls.row(*kind));
    Ok(Section {
        name: format!("mixed, {name}"),
        about: format!(
            "{CALLERS} calls under way at once: 6 of 10 read a home timeline, 3 an author's, each \
             {PAGE_SIZE} posts, and 1 publishes, which the workers deliver meanwhile."
        ),
        rows: [Row::new("all").with("calls", all, "/s")].into_iter().chain(rows).collect(),
        plots: vec![Plot::of_latencies(
            "Call to answer",
            "share of the calls",
            KINDS.iter().zip(&kinds).map(|(kind, calls)| calls.series(*kind)).collect(),
        )],
        ..Section::default()
    })
}

async fn call(
    channels: &[Channel],
    audience: &Arc<Audience>,
    posts: &Arc<[PublishPostRequest]>,
    time: Duration,
) -> Result<[Calls; 3], BenchError> {
    let (audience, posts) = (Arc::clone(audience), Arc::clone(posts));
    let channels: Arc<[Channel]> = channels.into();
    closed_loop::run(CALLERS, time, move |turn| {
        let channel = channels[turn.caller % channels.len()].clone();
        let reader = audience.reader(turn);
        // Those who post much are read much.
        let (posts, place) = (Arc::clone(&posts), turn.caller * CALLER_STRIDE + turn.number);
        async move {
            let kind = SHARES[(turn.caller + turn.number) % SHARES.len()];
            let post = &posts[place % posts.len()];
            let bytes = one_call(kind, channel, reader, post, turn).await?;
            Ok(Answered { kind, bytes })
        }
    })
    .await
}

/// Makes one call, and says how long the answer is.
async fn one_call(
    kind: usize,
    channel: Channel,
    reader: UserId,
    post: &PublishPostRequest,
    turn: Turn,
) -> Result<usize, ClientError> {
    let bytes = match kind {
        HOME => {
            let request = ListHomeTimelineRequest {
                user_id: reader.0,
                page_size: PAGE_SIZE,
                ..Default::default()
            };
            let answer = TimelineServiceClient::new(channel).list_home_timeline(request).await?;
            answer.into_inner().encoded_len()
        }
        AUTHOR => {
            let request = ListAuthorTimelineRequest {
                author_id: post.author_id,
                page_size: PAGE_SIZE,
                ..Default::default()
            };
            let answer = TimelineServiceClient::new(channel).list_author_timeline(request).await?;
            answer.into_inner().encoded_len()
        }
        _ => {
            let request_id = format!("{}-{}", turn.caller, turn.number);
            let request = PublishPostRequest { request_id, ..post.clone() };
            let answer = PostServiceClient::new(channel).publish_post(request).await?;
            answer.into_inner().encoded_len()
        }
    };
    Ok(bytes)
}
