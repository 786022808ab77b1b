//! What an account is told of: who mentions it, answers it and reposts it.

use roost::proto::v1::{
    BlockRequest, ListNotificationsRequest, ListNotificationsResponse, MuteRequest,
    NotificationReason, PublishPostRequest, UnblockRequest, UnmuteRequest,
};
use tonic::Status;

use crate::server::{Roost, assert_bad_field, post};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_told_of_mentions_answers_and_reposts_with_the_reasons() {
    let roost = Roost::start().await;
    let own = roost.publish(post(1, "mine")).await;
    let mention = roost.publish(mentioning(7, &[2, 1, 2])).await;
    let answer = PublishPostRequest { reply_to_id: own, ..mentioning(8, &[1]) };
    let answer = roost.publish(answer).await;
    let repost = PublishPostRequest { repost_of_id: own, ..post(9, "") };
    let repost = roost.publish(repost).await;
    // None of these is told to account 1: its own, and one that has to do with others.
    roost.publish(PublishPostRequest { reply_to_id: own, ..post(1, "and") }).await;
    roost.publish(PublishPostRequest { reply_to_id: mention, ..post(8, "oh") }).await;
    roost.delivered().await;

    let (mentions, replies, reposts) =
        (NotificationReason::Mention, NotificationReason::Reply, NotificationReason::Repost);
    let told =
        [(repost, vec![reposts]), (answer, vec![mentions, replies]), (mention, vec![mentions])];
    let roost = roost.restart().await;
    let page = list(&roost, ask(1)).await.expect("a page");
    let read = page
        .notifications
        .iter()
        .map(|it| (it.post.as_ref().expect("a post").id, it.reasons().collect::<Vec<_>>()));
    assert_eq!(read.collect::<Vec<_>>(), told);
    assert_eq!(page.next_page_token, "");
    let shown = page.notifications[2].post.clone().expect("a post");
    assert_eq!((shown.author_id, shown.mentioned_ids), (7, vec![1, 2]));
    assert_eq!(ids(&roost, 2).await, [mention]);
    // A mention brings a post into no home timeline.
    assert!(!roost.home(2).await.post_ids.contains(&mention));
    assert!(ids(&roost, 77).await.is_empty());

    let original = page.notifications[0].post.as_ref().and_then(|post| post.original.as_ref());
    assert_eq!(original.map(|original| original.id), Some(own));
    // What only repeated it goes with it, and what answers it stays.
    roost.delete(own).await;
    assert_eq!(ids(&roost, 1).await, [answer, mention]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_of_hidden_accounts_is_left_out_until_it_is_hidden_no_more() {
    let roost = Roost::start().await;
    let of_seven = roost.publish(mentioning(7, &[1])).await;
    let of_eight = roost.publish(mentioning(8, &[1])).await;
    let gone = roost.publish(mentioning(8, &[1])).await;
    roost.delivered().await;
    assert_eq!(ids(&roost, 1).await, [gone, of_eight, of_seven]);
    roost.delete(gone).await;
    let all = [of_eight, of_seven];
    assert_eq!(ids(&roost, 1).await, all);

    let mute = MuteRequest { muter_id: 1, muted_id: 7 };
    assert!(roost.graph().mute(mute).await.expect("muted").into_inner().applied);
    assert_eq!(ids(&roost, 1).await, [of_eight]);
    let unmute = UnmuteRequest { muter_id: 1, muted_id: 7 };
    assert!(roost.graph().unmute(unmute).await.expect("unmuted").into_inner().applied);
    assert_eq!(ids(&roost, 1).await, all);
    for (blocker_id, blocked_id) in [(1, 8), (8, 1)] {
        let block = BlockRequest { blocker_id, blocked_id };
        assert!(roost.graph().block(block).await.expect("blocked").into_inner().applied);
        assert_eq!(ids(&roost, 1).await, [of_seven]);
        let unblock = UnblockRequest { blocker_id, blocked_id };
        assert!(roost.graph().unblock(unblock).await.expect("unblocked").into_inner().applied);
        assert_eq!(ids(&roost, 1).await, all);
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_are_kept_and_read_in_pages_while_more_come() {
    let roost = Roost::start_with_cap(20).await;
    let mut all = Vec::new();
    for author in 100..150 {
        all.insert(0, roost.publish(mentioning(author, &[1])).await);
    }
    roost.delivered().await;
    // Of every second author nothing is shown, and pages are full all the same.
    for muted_id in (100..150).step_by(2) {
        let mute = MuteRequest { muter_id: 1, muted_id };
        roost.graph().mute(mute).await.expect("muted");
    }
    let shown: Vec<u64> = all[..20].iter().step_by(2).copied().collect();
    let (mut read, mut page_token) = (Vec::new(), String::new());
    for page_size in [3, 4, 3] {
        let request = ListNotificationsRequest { page_size, page_token, ..ask(1) };
        let page = list(&roost, request).await.expect("a page");
        assert_eq!(page.notifications.len(), page_size as usize);
        read.extend(post_ids(&page));
        page_token = page.next_page_token;
        if read.len() == 3 {
            roost.publish(mentioning(7, &[2])).await;
        }
    }
    assert_eq!((read, page_token), (shown, String::new()));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mention_of_nobody_oneself_or_a_crowd_is_refused_and_so_is_a_bad_page() {
    let roost = Roost::start().await;
    for mentions in [&[0, 2][..], &[7], &(10..21).collect::<Vec<u64>>()] {
        assert_bad_field(roost.try_publish(mentioning(7, mentions)).await, "mentioned_ids");
    }
    assert_eq!(roost.event_count().await, 0);
    // The same one many times is one.
    let often = vec![1; 100];
    let posts =
        [roost.publish(mentioning(7, &often)).await, roost.publish(mentioning(7, &[1])).await];
    roost.delivered().await;
    let first = ListNotificationsRequest { page_size: 1, ..ask(1) };
    let page = list(&roost, first).await.expect("a page");
    assert_eq!(post_ids(&page), [posts[1]]);
    let token = page.next_page_token;
    let of_home = {
        roost.follow(1, 7).await;
        let request =
            roost::proto::v1::ListHomeTimelineRequest { page_size: 1, ..crate::server::home_of(1) };
        let page = roost.timelines().list_home_timeline(request).await.expect("a page");
        page.into_inner().next_page_token
    };
    assert_ne!(of_home, "");
    for (field, refused) in [
        ("user_id", ask(0)),
        ("page_size", ListNotificationsRequest { page_size: -1, ..ask(1) }),
        ("page_token", ListNotificationsRequest { page_token: token.clone(), ..ask(2) }),
        ("page_token", ListNotificationsRequest { page_token: of_home, ..ask(1) }),
        ("page_token", ListNotificationsRequest { page_token: "there".to_owned(), ..ask(1) }),
    ] {
        assert_bad_field(list(&roost, refused).await, field);
    }
    let rest = ListNotificationsRequest { page_token: token, ..ask(1) };
    assert_eq!(post_ids(&list(&roost, rest).await.expect("a page")), [posts[0]]);
    roost.stop().await;
}

fn mentioning(author_id: u64, mentioned_ids: &[u64]) -> PublishPostRequest {
    PublishPostRequest { mentioned_ids: mentioned_ids.to_vec(), ..post(author_id, "hey") }
}

fn ask(user_id: u64) -> ListNotificationsRequest {
    ListNotificationsRequest { user_id, ..ListNotificationsRequest::default() }
}

async fn list(
    roost: &Roost,
    request: ListNotificationsRequest,
) -> Result<ListNotificationsResponse, Status> {
    Ok(roost.notifications().list_notifications(request).await?.into_inner())
}

async fn ids(roost: &Roost, user: u64) -> Vec<u64> {
    post_ids(&list(roost, ask(user)).await.expect("a page"))
}

fn post_ids(page: &ListNotificationsResponse) -> Vec<u64> {
    page.notifications.iter().flat_map(|it| it.post.as_ref()).map(|post| post.id).collect()
}
