//! No answer exceeds the 4 MiB that gRPC clients take, and paging loses nothing: posts and messages
//! of 100,000 characters of four bytes.
//!
//! The clients here refuse an answer of more than 4 MiB, as all do unless told otherwise.

use roost::proto::v1::{
    BatchGetPostsRequest, GetThreadRequest, ListAuthorTimelineRequest, ListCatchUpRequest,
    ListHomeTimelineRequest, ListMessagesRequest, ListNotificationsRequest,
    ListSentMessagesRequest, Post, PublishPostRequest, SendMessageRequest,
    StreamHomeTimelineRequest, Thread,
};

use crate::server::{Roost, assert_bad_field, author_of, home_of, post};

const TEXT_CHARS: usize = 100_000;
const READER: u64 = 1;
const AUTHOR: u64 = 2;

fn large(author_id: u64) -> PublishPostRequest {
    PublishPostRequest { mentioned_ids: vec![READER], ..post(author_id, &large_text()) }
}

fn large_text() -> String {
    "𝄞".repeat(TEXT_CHARS)
}

async fn start() -> Roost {
    let roost = Roost::start_with(|settings| settings.text_chars_max = TEXT_CHARS).await;
    roost.follow(READER, AUTHOR).await;
    roost
}

/// A post, and quotes of it: twice as many bytes each.
async fn publish_quotes(roost: &Roost, count: usize) -> Vec<u64> {
    let mut ids = vec![roost.publish(large(AUTHOR)).await];
    for _ in 0..count {
        let quote = PublishPostRequest { repost_of_id: ids[0], ..large(AUTHOR) };
        ids.insert(0, roost.publish(quote).await);
    }
    ids
}

/// The ids of all pages of a list, read by tokens until there is none.
async fn all_pages(mut page: impl AsyncFnMut(String) -> (Vec<u64>, String)) -> Vec<u64> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let (of_page, next) = page(token).await;
        assert!(!of_page.is_empty(), "a page is empty");
        ids.extend(of_page);
        token = next;
        if token.is_empty() {
            return ids;
        }
    }
}

fn ids_of(posts: &[Post]) -> Vec<u64> {
    posts.iter().map(|post| post.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_posts_come_whole_over_pages_of_every_list() {
    let roost = start().await;
    let ids = publish_quotes(&roost, 11).await;
    roost.delivered().await;
    // What was written under a larger limit is as large as ever.
    let roost = roost.restart_with(|settings| settings.text_chars_max = 140).await;
    let page_size = 800;
    let home = all_pages(async |page_token| {
        let request = ListHomeTimelineRequest { page_size, page_token, ..home_of(READER) };
        let page =
            roost.timelines().list_home_timeline(request).await.expect("a page").into_inner();
        assert!(page.posts.iter().all(|post| post.text.len() == 4 * TEXT_CHARS));
        (page.post_ids, page.next_page_token)
    });
    assert_eq!(home.await, ids);
    let author = all_pages(async |page_token| {
        let request = ListAuthorTimelineRequest { page_size, page_token, ..author_of(AUTHOR) };
        let page = roost.timelines().list_author_timeline(request).await.expect("a page");
        let page = page.into_inner();
        (page.post_ids, page.next_page_token)
    });
    assert_eq!(author.await, ids);
    let catch_up = all_pages(async |page_token| {
        let request = ListCatchUpRequest {
            user_id: READER,
            page_size,
            page_token,
            posts_per_author: 100,
            ..ListCatchUpRequest::default()
        };
        let page = roost.timelines().list_catch_up(request).await.expect("a page").into_inner();
        (page.post_ids, page.next_page_token)
    });
    assert_eq!(catch_up.await, ids);
    let notifications = all_pages(async |page_token| {
        let request = ListNotificationsRequest { user_id: READER, page_size, page_token };
        let page = roost.notifications().list_notifications(request).await.expect("a page");
        let page = page.into_inner();
        let posts = page.notifications.into_iter().flat_map(|it| it.post).collect::<Vec<_>>();
        (ids_of(&posts), page.next_page_token)
    });
    assert_eq!(notifications.await, ids);

    let request = StreamHomeTimelineRequest {
        user_id: READER,
        resume_after_id: ids[ids.len() - 1] - 1,
        ..StreamHomeTimelineRequest::default()
    };
    let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
    let (mut stream, mut streamed) = (stream.into_inner(), Vec::new());
    while streamed.len() < ids.len() {
        streamed.extend(stream.message().await.expect("a message").expect("one").post_ids);
    }
    assert!(streamed.iter().eq(ids.iter().rev()));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_get_says_which_posts_did_not_fit() {
    let roost = start().await;
    let mut ids = publish_quotes(&roost, 19).await;
    let unknown = ids[0] + 2;
    ids.insert(3, unknown);
    roost.delivered().await;
    let (mut got, mut missing, mut left, mut calls) = (Vec::new(), Vec::new(), ids.clone(), 0);
    while !left.is_empty() {
        let request = BatchGetPostsRequest { post_ids: left.clone() };
        let answer = roost.posts().batch_get_posts(request).await.expect("posts").into_inner();
        assert!(!answer.posts.is_empty() && left.ends_with(&answer.unprocessed_ids));
        got.extend(ids_of(&answer.posts));
        missing.extend(answer.missing_ids);
        left = answer.unprocessed_ids;
        calls += 1;
    }
    ids.remove(3);
    assert_eq!((got, missing), (ids, vec![unknown]));
    assert_eq!(calls, 3, "of 20 posts of 400 kB");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_thread_is_read_over_pages_of_ancestors_and_answers() {
    let roost = start().await;
    let quoted = roost.publish(large(AUTHOR)).await;
    let answer =
        |reply_to_id| PublishPostRequest { reply_to_id, repost_of_id: quoted, ..large(AUTHOR) };
    let mut chain = vec![roost.publish(large(AUTHOR)).await];
    for _ in 0..12 {
        chain.push(roost.publish(answer(chain[chain.len() - 1])).await);
    }
    let leaf = chain.pop().expect("a post");
    let mut replies = Vec::new();
    for _ in 0..8 {
        replies.push(roost.publish(answer(leaf)).await);
    }
    roost.delivered().await;
    let thread = async |request: GetThreadRequest| -> Thread {
        let thread = roost.posts().get_thread(request).await.expect("a thread").into_inner();
        assert_eq!(thread.post.as_ref().map(|post| post.id), Some(leaf));
        thread
    };
    let of = || GetThreadRequest { post_id: leaf, page_size: 800, ..Default::default() };
    let read = all_pages(async |page_token| {
        let page = thread(GetThreadRequest { page_token, ..of() }).await;
        assert!(!page.ancestors.is_empty());
        (ids_of(&page.replies), page.next_page_token)
    });
    assert_eq!(read.await, replies);
    // The nearest first, each page the oldest first.
    let read = all_pages(async |ancestor_page_token: String| {
        let is_first = ancestor_page_token.is_empty();
        let page = thread(GetThreadRequest { ancestor_page_token, ..of() }).await;
        assert_eq!(page.replies.is_empty(), !is_first);
        (ids_of(&page.ancestors).into_iter().rev().collect(), page.next_ancestor_page_token)
    });
    assert!(read.await.iter().eq(chain.iter().rev()));

    let first = thread(of()).await;
    let both = GetThreadRequest {
        page_token: first.next_page_token.clone(),
        ancestor_page_token: first.next_ancestor_page_token,
        ..of()
    };
    assert_bad_field(roost.posts().get_thread(both).await, "ancestor_page_token");
    let other = GetThreadRequest { ancestor_page_token: first.next_page_token, ..of() };
    assert_bad_field(roost.posts().get_thread(other).await, "ancestor_page_token");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thread_of_many_ancestors_is_read_to_its_beginning() {
    let roost = Roost::start().await;
    let mut chain = vec![roost.publish(post(AUTHOR, "the beginning")).await];
    for _ in 0..230 {
        let answer =
            PublishPostRequest { reply_to_id: chain[chain.len() - 1], ..post(AUTHOR, "on") };
        chain.push(roost.publish(answer).await);
    }
    roost.delivered().await;
    let leaf = chain.pop().expect("a post");
    let mut lens = Vec::new();
    let read = all_pages(async |ancestor_page_token| {
        let request =
            GetThreadRequest { post_id: leaf, ancestor_page_token, ..GetThreadRequest::default() };
        let page = roost.posts().get_thread(request).await.expect("a thread").into_inner();
        lens.push(page.ancestors.len());
        (ids_of(&page.ancestors).into_iter().rev().collect(), page.next_ancestor_page_token)
    });
    assert!(read.await.iter().eq(chain.iter().rev()));
    assert_eq!(lens, [100, 100, 30]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_come_whole_over_pages() {
    let roost = start().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        let request = SendMessageRequest {
            sender_id: AUTHOR,
            recipient_ids: vec![READER],
            text: large_text(),
            ..SendMessageRequest::default()
        };
        let sent = roost.messages().send_message(request).await.expect("sent").into_inner();
        ids.insert(0, sent.message_id);
    }
    roost.delivered().await;
    let roost = roost.restart_with(|settings| settings.text_chars_max = 140).await;
    let received = all_pages(async |page_token| {
        let request = ListMessagesRequest { user_id: READER, page_size: 800, page_token };
        let page = roost.messages().list_messages(request).await.expect("a page").into_inner();
        (page.messages.iter().map(|message| message.id).collect(), page.next_page_token)
    });
    assert_eq!(received.await, ids);
    let sent = all_pages(async |page_token| {
        let request = ListSentMessagesRequest { user_id: AUTHOR, page_size: 800, page_token };
        let page = roost.messages().list_sent_messages(request).await.expect("a page").into_inner();
        (page.messages.iter().map(|message| message.id).collect(), page.next_page_token)
    });
    assert_eq!(sent.await, ids);
    roost.stop().await;
}
