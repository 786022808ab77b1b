//! Read markers, what is unread, and what a reader should not miss of it.

use roost::proto::v1::{
    GetUnreadRequest, ListCatchUpRequest, ListCatchUpResponse, MoveReadMarkerRequest, MuteRequest,
    Origin, PublishPostRequest, Unread,
};
use tonic::Status;

use crate::server::{Roost, assert_bad_field, id_of_the_future, post};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_than_the_marker_is_unread_but_for_the_readers_own() {
    let roost = Roost::start().await;
    assert_eq!(unread(&roost, 1).await, Unread::default());
    roost.follow(1, 7).await;
    let posts = roost.publish_many(7, 5).await;
    roost.publish(post(1, "my own")).await;
    roost.delivered().await;
    let all = Unread { count: 5, newest_id: posts[0], ..Unread::default() };
    assert_eq!(unread(&roost, 1).await, all);
    move_marker(&roost, 1, posts[2]).await;
    let two = Unread { read_marker_id: posts[2], count: 2, ..all };
    assert_eq!(unread(&roost, 1).await, two);
    // It never goes back, not over a restart either.
    move_marker(&roost, 1, posts[4]).await;
    let roost = roost.restart().await;
    assert_eq!(unread(&roost, 1).await, two);

    let muted = roost.graph().mute(MuteRequest { muter_id: 1, muted_id: 7 }).await;
    muted.expect("muted");
    assert_eq!(unread(&roost, 1).await, Unread { count: 0, newest_id: 0, ..two });
    move_marker(&roost, 2, posts[0]).await;
    assert_eq!(unread(&roost, 2).await.read_marker_id, posts[0]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_many_hears_each_voice() {
    let roost = Roost::start().await;
    for author in [7, 8, 9] {
        roost.follow(1, author).await;
    }
    let mine = roost.publish(post(1, "a question")).await;
    let read = roost.publish(post(7, "read before")).await;
    let quiet = roost.publish(post(9, "a quiet voice")).await;
    let exclusive = |author| PublishPostRequest {
        origin: Origin::Exclusive.into(),
        ..post(author, "only here")
    };
    let only_here = roost.publish(exclusive(8)).await;
    let loud = roost.publish_many(7, 50).await;
    let answer = PublishPostRequest { reply_to_id: mine, ..post(9, "an answer") };
    let answer = roost.publish(answer).await;
    let mention = PublishPostRequest { mentioned_ids: vec![1], ..post(7, "a mention") };
    let mention = roost.publish(mention).await;
    let gone = roost.publish(exclusive(8)).await;
    roost.delivered().await;
    roost.delete(gone).await;
    move_marker(&roost, 1, read).await;

    let whole = vec![mention, answer, only_here, loud[0], quiet, loud[1], loud[2]];
    let first = catch_up(&roost, ask(1)).await.expect("a page");
    assert_eq!((&first.post_ids, first.looked_down_to_id), (&whole, 0));
    assert!(first.posts.iter().map(|post| post.id).eq(whole.iter().copied()));
    assert_eq!(first.next_page_token, "");
    let one_each = ListCatchUpRequest { posts_per_author: 1, ids_only: true, ..ask(1) };
    let one_each = catch_up(&roost, one_each).await.expect("a page");
    assert_eq!(one_each.post_ids, [mention, answer, only_here, loud[0], quiet]);
    assert!(one_each.posts.is_empty());

    // In pages, while more comes, and over a restart: what was new at first.
    let (mut paged, mut page_token, mut roost) = (Vec::new(), String::new(), roost);
    for page_size in [2, 2, 2, 9] {
        let request = ListCatchUpRequest { page_size, page_token, ..ask(1) };
        let page = catch_up(&roost, request).await.expect("a page");
        paged.extend(page.post_ids);
        page_token = page.next_page_token;
        roost.publish(post(9, "newer")).await;
        roost.delivered().await;
        if paged.len() == 4 {
            roost = roost.restart().await;
        }
    }
    assert_eq!((paged, page_token), (whole, String::new()));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_looked_at_down_to_a_post() {
    let roost = Roost::start_with_cap(100).await;
    roost.follow(1, 7).await;
    let mut posts = Vec::new();
    for _ in 0..9 {
        posts.splice(0..0, roost.publish_many(7, 100).await);
    }
    roost.delivered().await;
    let page = catch_up(&roost, ask(1)).await.expect("a page");
    assert_eq!(page.post_ids, posts[..3]);
    assert_eq!(page.looked_down_to_id, posts[799]);
    let unread = unread(&roost, 1).await;
    assert_eq!((unread.count, unread.is_at_least), (800, true));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_marked_or_caught_up_with_is_refused() {
    let roost = Roost::start().await;
    let posts = roost.publish_many(7, 3).await;
    roost.follow(1, 7).await;
    roost.delivered().await;
    let events = roost.event_count().await;
    for (user_id, post_id, field) in [
        (0, posts[0], "user_id"),
        (1, 0, "post_id"),
        (1, u64::MAX, "post_id"),
        (1, id_of_the_future(), "post_id"),
    ] {
        let request = MoveReadMarkerRequest { user_id, post_id };
        assert_bad_field(roost.timelines().move_read_marker(request).await, field);
    }
    assert_eq!(roost.event_count().await, events);
    assert_bad_field(
        roost.timelines().get_unread(GetUnreadRequest { user_id: 0 }).await,
        "user_id",
    );
    let first = ListCatchUpRequest { page_size: 1, ..ask(1) };
    let token = catch_up(&roost, first).await.expect("a page").next_page_token;
    for (field, refused) in [
        ("user_id", ask(0)),
        ("page_size", ListCatchUpRequest { page_size: -1, ..ask(1) }),
        ("posts_per_author", ListCatchUpRequest { posts_per_author: -1, ..ask(1) }),
        ("page_token", ListCatchUpRequest { page_token: token.clone(), ..ask(2) }),
        ("page_token", ListCatchUpRequest { page_token: "there".to_owned(), ..ask(1) }),
    ] {
        assert_bad_field(catch_up(&roost, refused).await, field);
    }
    // One that was shown may be gone.
    roost.delete(posts[0]).await;
    let gone = ListCatchUpRequest { page_token: token, ..ask(1) };
    assert_eq!(catch_up(&roost, gone).await.expect("a page").post_ids, posts[1..]);
    roost.stop().await;
}

fn ask(user_id: u64) -> ListCatchUpRequest {
    ListCatchUpRequest { user_id, ..ListCatchUpRequest::default() }
}

async fn catch_up(
    roost: &Roost,
    request: ListCatchUpRequest,
) -> Result<ListCatchUpResponse, Status> {
    Ok(roost.timelines().list_catch_up(request).await?.into_inner())
}

async fn unread(roost: &Roost, user_id: u64) -> Unread {
    let unread = roost.timelines().get_unread(GetUnreadRequest { user_id }).await;
    unread.expect("an answer").into_inner()
}

async fn move_marker(roost: &Roost, user_id: u64, post_id: u64) {
    let moved =
        roost.timelines().move_read_marker(MoveReadMarkerRequest { user_id, post_id }).await;
    assert!(moved.expect("moved").into_inner().applied);
}
