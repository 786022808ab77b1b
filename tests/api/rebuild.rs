//! A store that is dropped and made again from the log, on every backend.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::server::{Roost, home_of, post};

const DEADLINE: Duration = Duration::from_secs(60);

/// A Roost with something of everything.
async fn lived_in() -> Roost {
    let roost = Roost::start().await;
    for reader in 1..=5 {
        roost.follow(reader, 10).await;
        roost.follow(reader, 11).await;
    }
    roost.home(1).await;
    let of_10 = roost.publish_many(10, 20).await;
    roost.publish_many(11, 5).await;
    roost.delete(of_10[3]).await;
    roost.unfollow(2, 10).await;
    roost.delivered().await;
    roost
}

/// What its readers and authors see.
async fn everything(roost: &Roost) -> Vec<Vec<u64>> {
    let mut seen = Vec::new();
    for account in [1, 2, 3, 4, 5, 10, 11] {
        seen.push(roost.home(account).await.post_ids);
        seen.push(roost.author(account).await.post_ids);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_store_answers_as_before() {
    let roost = lived_in().await;
    let before = everything(&roost).await;
    let events = roost.event_count().await;
    let (rebuilt, roost) = roost.rebuild().await;
    assert_eq!((rebuilt.events, rebuilt.partitions), (events, 4));
    assert_eq!(everything(&roost).await, before);
    roost.publish_many(10, 1).await;
    roost.delivered().await;
    assert_eq!(roost.home(3).await.post_ids.len(), before[4].len() + 1);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_processes_share_is_rebuilt_while_they_serve() {
    let roost = lived_in().await;
    if roost.is_alone() {
        return roost.stop().await;
    }
    let mut before = everything(&roost).await;
    roost.set_key("session:7", "of somebody else").await;
    roost.rebuild_beside().await.expect("rebuilt");
    // Written meanwhile or after: nothing of it is lost.
    let post = roost.publish_many(11, 1).await[0];
    let begun = Instant::now();
    while let Err(status) = roost.timelines().list_home_timeline(home_of(1)).await {
        assert!(begun.elapsed() < DEADLINE, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    roost.delivered().await;
    // The author's own timelines, and those of its five followers.
    for seen in [0, 2, 4, 6, 8, 12, 13] {
        before[seen].insert(0, post);
    }
    assert_eq!(everything(&roost).await, before);
    assert_eq!(roost.key("session:7").await.as_deref(), Some("of somebody else"));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_log_or_of_nobody_knows_which_is_not_touched() {
    let roost = lived_in().await;
    if roost.is_alone() {
        return roost.stop().await;
    }
    let before = everything(&roost).await;
    roost.set_field("roost:store", "log", "another-topic").await;
    let error = roost.rebuild_beside().await.expect_err("refused").to_string();
    assert!(error.contains("belongs to another log"), "{error}");
    roost.delete_key("roost:store").await;
    let error = roost.rebuild_beside().await.expect_err("refused").to_string();
    assert!(error.contains("no \"roost:store\""), "{error}");
    assert_eq!(everything(&roost).await, before);
    roost.stop().await;
}

/// What came into the log there would be taken for what the store has seen.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_starts_on_a_store_that_has_seen_more_than_is_in_the_log() {
    let roost = Roost::start().await;
    roost.publish_many(10, 20).await;
    roost.delivered().await;
    let error = roost.restart_behind_its_store().await.to_string();
    assert!(error.contains("the store holds events up to"), "{error}");
    assert!(error.contains("roost rebuild"), "{error}");
}

/// A log that is made anew under the same name begins at 0, below what the store has seen.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_no_worker_would_come_to() {
    let roost = Roost::start().await;
    if roost.is_alone() {
        return roost.stop().await;
    }
    roost.publish_many(7, 5).await;
    roost.delivered().await;
    roost.drop_log().await;
    // Whoever starts now does not make another one.
    let error = roost.start_beside().await.to_string();
    assert!(error.contains("there is no topic") && error.contains("Redis holds"), "{error}");
    let error = roost.rebuild_beside().await.expect_err("no log").to_string();
    assert!(error.contains("there is no topic"), "{error}");

    roost.make_log().await;
    let begun = Instant::now();
    loop {
        let status = roost.try_publish(post(7, "lost")).await.expect_err("not acknowledged");
        if status.code() == Code::DataLoss {
            assert!(status.message().contains("made anew"), "{status}");
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Of other partitions neither.
    let status = roost.try_publish(post(8, "lost")).await.expect_err("not acknowledged");
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    let error = roost.start_beside().await.to_string();
    assert!(error.contains("the store holds events up to"), "{error}");
}
