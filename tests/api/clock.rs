//! Clocks that are wrong, or were.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use roost::{
    app::Settings,
    proto::v1::StreamHomeTimelineRequest,
    writes::{Clock, system_clock},
};
use tonic::Code;

use crate::{
    server::{DEADLINE, Roost, post},
    stream::{Stream, of},
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[tokio::test(flavor = "multi_thread")]
async fn ids_three_days_ahead_are_said_and_streams_go_on() {
    let roost = Roost::start_with(ahead(3 * DAY)).await;
    roost.follow(1, 7).await;
    roost.publish_many(7, 5).await;
    let roost = roost.restart_with(ahead(Duration::ZERO)).await;
    let said = readyz_with(&roost, "2 d 23 h after the clock").await;
    assert!(said.starts_with("ready\n"), "{said}");
    let metrics = roost.get("/metrics").await.1;
    let line = metrics.lines().find_map(|line| line.strip_prefix("roost_ids_ahead_seconds "));
    let seconds: f64 = line.expect("the metric").parse().expect("a number");
    assert!((2 * DAY..3 * DAY).contains(&Duration::from_secs_f64(seconds)), "{seconds}");

    let mut stream = Stream::open(&roost, of(1)).await;
    let mut resume_token = stream.message().await.resume_token;
    for text in ["first", "second"] {
        let id = roost.publish(post(7, text)).await;
        let message = stream.message().await;
        assert_eq!((message.post_ids, message.missed_before_id), (vec![id], 0));
        resume_token = message.resume_token;
    }
    drop(stream);
    let missed = roost.publish(post(7, "missed")).await;
    roost.delivered().await;
    let mut stream =
        Stream::open(&roost, StreamHomeTimelineRequest { resume_token, ..of(1) }).await;
    assert_eq!(stream.message().await.post_ids, [missed]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_a_month_ahead_stop_publishing_and_not_reads() {
    let roost = Roost::start_with(ahead(30 * DAY)).await;
    let there = roost.publish(post(7, "of next month")).await;
    roost.delivered().await;
    let roost = roost.restart_with(ahead(Duration::ZERO)).await;
    let refused = roost.try_publish(post(7, "x")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("--clock-jump-limit"), "{refused:?}");
    assert_eq!(roost.home(7).await.post_ids, [there]);
    readyz_with(&roost, "nothing is published").await;
    // An operator who accepts it goes on.
    let roost = roost.restart_with(|settings| settings.clock_jump_max = 31 * DAY).await;
    assert!(roost.publish(post(7, "y")).await > there);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_clock_that_jumps_stops_publishing_until_it_is_right() {
    let offset_ms = Arc::new(AtomicI64::new(0));
    let clock = Clock::new({
        let (system, offset_ms) = (system_clock(), Arc::clone(&offset_ms));
        move || system.unix_ms().saturating_add_signed(offset_ms.load(Ordering::Relaxed))
    });
    let roost = Roost::start_with(|settings| settings.clock = clock).await;
    let first = roost.publish(post(7, "first")).await;
    roost.delivered().await;
    let month_ms = (30 * DAY).as_millis() as i64;
    for jump in [month_ms, -month_ms, i64::MAX, i64::MIN] {
        offset_ms.store(jump, Ordering::Relaxed);
        let refused = roost.try_publish(post(7, "x")).await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unavailable, "{jump}: {refused:?}");
    }
    assert_eq!(roost.home(7).await.post_ids, [first]);
    offset_ms.store(0, Ordering::Relaxed);
    let second = roost.publish(post(7, "second")).await;
    assert!(second - first < 1 << 42, "{second} is about now");
    roost.stop().await;
}

/// Its own clock must not make it take the posts of others for old ones.
#[tokio::test(flavor = "multi_thread")]
async fn node_with_clock_ahead_streams_posts_of_others() {
    let ahead_by_an_hour = Roost::start_with(ahead(HOUR)).await;
    if ahead_by_an_hour.is_alone() {
        return ahead_by_an_hour.stop().await;
    }
    ahead_by_an_hour.follow(1, 7).await;
    let right = ahead_by_an_hour.beside(ahead(Duration::ZERO)).await;
    readyz_with(&ahead_by_an_hour, "ahead of that of Redis").await;
    let mut streams =
        [Stream::open(&ahead_by_an_hour, of(1)).await, Stream::open(&right, of(1)).await];
    for stream in &mut streams {
        stream.message().await;
    }
    // Later than any of those that the other one publishes.
    let future = ahead_by_an_hour.publish(post(7, "of the future")).await;
    let now = right.publish(post(7, "of now")).await;
    assert!(now < future);
    for stream in &mut streams {
        let mut received = Vec::new();
        while received.len() < 2 {
            let message = stream.message().await;
            assert_eq!(message.missed_before_id, 0);
            received.extend(message.post_ids);
        }
        received.sort_unstable();
        assert_eq!(received, [now, future]);
    }
    right.stop().await;
    ahead_by_an_hour.stop().await;
}

/// A clock that is so far ahead, and a metrics listener.
fn ahead(by: Duration) -> impl FnOnce(&mut Settings) {
    move |settings| {
        let system = system_clock();
        settings.clock = Clock::new(move || system.unix_ms() + by.as_millis() as u64);
        settings.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    }
}

/// What readiness says once it says this.
async fn readyz_with(roost: &Roost, part: &str) -> String {
    let begun = Instant::now();
    loop {
        let (status, text) = roost.get("/readyz").await;
        assert_eq!(status, 200, "{text}");
        if text.contains(part) {
            return text;
        }
        assert!(begun.elapsed() < DEADLINE, "{part:?} is not in {text:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
