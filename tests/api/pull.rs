//! Authors who are pulled by reads.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roost::proto::v1::{
    Delivery, ListPulledAuthorsRequest, SetDeliveryRequest, StreamHomeTimelineRequest,
};
use tokio::time::timeout;

use crate::server::{DEADLINE, Roost, assert_bad_field, home_of, post};

/// How often an author is switched while it posts.
const SWITCHES: usize = 100;

async fn set(roost: &Roost, author_id: u64, delivery: Delivery) {
    let request = SetDeliveryRequest { author_id, delivery: delivery.into() };
    assert!(roost.graph().set_delivery(request).await.expect("set").into_inner().applied);
}

async fn pulled(roost: &Roost) -> Vec<u64> {
    let request = ListPulledAuthorsRequest {};
    roost.graph().list_pulled_authors(request).await.expect("listed").into_inner().author_ids
}

/// Waits until these are the authors who are pulled.
async fn until_pulled(roost: &Roost, authors: &[u64]) {
    let wait = async {
        while pulled(roost).await != authors {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not only {authors:?} are pulled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_of_a_pulled_author_are_read_like_all_others() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    roost.follow(1, 8).await;
    let before = roost.publish(post(7, "pushed")).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids, [before]);
    set(&roost, 7, Delivery::Pull).await;
    let other = roost.publish(post(8, "another")).await;
    let during = roost.publish(post(7, "pulled")).await;
    let deleted = roost.publish(post(7, "soon gone")).await;
    roost.delivered().await;
    assert_eq!(pulled(&roost).await, [7]);
    assert_eq!(roost.home(1).await.post_ids, [deleted, during, other, before]);
    // The author reads its own; who does not follow it does not.
    assert_eq!(roost.home(7).await.post_ids, [deleted, during, before]);
    assert_eq!(roost.home(8).await.post_ids, [other]);
    roost.delete(deleted).await;
    assert_eq!(roost.home(1).await.post_ids, [during, other, before]);
    roost.unfollow(1, 7).await;
    assert_eq!(roost.home(1).await.post_ids, [other]);
    roost.follow(1, 7).await;

    let roost = roost.restart().await;
    assert_eq!(pulled(&roost).await, [7]);
    assert_eq!(roost.home(1).await.post_ids, [during, other, before]);
    set(&roost, 7, Delivery::Push).await;
    let after = roost.publish(post(7, "pushed again")).await;
    roost.delivered().await;
    let all = [after, during, other, before];
    assert_eq!(roost.home(1).await.post_ids, all);
    let roost = roost.restart().await;
    assert_eq!(pulled(&roost).await, [0; 0]);
    assert_eq!(roost.home(1).await.post_ids, all);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_size_hold_what_is_pulled_and_what_is_pushed() {
    const CAP: usize = 10;
    let roost = Roost::start_with_cap(CAP).await;
    for author in [7, 8, 9] {
        roost.follow(1, author).await;
    }
    roost.home(1).await;
    set(&roost, 7, Delivery::Pull).await;
    let mut expected = Vec::new();
    for number in 0..3 * CAP as u64 {
        expected.insert(0, roost.publish(post(7 + number % 3, "hello")).await);
    }
    roost.delivered().await;
    for page_size in [1, 4, 800] {
        let request = roost::proto::v1::ListHomeTimelineRequest { page_size, ..home_of(1) };
        let pages = roost.home_pages(request).await;
        let ids: Vec<u64> = pages.into_iter().flat_map(|page| page.post_ids).collect();
        assert_eq!(ids, expected, "in pages of {page_size}");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_a_hundred_times_while_it_posts_an_author_is_missed_and_repeated_nowhere() {
    let roost = Arc::new(Roost::start().await);
    let readers = 1..=20;
    for reader in readers.clone() {
        roost.follow(reader, 100).await;
        roost.follow(reader, 101).await;
        // Half of them are awake.
        if reader % 2 == 0 {
            roost.home(reader).await;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let published = Arc::new(Mutex::new(Vec::new()));
    let posting = [100, 101].map(|author| {
        let (roost, stop) = (Arc::clone(&roost), Arc::clone(&stop));
        let published = Arc::clone(&published);
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let id = roost.publish(post(author, "hello")).await;
                published.lock().expect("whole").push(id);
            }
        })
    });
    let reading = {
        let (roost, stop) = (Arc::clone(&roost), Arc::clone(&stop));
        let (published, mut readers) = (Arc::clone(&published), readers.clone().cycle());
        tokio::spawn(async move {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let delivered = published.lock().expect("whole").clone();
                roost.delivered_so_far().await;
                let reader = readers.next().expect("they begin again");
                assert_nothing_missing(&roost.home(reader).await.post_ids, &delivered);
                reads += 1;
            }
            reads
        })
    };
    for switch in 0..SWITCHES {
        let delivery = if switch % 2 == 0 { Delivery::Pull } else { Delivery::Push };
        set(&roost, 100, delivery).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in posting {
        task.await.expect("it has posted");
    }
    assert!(reading.await.expect("every read has everything") > 0);
    let mut expected = published.lock().expect("whole").clone();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    roost.delivered().await;
    for reader in readers {
        let pages = roost.home_pages(home_of(reader)).await;
        let ids: Vec<u64> = pages.into_iter().flat_map(|page| page.post_ids).collect();
        assert_eq!(ids, expected, "of {reader}");
    }
    Arc::into_inner(roost).expect("nobody else has it").stop().await;
}

/// A page of the newest posts, read while more come: in order, nothing twice, and all of
/// those that were delivered before, down to where it ends.
fn assert_nothing_missing(page: &[u64], delivered: &[u64]) {
    assert!(page.is_sorted_by(|newer, older| newer > older), "{page:?}");
    let oldest = page.last().copied().filter(|_| page.len() == 800).unwrap_or(0);
    let missing: Vec<&u64> =
        delivered.iter().filter(|id| **id >= oldest && !page.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?} of {} are missing in {page:?}", delivered.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sends_what_is_pulled() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    set(&roost, 7, Delivery::Pull).await;
    roost.delivered().await;
    let request = StreamHomeTimelineRequest { user_id: 1, ..Default::default() };
    let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
    let mut stream = stream.into_inner();
    stream.message().await.expect("a first message");
    let new = roost.publish(post(7, "hello")).await;
    let message = stream.message().await.expect("a message").expect("the stream goes on");
    assert_eq!(message.post_ids, [new]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_many_followers_is_pulled_by_itself_and_pushed_again_when_enough_have_gone() {
    let roost = Roost::start_pulling_above(5).await;
    for reader in 1..=6 {
        roost.follow(reader, 100).await;
        roost.home(reader).await;
    }
    // By hand, though few follow it.
    roost.follow(1, 200).await;
    set(&roost, 200, Delivery::Pull).await;
    let mut expected = vec![roost.publish(post(100, "pushed")).await];
    until_pulled(&roost, &[100, 200]).await;
    expected.insert(0, roost.publish(post(100, "pulled")).await);
    roost.delivered().await;
    for reader in 1..=6 {
        assert_eq!(roost.home(reader).await.post_ids, expected, "of {reader}");
    }
    // It would be pulled again with its next post.
    let request = SetDeliveryRequest { author_id: 100, delivery: Delivery::Push.into() };
    assert_bad_field(roost.graph().set_delivery(request).await, "delivery");

    roost.unfollow(6, 100).await;
    let roost = roost.restart().await;
    assert_eq!(pulled(&roost).await, [100, 200], "it has lost no fifth");
    roost.unfollow(5, 100).await;
    until_pulled(&roost, &[200]).await;
    expected.insert(0, roost.publish(post(100, "pushed again")).await);
    roost.unfollow(1, 200).await;
    roost.delivered().await;
    for reader in 1..=4 {
        assert_eq!(roost.home(reader).await.post_ids, expected, "of {reader}");
    }
    assert_eq!(pulled(&roost).await, [200], "what was set by hand stays");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_nobody_or_of_no_kind_is_refused() {
    let roost = Roost::start().await;
    for (author_id, delivery, field) in
        [(0, Delivery::Pull, "author_id"), (7, Delivery::Unspecified, "delivery")]
    {
        let request = SetDeliveryRequest { author_id, delivery: delivery.into() };
        assert_bad_field(roost.graph().set_delivery(request).await, field);
    }
    assert_eq!(roost.event_count().await, 0);
    roost.stop().await;
}
