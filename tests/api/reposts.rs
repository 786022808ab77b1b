//! Reposts: a post that many repeat appears once, and the next takes over.

use roost::proto::v1::{
    BlockRequest, GetPostRequest, ListCatchUpRequest, ListHomeTimelineRequest, MuteRequest, Origin,
    Post, PublishPostRequest, StreamHomeTimelineRequest,
};

use crate::server::{Roost, assert_bad_field, assert_not_found, home_of, post};

const NEAR_MAX: usize = 40;

/// Account 1 follows 7, 8 and 9.
async fn start() -> Roost {
    let roost = Roost::start().await;
    for followee in [7, 8, 9] {
        roost.follow(1, followee).await;
    }
    roost
}

fn repost(author_id: u64, repost_of_id: u64) -> PublishPostRequest {
    PublishPostRequest { repost_of_id, ..post(author_id, "") }
}

async fn home_with_all(roost: &Roost, user_id: u64) -> Vec<u64> {
    let request = ListHomeTimelineRequest { all_reposts: true, page_size: 800, ..home_of(user_id) };
    roost.timelines().list_home_timeline(request).await.expect("a page").into_inner().post_ids
}

#[tokio::test(flavor = "multi_thread")]
async fn of_reposts_near_each_other_the_first_is_seen_and_the_next_takes_over() {
    let roost = start().await;
    // By somebody whom account 1 does not follow.
    let original = roost.publish(post(5, "look")).await;
    let first = roost.publish(repost(7, original)).await;
    let second = roost.publish(repost(8, original)).await;
    let quote = roost.publish(PublishPostRequest { text: "see".into(), ..repost(9, second) }).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids, [quote, first]);
    assert_eq!(home_with_all(&roost, 1).await, [quote, second, first]);

    roost.delete(first).await;
    assert_eq!(roost.home(1).await.post_ids, [quote, second]);
    let roost = roost.restart().await;
    assert_eq!(roost.home(1).await.post_ids, [quote, second]);

    // Who follows its author sees the original itself.
    roost.follow(1, 5).await;
    assert_eq!(roost.home(1).await.post_ids, [quote, original]);
    roost.unfollow(1, 5).await;
    assert_eq!(roost.home(1).await.post_ids, [quote, second]);

    // Whoever deletes it deletes what only repeats it; the quote has something of its own.
    roost.delete(original).await;
    assert_eq!(roost.home(1).await.post_ids, [quote]);
    assert_eq!(roost.author(8).await.post_ids, [second]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_far_above_is_seen_again_wherever_pages_end() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    let others = roost.publish_many(8, NEAR_MAX - 1).await;
    let near = roost.publish(repost(8, original)).await;
    let others = [roost.publish_many(8, NEAR_MAX).await, others].concat();
    let far = roost.publish(repost(9, original)).await;
    roost.delivered().await;
    let expected: Vec<u64> = [&[far], &others[..], &[original]].concat();
    for page_size in [1, 7, 800] {
        let request = ListHomeTimelineRequest { page_size, ids_only: true, ..home_of(1) };
        let pages = roost.home_pages(request).await;
        let ids: Vec<u64> = pages.into_iter().flat_map(|page| page.post_ids).collect();
        assert_eq!(ids, expected, "in pages of {page_size}");
    }
    assert!(home_with_all(&roost, 1).await.contains(&near));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_of_a_repost_is_one_of_the_original_and_shows_it() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    let first = roost.publish(repost(8, original)).await;
    let second = roost.publish(repost(9, first)).await;
    let answer = PublishPostRequest { reply_to_id: first, ..post(9, "I do") };
    let answer = roost.publish(answer).await;
    roost.delivered().await;
    let get = async |post_id| {
        roost.posts().get_post(GetPostRequest { post_id }).await.expect("a post").into_inner()
    };
    assert_eq!(get(second).await.repost_of_id, original);
    assert_eq!(get(answer).await.reply_to_id, original);

    let request = ListHomeTimelineRequest { all_reposts: true, ..home_of(1) };
    let page = roost.timelines().list_home_timeline(request).await.expect("a page").into_inner();
    let text = |post: &Post| post.original.as_ref().map(|original| original.text.clone());
    let shown: Vec<_> = page.posts.iter().map(|post| (post.id, text(post))).collect();
    let look = Some("look".to_owned());
    let expected = [(answer, None), (second, look.clone()), (first, look), (original, None)];
    assert_eq!(shown, expected);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_of_what_is_gone_is_refused() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    let first = roost.publish(repost(8, original)).await;
    roost.delete(original).await;
    let refused = roost.posts().publish_post(repost(9, first)).await;
    assert_not_found(refused, "post", first);
    let refused = roost.posts().publish_post(repost(9, original)).await;
    assert_not_found(refused, "post", original);
    assert_bad_field(roost.try_publish(post(9, "")).await, "text");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sends_an_original_once() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    roost.delivered().await;
    let request = StreamHomeTimelineRequest { user_id: 1, ..Default::default() };
    let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
    let mut stream = stream.into_inner();
    stream.message().await.expect("a first message");
    roost.publish(repost(8, original)).await;
    let last = roost.publish(post(9, "later")).await;
    let message = stream.message().await.expect("a message").expect("the stream goes on");
    assert_eq!(message.post_ids, [last]);
    roost.stop().await;
}

/// What stands between a post and its repost, and is not shown.
#[derive(Clone, Copy, Debug)]
enum Between {
    Muted,
    BlockedBy,
    Dead,
    QuotesOfMuted,
    OtherOrigins,
    UnfollowedReplies,
    LeftOutReposts,
}

impl Between {
    /// Publishes more such posts than are near a repost, and some that are shown.
    async fn publish(self, roost: &Roost, count: usize) {
        let muted = roost.publish(post(5, "muted")).await;
        let mut dead = 0;
        if matches!(self, Self::Dead | Self::LeftOutReposts) {
            dead = roost.publish(post(6, "gone")).await;
        }
        for _ in 0..count {
            let request = match self {
                Self::Muted | Self::BlockedBy => post(8, "hidden"),
                Self::Dead | Self::LeftOutReposts => repost(8, dead),
                Self::QuotesOfMuted => {
                    PublishPostRequest { text: "look".to_owned(), ..repost(8, muted) }
                }
                Self::OtherOrigins => {
                    PublishPostRequest { origin: Origin::Rss.into(), ..post(8, "from a feed") }
                }
                Self::UnfollowedReplies => {
                    PublishPostRequest { reply_to_id: muted, ..post(8, "an answer") }
                }
            };
            roost.publish(request).await;
        }
        let mute = |muted_id| MuteRequest { muter_id: 1, muted_id };
        match self {
            Self::Muted => drop(roost.graph().mute(mute(8)).await.expect("muted")),
            Self::QuotesOfMuted => drop(roost.graph().mute(mute(5)).await.expect("muted")),
            Self::BlockedBy => {
                let block = BlockRequest { blocker_id: 8, blocked_id: 1 };
                roost.graph().block(block).await.expect("blocked");
            }
            Self::Dead => roost.delete(dead).await,
            Self::OtherOrigins | Self::UnfollowedReplies | Self::LeftOutReposts => {}
        }
    }

    fn request(self) -> ListHomeTimelineRequest {
        let shared = vec![Origin::Shared.into()];
        ListHomeTimelineRequest {
            origins: if matches!(self, Self::OtherOrigins) { shared } else { Vec::new() },
            followed_replies_only: matches!(self, Self::UnfollowedReplies),
            ids_only: true,
            ..home_of(1)
        }
    }
}

/// Whether a repost shows above its original, with `hidden` posts between that do not show and
/// `shown` ones that do, in a Roost whose timelines hold `cap` posts ready.
async fn repost_shows(between: Between, hidden: usize, shown: usize, cap: usize) -> bool {
    let roost = Roost::start_with_cap(cap).await;
    for followee in [7, 8, 9] {
        roost.follow(1, followee).await;
    }
    let original = roost.publish(post(7, "look")).await;
    between.publish(&roost, hidden).await;
    roost.publish_many(9, shown).await;
    let above = roost.publish(repost(9, original)).await;
    roost.delivered().await;

    let mut answers = Vec::new();
    for page_size in [1, 7, 800] {
        let request = ListHomeTimelineRequest { page_size, ..between.request() };
        let pages = roost.home_pages(request).await;
        let ids: Vec<u64> = pages.into_iter().flat_map(|page| page.post_ids).collect();
        assert!(ids.contains(&original));
        answers.push((format!("pages of {page_size}"), ids.contains(&above)));
    }
    let request = between.request();
    let stream = StreamHomeTimelineRequest {
        user_id: 1,
        // Right below the repost: what decides is older than what is sent.
        resume_after_id: above - 1,
        ids_only: true,
        origins: request.origins.clone(),
        followed_replies_only: request.followed_replies_only,
        ..StreamHomeTimelineRequest::default()
    };
    let stream = roost.timelines().stream_home_timeline(stream).await.expect("a stream");
    let message = stream.into_inner().message().await.expect("a message").expect("one");
    answers.push(("a stream".to_owned(), message.post_ids.contains(&above)));
    if request.origins.is_empty() && !request.followed_replies_only {
        let request = ListCatchUpRequest {
            user_id: 1,
            page_size: 800,
            posts_per_author: 800,
            ids_only: true,
            ..ListCatchUpRequest::default()
        };
        let page = roost.timelines().list_catch_up(request).await.expect("a page").into_inner();
        answers.push(("a catch-up".to_owned(), page.post_ids.contains(&above)));
    }
    roost.stop().await;
    let shows = answers[0].1;
    assert!(answers.iter().all(|answer| answer.1 == shows), "{between:?}: {answers:?}");
    shows
}

#[tokio::test(flavor = "multi_thread")]
async fn repost_above_posts_that_do_not_show_is_left_out() {
    for between in [
        Between::Muted,
        Between::BlockedBy,
        Between::Dead,
        Between::QuotesOfMuted,
        Between::OtherOrigins,
        Between::UnfollowedReplies,
        Between::LeftOutReposts,
    ] {
        assert!(!repost_shows(between, NEAR_MAX + 5, 3, 800).await, "{between:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repost_distance_counts_posts_that_show() {
    let far = NEAR_MAX + 160;
    assert!(!repost_shows(Between::Muted, far, NEAR_MAX - 1, 800).await);
    assert!(repost_shows(Between::Muted, far, NEAR_MAX, 800).await);
    // The same below what is held ready.
    assert!(!repost_shows(Between::Muted, far, NEAR_MAX - 1, 20).await);
    assert!(repost_shows(Between::Muted, far, NEAR_MAX, 20).await);
}
