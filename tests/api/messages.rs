//! Direct messages: who sees them, and that nobody else does.

use roost::proto::v1::{
    BatchGetPostsRequest, BlockRequest, DeleteMessageRequest, DeletePostRequest, GetPostRequest,
    GetUnreadRequest, ListCatchUpRequest, ListMessagesRequest, ListNotificationsRequest,
    ListSentMessagesRequest, Message, MuteRequest, PublishPostRequest, SendMessageRequest,
    SendMessageResponse, StreamHomeTimelineRequest, UnblockRequest, UnmuteRequest,
};
use tonic::Status;

use crate::server::{Roost, assert_bad_field, assert_not_found, post, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_read_by_its_recipients_and_its_sender_alone() {
    let roost = Roost::start().await;
    for follower in [2, 9] {
        roost.follow(follower, 1).await;
    }
    let sent = send(&roost, to(1, &[3, 2, 3])).await;
    let id = sent.message_id;
    let roost = roost.restart().await;
    for user in [2, 3] {
        let read = received(&roost, user).await;
        assert_eq!(ids(&read), [id]);
        assert_eq!((read[0].sender_id, &*read[0].recipient_ids), (1, &[2, 3][..]));
        assert_eq!((&*read[0].text, sent_by(&roost, user).await.len()), ("psst", 0));
    }
    assert_eq!(ids(&sent_by(&roost, 1).await), [id]);
    for user in [1, 9, 77] {
        assert!(received(&roost, user).await.is_empty());
    }
    assert!(sent_by(&roost, 9).await.is_empty());
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_in_no_timeline_stream_thread_count_or_notification() {
    let roost = Roost::start().await;
    for follower in [2, 9] {
        roost.follow(follower, 1).await;
    }
    let mut streams = Vec::new();
    for user_id in [1, 2, 9] {
        let request = StreamHomeTimelineRequest { user_id, ..Default::default() };
        let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
        let mut stream = stream.into_inner();
        // From here on nothing is missed.
        stream.message().await.expect("not broken").expect("a message");
        streams.push(stream);
    }
    let id = send(&roost, to(1, &[2])).await.message_id;
    let named = SendMessageRequest { request_id: "a".to_owned(), ..to(1, &[2]) };
    send(&roost, named).await;
    let seen = roost.publish(post(1, "for everybody")).await;
    roost.delivered().await;
    for mut stream in streams {
        let mut streamed = Vec::new();
        while streamed.is_empty() {
            streamed = stream.message().await.expect("not broken").expect("a message").post_ids;
        }
        assert_eq!(streamed, [seen]);
    }

    let roost = roost.restart().await;
    for user_id in [1, 2, 9] {
        assert_eq!(roost.home(user_id).await.post_ids, [seen]);
        let unread = roost.timelines().get_unread(GetUnreadRequest { user_id }).await;
        let unread = unread.expect("an answer").into_inner().count;
        assert_eq!(unread, u32::from(user_id != 1));
        let catch_up = ListCatchUpRequest { user_id, ..Default::default() };
        let catch_up = roost.timelines().list_catch_up(catch_up).await.expect("a page");
        assert!(catch_up.into_inner().post_ids.iter().all(|post| *post == seen));
        let asked = ListNotificationsRequest { user_id, ..Default::default() };
        let told = roost.notifications().list_notifications(asked).await.expect("a page");
        assert!(told.into_inner().notifications.is_empty());
    }
    assert_eq!(roost.author(1).await.post_ids, [seen]);
    assert_not_found(roost.posts().get_post(GetPostRequest { post_id: id }).await, "post", id);
    let all = BatchGetPostsRequest { post_ids: vec![id, seen] };
    let all = roost.posts().batch_get_posts(all).await.expect("posts").into_inner();
    assert_eq!((all.posts.len(), all.missing_ids), (1, vec![id]));
    // Nor can a post refer to it, or be deleted by its id.
    let deleted = roost.posts().delete_post(DeletePostRequest { post_id: id }).await;
    assert_not_found(deleted, "post", id);
    for answer in [
        PublishPostRequest { reply_to_id: id, ..post(2, "what?") },
        PublishPostRequest { repost_of_id: id, ..post(2, "") },
    ] {
        assert_not_found(roost.posts().publish_post(answer).await, "post", id);
    }
    assert_eq!(received(&roost, 2).await.len(), 2);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_hidden_accounts_are_left_out_until_they_are_hidden_no_more() {
    let roost = Roost::start().await;
    let of_seven = send(&roost, to(7, &[1, 2])).await.message_id;
    let of_eight = send(&roost, to(8, &[1])).await.message_id;
    let all = [of_eight, of_seven];
    assert_eq!(ids(&received(&roost, 1).await), all);
    let mute = MuteRequest { muter_id: 1, muted_id: 8 };
    assert!(roost.graph().mute(mute).await.expect("muted").into_inner().applied);
    let while_muted = send(&roost, to(8, &[1])).await.message_id;
    assert_eq!(ids(&received(&roost, 1).await), [of_seven]);
    let unmute = UnmuteRequest { muter_id: 1, muted_id: 8 };
    assert!(roost.graph().unmute(unmute).await.expect("unmuted").into_inner().applied);
    let all = [while_muted, all[0], all[1]];
    for (blocker_id, blocked_id) in [(1, 7), (7, 1)] {
        assert_eq!(ids(&received(&roost, 1).await), all);
        let block = BlockRequest { blocker_id, blocked_id };
        assert!(roost.graph().block(block).await.expect("blocked").into_inner().applied);
        assert_eq!(ids(&received(&roost, 1).await), [while_muted, of_eight]);
        // The other recipient and the sender still see it.
        assert_eq!(ids(&received(&roost, 2).await), [of_seven]);
        assert_eq!(ids(&sent_by(&roost, 7).await), [of_seven]);
        let unblock = UnblockRequest { blocker_id, blocked_id };
        assert!(roost.graph().unblock(unblock).await.expect("unblocked").into_inner().applied);
    }
    assert_eq!(ids(&received(&roost, 1).await), all);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_deleted_by_its_sender_for_everybody() {
    let roost = Roost::start().await;
    let kept = send(&roost, to(1, &[2, 3])).await.message_id;
    let gone = send(&roost, to(1, &[2, 3])).await.message_id;
    // Its recipient cannot, and is not told that there is one.
    assert_not_found(delete(&roost, 2, gone).await, "message", gone);
    let deleted = delete(&roost, 1, gone).await.expect("deleted").into_inner();
    assert!(deleted.applied);
    let roost = roost.restart().await;
    for user in [2, 3] {
        assert_eq!(ids(&received(&roost, user).await), [kept]);
    }
    assert_eq!(ids(&sent_by(&roost, 1).await), [kept]);
    assert_not_found(delete(&roost, 1, gone).await, "message", gone);
    let post = roost.publish(post(1, "no message")).await;
    assert_not_found(delete(&roost, 1, post).await, "message", post);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_sends_one_message() {
    let roost = Roost::start().await;
    let named = |sender, text: &str| SendMessageRequest {
        request_id: "a".to_owned(),
        text: text.to_owned(),
        ..to(sender, &[2])
    };
    // Names of requests for posts are others, and those of other senders too.
    let post = roost.publish(request(1, "a post", "a")).await;
    let (one, other) = tokio::join!(send(&roost, named(1, "one")), send(&roost, named(1, "two")));
    assert_eq!(one, other);
    assert!(one.applied && one.message_id != post);
    let of_other = send(&roost, named(3, "one")).await;
    let roost = roost.restart().await;
    assert_eq!(send(&roost, named(1, "three")).await.message_id, one.message_id);
    assert_eq!(ids(&received(&roost, 2).await), [of_other.message_id, one.message_id]);
    assert_eq!(ids(&sent_by(&roost, 1).await), [one.message_id]);
    assert_eq!(roost.publish(request(1, "again", "a")).await, post);
    // Deleted, it is not sent again.
    delete(&roost, 1, one.message_id).await.expect("deleted");
    assert_eq!(send(&roost, named(1, "four")).await.message_id, one.message_id);
    assert_eq!(ids(&received(&roost, 2).await), [of_other.message_id]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_keeps_the_newest_and_is_read_in_pages() {
    let roost = Roost::start_with_cap(20).await;
    let mut all = Vec::new();
    for number in 0..45 {
        all.insert(0, send(&roost, to(100 + number % 2, &[1])).await.message_id);
    }
    assert_eq!(ids(&received(&roost, 1).await), all[..20]);
    let (mut read, mut page_token) = (Vec::new(), String::new());
    for page_size in [3, 7, 10] {
        let request = ListMessagesRequest { user_id: 1, page_size, page_token };
        let page = roost.messages().list_messages(request).await.expect("a page").into_inner();
        read.extend(ids(&page.messages));
        page_token = page.next_page_token;
        if read.len() == 3 {
            send(&roost, to(7, &[2])).await;
        }
    }
    assert_eq!((read, page_token), (all[..20].to_vec(), String::new()));
    let of_one: Vec<u64> = all.iter().step_by(2).copied().take(20).collect();
    assert_eq!(ids(&sent_by(&roost, 100).await), of_one);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_or_read_is_refused() {
    let roost = Roost::start().await;
    let too_many: Vec<u64> = (2..19).collect();
    let text = |text: &str| SendMessageRequest { text: text.to_owned(), ..to(1, &[2]) };
    let long_name = SendMessageRequest { request_id: "r".repeat(65), ..to(1, &[2]) };
    for (field, refused) in [
        ("sender_id", to(0, &[2])),
        ("recipient_ids", to(1, &[])),
        ("recipient_ids", to(1, &[2, 0])),
        ("recipient_ids", to(1, &[1, 2])),
        ("recipient_ids", to(1, &too_many)),
        ("text", text("")),
        ("text", text(" \n ")),
        ("text", text(&"a".repeat(141))),
        ("request_id", long_name),
    ] {
        assert_bad_field(roost.messages().send_message(refused).await, field);
    }
    for (sender, message, field) in [(0, 7, "sender_id"), (1, 0, "message_id")] {
        assert_bad_field(delete(&roost, sender, message).await, field);
    }
    assert_not_found(delete(&roost, 1, 7).await, "message", 7);
    assert_eq!(roost.event_count().await, 0);

    for _ in 0..2 {
        send(&roost, to(1, &[2])).await;
    }
    let first = ListMessagesRequest { user_id: 2, page_size: 1, ..Default::default() };
    let page = roost.messages().list_messages(first).await.expect("a page").into_inner();
    let token = page.next_page_token;
    for (field, user_id, page_size, page_token) in [
        ("user_id", 0, 0, ""),
        ("page_size", 2, -1, ""),
        ("page_token", 3, 0, &*token),
        ("page_token", 2, 0, "there"),
    ] {
        let page_token = page_token.to_owned();
        let request = ListMessagesRequest { user_id, page_size, page_token };
        assert_bad_field(roost.messages().list_messages(request).await, field);
    }
    // The same account's, of the other side.
    let request = ListSentMessagesRequest { user_id: 2, page_size: 0, page_token: token };
    assert_bad_field(roost.messages().list_sent_messages(request).await, "page_token");
    roost.stop().await;
}

fn to(sender_id: u64, recipient_ids: &[u64]) -> SendMessageRequest {
    SendMessageRequest {
        sender_id,
        recipient_ids: recipient_ids.to_vec(),
        text: "psst".to_owned(),
        ..SendMessageRequest::default()
    }
}

/// Sends a message, which can be read when this returns.
async fn send(roost: &Roost, request: SendMessageRequest) -> SendMessageResponse {
    let sent = roost.messages().send_message(request).await.expect("sent").into_inner();
    assert!(sent.applied);
    sent
}

async fn delete(
    roost: &Roost,
    sender_id: u64,
    message_id: u64,
) -> Result<tonic::Response<roost::proto::v1::DeleteMessageResponse>, Status> {
    roost.messages().delete_message(DeleteMessageRequest { sender_id, message_id }).await
}

async fn received(roost: &Roost, user_id: u64) -> Vec<Message> {
    let request = ListMessagesRequest { user_id, page_size: 800, ..Default::default() };
    roost.messages().list_messages(request).await.expect("a page").into_inner().messages
}

async fn sent_by(roost: &Roost, user_id: u64) -> Vec<Message> {
    let request = ListSentMessagesRequest { user_id, page_size: 800, ..Default::default() };
    roost.messages().list_sent_messages(request).await.expect("a page").into_inner().messages
}

fn ids(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.id).collect()
}
