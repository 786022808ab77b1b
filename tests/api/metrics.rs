//! What an operator sees over HTTP.

use std::time::{Duration, Instant};

use crate::server::Roost;

const DEADLINE: Duration = Duration::from_secs(30);

/// The sum of the series of a metric whose labels have `labels` in them.
pub fn sum(text: &str, name: &str, labels: &str) -> f64 {
    let series = text.lines().filter_map(|line| line.rsplit_once(' '));
    let named = series
        .filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(labels));
    named.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
}

/// Scrapes until the workers are seen to have nothing left to do.
async fn scrape_at_rest(roost: &Roost) -> String {
    let (begun, events) = (Instant::now(), roost.event_count().await as f64);
    loop {
        let (status, text) = roost.get("/metrics").await;
        assert_eq!(status, 200);
        let lag =
            sum(&text, "roost_apply_lag_events", "") + sum(&text, "roost_delivery_lag_events", "");
        if sum(&text, "roost_log_end_offset", "") == events && lag == 0.0 {
            return text;
        }
        assert!(begun.elapsed() < DEADLINE, "not at rest:\n{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_was_done() {
    let roost = Roost::start_with_metrics().await;
    for reader in [1, 2, 3] {
        roost.follow(reader, 9).await;
    }
    // Two are awake, and 3 sleeps; so does 9 itself.
    roost.home(1).await;
    roost.home(2).await;
    roost.publish_many(9, 5).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids.len(), 5);

    let text = scrape_at_rest(&roost).await;
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (name, labels, value) in [
        ("roost_deliveries_total", "", 10.0),
        ("roost_skipped_deliveries_total", "", 10.0),
        ("roost_events_total", "", 8.0),
        ("roost_log_end_offset", "", 8.0),
        ("roost_delivery_delay_seconds_count", "", 5.0),
        ("roost_push_values_sum", "", 20.0),
        ("roost_round_deliveries_sum", "", 20.0),
        ("roost_checked_pushes_total", "", 0.0),
        ("roost_workers", "", 4.0),
        ("roost_fanouts_in_progress", "", 0.0),
        ("roost_append_seconds_count", "", 8.0),
        ("roost_writes_in_flight_bytes", "", 0.0),
        ("roost_grpc_call_seconds_count", "PublishPost\",code=\"ok\"", 5.0),
        ("roost_grpc_calls_in_progress", "", 0.0),
    ] {
        assert_eq!(sum(&text, name, labels), value, "{name} of\n{text}");
    }
    let rounds = sum(&text, "roost_round_seconds_count", "");
    assert!((1.0..=5.0).contains(&rounds), "{rounds} rounds");
    assert_eq!(rounds, sum(&text, "roost_round_deliveries_count", ""));
    let pushes = sum(&text, "roost_pushes_total", "");
    assert_eq!(pushes * 2.0, sum(&text, "roost_push_values_count", ""));
    for partition in 0..4 {
        let label = format!("partition=\"{partition}\"");
        assert!(text.contains(&format!("roost_delivery_lag_events{{{label}}} 0")), "{text}");
    }
    // Before the first, so that it is seen to be one more.
    assert!(text.contains("roost_worker_failures_total{kind=\"event\"} 0"), "{text}");
    assert!(sum(&text, "process_resident_memory_bytes", "") > 1e6, "{text}");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_is_counted_with_its_code_and_a_made_up_one_under_other() {
    let roost = Roost::start_with_metrics().await;
    roost.try_publish(crate::server::post(0, "nobody")).await.expect_err("refused");
    let path = "/roost.v1.PostService/MakeCoffee".parse().expect("a path");
    let mut client = tonic::client::Grpc::new(roost.channel());
    client.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.unary(tonic::Request::new(()), path, codec).await.expect_err("unknown");
    let (_, text) = roost.get("/metrics").await;
    for labels in ["PublishPost\",code=\"invalid_argument\"", "\"other\",code=\"unimplemented\""] {
        assert_eq!(sum(&text, "roost_grpc_call_seconds_count", labels), 1.0, "{text}");
    }
    assert!(!text.contains("MakeCoffee"), "{text}");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_and_ready_once_it_serves() {
    let roost = Roost::start_with_metrics().await;
    assert_eq!(roost.get("/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(roost.get("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(roost.get("/").await.0, 404);
    roost.stop().await;
}
