//! Home timelines as streams: what comes, once, also over many of them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use roost::proto::v1::{
    BatchPublishPostsRequest, MuteRequest, Origin, PublishPostRequest, StreamHomeTimelineRequest,
    StreamHomeTimelineResponse, timeline_service_client::TimelineServiceClient,
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Endpoint};

use crate::server::{Roost, assert_bad_field, home_of, id_of_the_future, post};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_comes_with_the_posts_and_nothing_else_does() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    roost.publish(post(7, "before")).await;
    roost.delivered().await;
    let mut stream = Stream::open(&roost, of(1)).await;
    assert!(stream.message().await.post_ids.is_empty(), "the first one comes at once");
    roost.publish(post(8, "not followed")).await;
    let first = roost.publish(post(7, "first")).await;
    let message = stream.message().await;
    assert_eq!((&message.post_ids[..], &*message.posts[0].text), (&[first][..], "first"));
    let own = roost.publish(post(1, "my own")).await;
    assert_eq!(stream.message().await.post_ids, [own]);
    // What a follow brings along is older than the stream.
    let older = roost.publish(post(9, "older")).await;
    let second = roost.publish(post(7, "second")).await;
    assert_eq!(stream.message().await.post_ids, [second]);
    roost.follow(1, 9).await;
    assert_eq!(stream.message().await.post_ids, [older], "it is not: only what is settled is");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_many_streams_nothing_is_missed_and_nothing_comes_twice() {
    let roost = Roost::start().await;
    for author in 10..20 {
        roost.follow(1, author).await;
    }
    let mut stream = Stream::open(&roost, of(1)).await;
    let mut resume_token = stream.message().await.resume_token;
    drop(stream);
    let publishing = {
        let mut posts = roost.posts();
        tokio::spawn(async move {
            let mut published = Vec::new();
            for round in 0..60 {
                let requests: Vec<_> =
                    (10..20).map(|author| post(author, &format!("round {round}"))).collect();
                let batch = posts.batch_publish_posts(BatchPublishPostsRequest { requests });
                published.extend(batch.await.expect("published").into_inner().post_ids);
            }
            published
        })
    };
    let mut received = Vec::new();
    let mut streams = 0;
    while received.len() < 600 {
        let token = resume_token.clone();
        let request = StreamHomeTimelineRequest { resume_token: token, ids_only: true, ..of(1) };
        let mut stream = Stream::open(&roost, request).await;
        streams += 1;
        // Now and then what was received last is the empty first message.
        for _ in 0..streams % 3 + 1 {
            let message = stream.message().await;
            assert_eq!(message.missed_before_id, 0);
            received.extend(message.post_ids);
            resume_token = message.resume_token;
            if received.len() >= 600 {
                break;
            }
        }
    }
    let published = publishing.await.expect("published");
    let all: BTreeSet<u64> = published.iter().copied().collect();
    assert_eq!(received.iter().copied().collect::<BTreeSet<u64>>(), all);
    assert_eq!(received.len(), all.len(), "in {streams} streams");
    assert!(streams > 1);
    roost.stop().await;
}

/// None of them is settled meanwhile, and a timeline holds the newest 800 of them.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_posts_taken_promptly_raise_no_alarm() {
    let roost = Roost::start_with(|settings| settings.settled_after = 4 * DEADLINE).await;
    for author in 10..20 {
        roost.follow(1, author).await;
    }
    let mut stream = Stream::open(&roost, ids_of(1)).await;
    stream.message().await;
    let (mut published, mut received) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let requests: Vec<_> =
            (0..250).map(|number| post(10 + number % 10, &format!("round {round}"))).collect();
        let batch = roost.posts().batch_publish_posts(BatchPublishPostsRequest { requests }).await;
        published.extend(batch.expect("published").into_inner().post_ids);
        let mut resume_token = String::new();
        while received.len() < published.len() {
            let message = stream.message().await;
            assert_eq!(message.missed_before_id, 0, "after {}", received.len());
            received.extend(message.post_ids);
            resume_token = message.resume_token;
        }
        if round % 4 == 3 {
            stream =
                Stream::open(&roost, StreamHomeTimelineRequest { resume_token, ..ids_of(1) }).await;
        }
    }
    received.sort_unstable();
    assert!(received == published, "each comes once");
    // What is passed over is still said.
    let first = StreamHomeTimelineRequest { resume_after_id: published[0], ..ids_of(1) };
    let message = Stream::open(&roost, first).await.message().await;
    assert_eq!(message.missed_before_id, published[published.len() - 800]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_on_another_server_in_the_same_place() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    let mut stream = Stream::open(&roost, of(1)).await;
    stream.message().await;
    let first = roost.publish(post(7, "first")).await;
    let message = stream.message().await;
    assert_eq!(message.post_ids, [first]);
    let missed = roost.publish(post(7, "missed")).await;
    let roost = roost.restart().await;
    let resume_token = message.resume_token;
    let mut stream =
        Stream::open(&roost, StreamHomeTimelineRequest { resume_token, ..of(1) }).await;
    let mut received = stream.message().await.post_ids;
    if received.is_empty() {
        received = stream.message().await.post_ids;
    }
    assert_eq!(received, [missed]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_missed_too_much_is_told_from_where_on() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    let first = roost.publish(post(7, "the one that was received")).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        let requests = vec![post(7, "missed"); 100];
        let batch = roost.posts().batch_publish_posts(BatchPublishPostsRequest { requests }).await;
        ids.extend(batch.expect("published").into_inner().post_ids);
    }
    roost.delivered().await;
    let request = StreamHomeTimelineRequest { resume_after_id: first, ids_only: true, ..of(1) };
    let mut stream = Stream::open(&roost, request).await;
    let message = stream.message().await;
    assert_eq!(message.missed_before_id, ids[200]);
    let mut received = message.post_ids;
    while received.len() < 800 {
        let message = stream.message().await;
        assert_eq!(message.missed_before_id, 0);
        received.extend(message.post_ids);
    }
    assert_eq!(received, ids[200..]);
    // Not so where all of it can be sent.
    let request = StreamHomeTimelineRequest { resume_after_id: ids[299], ..of(1) };
    let mut stream = Stream::open(&roost, request).await;
    let mut received = Vec::new();
    while received.len() < 700 {
        let message = stream.message().await;
        assert_eq!((message.missed_before_id, message.posts.len()), (0, message.post_ids.len()));
        received.extend(message.post_ids);
    }
    assert_eq!(received, ids[300..]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_what_a_read_would() {
    let roost = Roost::start().await;
    for author in [7, 8] {
        roost.follow(1, author).await;
    }
    let muted = roost.graph().mute(MuteRequest { muter_id: 1, muted_id: 8 }).await;
    muted.expect("muted");
    let origins = vec![Origin::Exclusive.into()];
    let mut stream = Stream::open(&roost, StreamHomeTimelineRequest { origins, ..of(1) }).await;
    stream.message().await;
    let exclusive = |author| PublishPostRequest {
        origin: Origin::Exclusive.into(),
        ..post(author, "only here")
    };
    roost.publish(post(7, "shared")).await;
    roost.publish(exclusive(8)).await;
    let shown = roost.publish(exclusive(7)).await;
    assert_eq!(stream.message().await.post_ids, [shown]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_nobody_has_named_can_be_followed_until_somebody_does() {
    let roost = Roost::start().await;
    let mut stream = Stream::open(&roost, of(77)).await;
    assert!(stream.message().await.post_ids.is_empty());
    let own = roost.publish(post(77, "here I am")).await;
    assert_eq!(stream.message().await.post_ids, [own]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_server_stops() {
    let roost = Roost::start().await;
    let mut stream = Stream::open(&roost, of(1)).await;
    stream.message().await;
    let ended = tokio::spawn(async move {
        let ended = timeout(DEADLINE, stream.0.message()).await.expect("no end");
        ended.expect_err("it ends")
    });
    roost.stop().await;
    let status = ended.await.expect("ended");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_does_not_hold_up_a_stop() {
    let drain_max = 2 * DEADLINE;
    let roost = Roost::start_with(|settings| settings.drain_max = drain_max).await;
    roost.follow(1, 7).await;
    let narrow = Endpoint::from_shared(roost.url()).expect("an address");
    let narrow = narrow.initial_stream_window_size(1 << 10).connect().await.expect("connected");
    let mut stalled = TimelineServiceClient::new(narrow);
    let stalled = stalled.stream_home_timeline(of(1)).await.expect("a stream").into_inner();
    let mut stream = Stream::open(&roost, of(1)).await;
    stream.message().await;
    // One that is made and not taken, and one that is not made.
    for _ in 0..2 {
        let requests = vec![post(7, &"x".repeat(140)); 100];
        let batch = roost.posts().batch_publish_posts(BatchPublishPostsRequest { requests }).await;
        batch.expect("published");
        let mut received = 0;
        while received < 100 {
            received += stream.message().await.post_ids.len();
        }
    }
    drop(stream);
    let begun = Instant::now();
    // Another one has the same place: nothing of the first one is left.
    let roost = roost.restart().await;
    assert!(begun.elapsed() < DEADLINE, "after {:?}", begun.elapsed());
    drop(stalled);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_too_little_is_told_from_where_on_and_finds_the_rest() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    let narrow = Endpoint::from_shared(roost.url()).expect("an address");
    let narrow = narrow.initial_stream_window_size(1 << 10).connect().await.expect("connected");
    let mut slow = TimelineServiceClient::new(narrow);
    let slow = slow.stream_home_timeline(of(1)).await.expect("a stream").into_inner();
    let mut slow = Stream(slow);
    slow.message().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        let requests = vec![post(7, &"x".repeat(140)); 100];
        let batch = roost.posts().batch_publish_posts(BatchPublishPostsRequest { requests }).await;
        ids.extend(batch.expect("published").into_inner().post_ids);
    }
    roost.delivered().await;
    let (mut received, mut missed_before) = (Vec::new(), 0);
    while received.last() != ids.last() {
        let message = slow.message().await;
        missed_before = missed_before.max(message.missed_before_id);
        received.extend(message.post_ids);
    }
    assert!(missed_before > ids[0], "more than a stream keeps has come");
    let distinct: BTreeSet<u64> = received.iter().copied().collect();
    assert_eq!(distinct.len(), received.len(), "nothing comes twice");
    let due = ids.iter().filter(|id| **id >= missed_before);
    assert!(due.clone().count() >= 800 && due.clone().all(|id| distinct.contains(id)));
    let pages = roost.home_pages(home_of(1)).await;
    assert!(pages.iter().flat_map(|page| &page.post_ids).eq(ids.iter().rev()));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_too_many_is_refused_until_another_has_ended() {
    let roost = Roost::start_with(|settings| settings.home_streams_max = 2).await;
    let mut streams = [Stream::open(&roost, of(1)).await, Stream::open(&roost, of(2)).await];
    for stream in &mut streams {
        stream.message().await;
    }
    let refused = roost.timelines().stream_home_timeline(of(3)).await.expect_err("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("--home-stream-limit"), "{refused:?}");
    // What is wrong with a request is said first, and takes no room.
    assert_bad_field(roost.timelines().stream_home_timeline(of(0)).await, "user_id");
    drop(streams);
    let begun = Instant::now();
    while let Err(refused) = roost.timelines().stream_home_timeline(of(3)).await {
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(begun.elapsed() < DEADLINE, "no room is given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_nowhere_but_where_one_can() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    let token = Stream::open(&roost, of(1)).await.message().await.resume_token;
    let with_token = |user_id, resume_token: &str| StreamHomeTimelineRequest {
        resume_token: resume_token.to_owned(),
        ..of(user_id)
    };
    let after = |resume_after_id| StreamHomeTimelineRequest { resume_after_id, ..of(1) };
    for (field, refused) in [
        ("user_id", of(0)),
        ("resume_token", with_token(2, &token)),
        ("resume_token", with_token(1, &token[1..])),
        ("resume_token", with_token(1, "here")),
        ("resume_after_id", after(u64::MAX)),
        ("resume_after_id", after(id_of_the_future())),
        (
            "resume_after_id",
            StreamHomeTimelineRequest { resume_after_id: 7, ..with_token(1, &token) },
        ),
        ("origins", StreamHomeTimelineRequest { origins: vec![99], ..of(1) }),
    ] {
        assert_bad_field(roost.timelines().stream_home_timeline(refused).await, field);
    }
    roost.stop().await;
}

fn ids_of(user_id: u64) -> StreamHomeTimelineRequest {
    StreamHomeTimelineRequest { ids_only: true, ..of(user_id) }
}

pub fn of(user_id: u64) -> StreamHomeTimelineRequest {
    StreamHomeTimelineRequest { user_id, ..StreamHomeTimelineRequest::default() }
}

pub struct Stream(Streaming<StreamHomeTimelineResponse>);

impl Stream {
    pub async fn open(roost: &Roost, request: StreamHomeTimelineRequest) -> Self {
        let stream: Result<_, Status> = roost.timelines().stream_home_timeline(request).await;
        Self(stream.expect("a stream").into_inner())
    }

    pub async fn message(&mut self) -> StreamHomeTimelineResponse {
        let message = timeout(DEADLINE, self.0.message()).await.expect("no message in time");
        message.expect("not broken").expect("not ended")
    }
}
