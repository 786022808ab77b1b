//! What a reader hides is hidden in every read path: read path × relation × how a post refers to
//! the hidden account. A new read path belongs into [`READ_PATHS`].

use std::fmt::Debug;

use roost::proto::v1::{
    BatchGetCountsRequest, BatchGetPostsRequest, BlockRequest, GetPostRequest, GetThreadRequest,
    GetUnreadRequest, ListCatchUpRequest, ListHomeTimelineRequest, ListMessagesRequest,
    ListNotificationsRequest, ListSentMessagesRequest, MuteRequest, Origin, PublishPostRequest,
    SendMessageRequest, StreamHomeTimelineRequest, UnblockRequest, UnmuteRequest,
};

use crate::server::{Roost, home_of, post};

const READER: u64 = 1;
const HIDDEN: u64 = 2;
const OTHER: u64 = 3;
/// Stands in every text of the hidden account, and in no other.
const HIDDEN_TEXT: &str = "by the hidden account";

#[derive(Clone, Copy, Debug)]
enum Relation {
    Mutes,
    Blocks,
    BlockedBy,
}

#[derive(Clone, Copy, Debug)]
enum ReadPath {
    Home,
    HomeIds,
    HomeOfOrigins,
    HomeOfFollowedReplies,
    HomeWithAllReposts,
    Stream,
    CatchUp,
    Replies,
    Ancestors,
    Notifications,
    ReceivedMessages,
}

const READ_PATHS: [ReadPath; 11] = [
    ReadPath::Home,
    ReadPath::HomeIds,
    ReadPath::HomeOfOrigins,
    ReadPath::HomeOfFollowedReplies,
    ReadPath::HomeWithAllReposts,
    ReadPath::Stream,
    ReadPath::CatchUp,
    ReadPath::Replies,
    ReadPath::Ancestors,
    ReadPath::Notifications,
    ReadPath::ReceivedMessages,
];

/// What the accounts have published.
#[derive(Default)]
struct Published {
    /// A post of the reader that others answer.
    root: u64,
    /// The end of a chain of answers.
    leaf: u64,
    /// A quote of a post of the hidden account.
    quote: u64,
    /// A post of the hidden account.
    of_hidden: u64,
    /// Posts and messages of the hidden account, and posts that repeat or answer one of its posts.
    hidden: Vec<u64>,
}

impl Relation {
    async fn set(self, roost: &Roost, holds: bool) {
        let mut graph = roost.graph();
        let (blocker_id, blocked_id) = match self {
            Self::BlockedBy => (HIDDEN, READER),
            Self::Mutes | Self::Blocks => (READER, HIDDEN),
        };
        let (muter_id, muted_id) = (READER, HIDDEN);
        let applied = match (self, holds) {
            (Self::Mutes, true) => {
                graph
                    .mute(MuteRequest { muter_id, muted_id })
                    .await
                    .expect("muted")
                    .into_inner()
                    .applied
            }
            (Self::Mutes, false) => {
                let request = UnmuteRequest { muter_id, muted_id };
                graph.unmute(request).await.expect("unmuted").into_inner().applied
            }
            (_, true) => {
                let request = BlockRequest { blocker_id, blocked_id };
                graph.block(request).await.expect("blocked").into_inner().applied
            }
            (_, false) => {
                let request = UnblockRequest { blocker_id, blocked_id };
                graph.unblock(request).await.expect("unblocked").into_inner().applied
            }
        };
        assert!(applied);
    }
}

async fn publish(roost: &Roost) -> Published {
    let mut published = Published::default();
    let of = |author, request: PublishPostRequest| {
        let text = if author == HIDDEN { HIDDEN_TEXT } else { "hello" };
        PublishPostRequest {
            mentioned_ids: request.mentioned_ids,
            ..PublishPostRequest {
                reply_to_id: request.reply_to_id,
                repost_of_id: request.repost_of_id,
                ..post(author, text)
            }
        }
    };
    let plain = PublishPostRequest::default;
    let answer = |reply_to_id| PublishPostRequest { reply_to_id, ..plain() };
    let quote = |repost_of_id| PublishPostRequest { repost_of_id, ..plain() };
    let mention = |request| PublishPostRequest { mentioned_ids: vec![READER], ..request };
    let repost =
        |author_id, repost_of_id| PublishPostRequest { repost_of_id, ..post(author_id, "") };

    published.root = roost.publish(of(READER, plain())).await;
    let of_other = roost.publish(of(OTHER, mention(plain()))).await;
    published.of_hidden = roost.publish(of(HIDDEN, mention(plain()))).await;
    let (root, of_hidden) = (published.root, published.of_hidden);
    published.quote = roost.publish(of(OTHER, mention(quote(of_hidden)))).await;
    published.hidden = vec![of_hidden, published.quote];
    let hidden = [
        of(HIDDEN, quote(of_other)),
        of(HIDDEN, quote(root)),
        of(HIDDEN, answer(root)),
        repost(HIDDEN, root),
        mention(repost(OTHER, of_hidden)),
        of(OTHER, mention(answer(of_hidden))),
        // An answer to the reader that quotes the hidden account.
        of(OTHER, PublishPostRequest { reply_to_id: root, ..quote(of_hidden) }),
    ];
    for request in hidden {
        published.hidden.push(roost.publish(request).await);
    }
    roost.publish(of(OTHER, answer(root))).await;
    // A chain of answers.
    let first = roost.publish(of(HIDDEN, answer(root))).await;
    let second = roost.publish(of(OTHER, answer(first))).await;
    published.hidden.extend([first, second]);
    let third = roost.publish(of(OTHER, answer(second))).await;
    published.leaf = roost.publish(of(READER, answer(third))).await;
    for sender_id in [HIDDEN, OTHER] {
        let text = if sender_id == HIDDEN { HIDDEN_TEXT } else { "psst" }.to_owned();
        let request = SendMessageRequest {
            sender_id,
            recipient_ids: vec![READER],
            text,
            ..SendMessageRequest::default()
        };
        let sent = roost.messages().send_message(request).await.expect("sent").into_inner();
        if sender_id == HIDDEN {
            published.hidden.push(sent.message_id);
        }
    }
    let request = SendMessageRequest {
        sender_id: READER,
        recipient_ids: vec![HIDDEN],
        text: "mine".to_owned(),
        ..SendMessageRequest::default()
    };
    roost.messages().send_message(request).await.expect("sent");
    roost.delivered().await;
    published
}

/// The ids that the reader sees, and all of the answers as text.
async fn read(roost: &Roost, path: ReadPath, published: &Published) -> (Vec<u64>, String) {
    fn answer(ids: impl IntoIterator<Item = u64>, response: &impl Debug) -> (Vec<u64>, String) {
        (ids.into_iter().collect(), format!("{response:?}"))
    }
    let home = async |request| {
        let request = ListHomeTimelineRequest { page_size: 2, ..request };
        let pages = roost.home_pages(request).await;
        answer(pages.iter().flat_map(|page| page.post_ids.clone()), &pages)
    };
    match path {
        ReadPath::Home => home(home_of(READER)).await,
        ReadPath::HomeIds => {
            home(ListHomeTimelineRequest { ids_only: true, ..home_of(READER) }).await
        }
        ReadPath::HomeOfOrigins => {
            let origins = vec![Origin::Shared.into()];
            home(ListHomeTimelineRequest { origins, ..home_of(READER) }).await
        }
        ReadPath::HomeOfFollowedReplies => {
            let request =
                ListHomeTimelineRequest { followed_replies_only: true, ..home_of(READER) };
            home(request).await
        }
        ReadPath::HomeWithAllReposts => {
            home(ListHomeTimelineRequest { all_reposts: true, ..home_of(READER) }).await
        }
        ReadPath::Stream => {
            let request = StreamHomeTimelineRequest {
                user_id: READER,
                resume_after_id: published.root - 1,
                all_reposts: true,
                ..StreamHomeTimelineRequest::default()
            };
            let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
            let message = stream.into_inner().message().await.expect("a message").expect("one");
            answer(message.post_ids.clone(), &message)
        }
        ReadPath::CatchUp => {
            let request = ListCatchUpRequest {
                user_id: READER,
                page_size: 100,
                posts_per_author: 100,
                ..ListCatchUpRequest::default()
            };
            let page = roost.timelines().list_catch_up(request).await.expect("a page").into_inner();
            answer(page.post_ids.clone(), &page)
        }
        ReadPath::Replies | ReadPath::Ancestors => {
            let is_ancestors = matches!(path, ReadPath::Ancestors);
            let post_id = if is_ancestors { published.leaf } else { published.root };
            let request =
                GetThreadRequest { post_id, reader_id: READER, ..GetThreadRequest::default() };
            let thread = roost.posts().get_thread(request).await.expect("a thread").into_inner();
            let posts = if is_ancestors { &thread.ancestors } else { &thread.replies };
            answer(posts.iter().map(|post| post.id), &thread)
        }
        ReadPath::Notifications => {
            let request =
                ListNotificationsRequest { user_id: READER, page_size: 100, ..Default::default() };
            let page = roost.notifications().list_notifications(request).await.expect("a page");
            let page = page.into_inner();
            let posts = page.notifications.iter().filter_map(|it| it.post.as_ref());
            answer(posts.map(|post| post.id), &page)
        }
        ReadPath::ReceivedMessages => {
            let request = ListMessagesRequest { user_id: READER, ..ListMessagesRequest::default() };
            let page = roost.messages().list_messages(request).await.expect("a page").into_inner();
            answer(page.messages.iter().map(|message| message.id), &page)
        }
    }
}

async fn read_all(roost: &Roost, published: &Published) -> Vec<(Vec<u64>, String)> {
    let mut answers = Vec::new();
    for path in READ_PATHS {
        answers.push(read(roost, path, published).await);
    }
    answers
}

async fn unread(roost: &Roost) -> (u32, u64) {
    let request = GetUnreadRequest { user_id: READER };
    let unread = roost.timelines().get_unread(request).await.expect("unread").into_inner();
    (unread.count, unread.newest_id)
}

/// What is the same for everybody, whatever they hide.
async fn read_public(roost: &Roost, published: &Published) -> String {
    let mut posts = roost.posts();
    let of_hidden = GetPostRequest { post_id: published.of_hidden };
    let post_ids = published.hidden.clone();
    let author = roost.author(HIDDEN).await;
    let request = ListSentMessagesRequest { user_id: READER, ..ListSentMessagesRequest::default() };
    let sent = roost.messages().list_sent_messages(request).await.expect("a page").into_inner();
    assert_eq!(sent.messages.len(), 1);
    let thread = GetThreadRequest { post_id: published.root, ..GetThreadRequest::default() };
    format!(
        "{:?}",
        (
            posts.get_post(of_hidden).await.expect("a post").into_inner(),
            posts
                .batch_get_posts(BatchGetPostsRequest { post_ids: post_ids.clone() })
                .await
                .expect("posts")
                .into_inner(),
            posts
                .batch_get_counts(BatchGetCountsRequest { post_ids })
                .await
                .expect("counts")
                .into_inner(),
            posts.get_thread(thread).await.expect("a thread").into_inner(),
            author,
            sent,
        )
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_account_is_left_out_of_every_read_path() {
    let roost = Roost::start().await;
    for (follower, followee) in [(READER, HIDDEN), (READER, OTHER)] {
        roost.follow(follower, followee).await;
    }
    let published = publish(&roost).await;
    let is_hidden = |id: &u64| published.hidden.contains(id);
    let (before, public) =
        (read_all(&roost, &published).await, read_public(&roost, &published).await);
    let unread_before = unread(&roost).await;
    for relation in [Relation::Mutes, Relation::Blocks, Relation::BlockedBy] {
        relation.set(&roost, true).await;
        let hiding = read_all(&roost, &published).await;
        for ((path, (all, _)), (shown, text)) in READ_PATHS.iter().zip(&before).zip(&hiding) {
            let expected: Vec<u64> = all.iter().copied().filter(|id| !is_hidden(id)).collect();
            assert!(!expected.is_empty() && expected.len() < all.len(), "{path:?} tests nothing");
            assert_eq!(*shown, expected, "{path:?} where the reader {relation:?}");
            assert!(!text.contains(HIDDEN_TEXT), "{path:?} where the reader {relation:?}: {text}");
        }
        let catch_up = READ_PATHS.iter().position(|path| matches!(path, ReadPath::CatchUp));
        let others = &hiding[catch_up.expect("a path")].0;
        let newest = others.iter().max().copied().expect("a post");
        assert_eq!(unread(&roost).await, (others.len() as u32, newest), "{relation:?}");
        // A post that is asked for by its id is shown, without what it quotes.
        let request =
            GetThreadRequest { post_id: published.quote, reader_id: READER, ..Default::default() };
        let quote = roost.posts().get_thread(request).await.expect("a thread").into_inner().post;
        let quote = quote.expect("a post");
        assert_eq!((quote.id, quote.original), (published.quote, None), "{relation:?}");
        assert_eq!(read_public(&roost, &published).await, public, "{relation:?}");
        relation.set(&roost, false).await;
        let after = read_all(&roost, &published).await;
        for ((path, before), after) in READ_PATHS.iter().zip(&before).zip(&after) {
            assert_eq!(after.0, before.0, "{path:?} once the reader no longer {relation:?}");
        }
        assert_eq!(unread(&roost).await, unread_before);
    }
    roost.stop().await;
}
