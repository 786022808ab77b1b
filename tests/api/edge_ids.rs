//! Account ids where the widths of numbers end, in every call that takes or gives one.

use roost::proto::v1::{
    BlockRequest, Delivery, FollowerList, GetAccountRequest, GetUnreadRequest,
    ImportFollowsRequest, ListBlockedRequest, ListFollowersRequest, ListFollowingRequest,
    ListMessagesRequest, ListMutedRequest, ListNotificationsRequest, ListPulledAuthorsRequest,
    ListSentMessagesRequest, MoveReadMarkerRequest, MuteRequest, PublishPostRequest,
    SendMessageRequest, SetDeliveryRequest, StreamHomeTimelineRequest, UnblockRequest,
    UnmuteRequest,
};

use crate::server::{Roost, post};

/// The ends of 31, 32, 53 (a double), 63 and 64 bits, ascending.
const EDGES: [u64; 8] =
    [1, 1 << 31, 1 << 32, (1 << 53) + 1, u64::MAX >> 1, 1 << 63, u64::MAX - 1, u64::MAX];
/// Follows every edge account, and is followed by each of them.
const HUB: u64 = 7;

/// What must be the same before and after the store is made again.
#[derive(Debug, PartialEq)]
struct Seen {
    home: Vec<u64>,
    author: Vec<u64>,
    following: Vec<u64>,
    followers: Vec<u64>,
    counts: (u64, u64),
    muted: Vec<u64>,
    blocked: Vec<u64>,
    notifications: Vec<u64>,
    received: Vec<(u64, Vec<u64>)>,
    sent: Vec<u64>,
    read_marker: u64,
}

impl Seen {
    async fn by(roost: &Roost, user_id: u64) -> Self {
        let mut graph = roost.graph();
        let counts = graph.get_account(GetAccountRequest { user_id }).await.expect("known");
        let counts = counts.into_inner();
        let muted = ListMutedRequest { user_id, ..Default::default() };
        let blocked = ListBlockedRequest { user_id, ..Default::default() };
        let told = ListNotificationsRequest { user_id, ..Default::default() };
        let told = roost.notifications().list_notifications(told).await.expect("a page");
        let told = told.into_inner().notifications.into_iter();
        let received = ListMessagesRequest { user_id, ..Default::default() };
        let received = roost.messages().list_messages(received).await.expect("a page");
        let received = received.into_inner().messages.into_iter();
        let sent = ListSentMessagesRequest { user_id, ..Default::default() };
        let sent = roost.messages().list_sent_messages(sent).await.expect("a page").into_inner();
        let unread = roost.timelines().get_unread(GetUnreadRequest { user_id }).await;
        Self {
            home: roost.home(user_id).await.post_ids,
            author: roost.author(user_id).await.post_ids,
            following: following(roost, user_id).await,
            followers: followers(roost, user_id).await,
            counts: (counts.follower_count, counts.following_count),
            muted: graph.list_muted(muted).await.expect("a page").into_inner().user_ids,
            blocked: graph.list_blocked(blocked).await.expect("a page").into_inner().user_ids,
            notifications: told.map(|it| it.post.expect("a post").author_id).collect(),
            received: received.map(|it| (it.sender_id, it.recipient_ids)).collect(),
            sent: sent.messages.into_iter().map(|it| it.id).collect(),
            read_marker: unread.expect("a count").into_inner().read_marker_id,
        }
    }
}

/// Page by page, so that ids go through page tokens too.
async fn following(roost: &Roost, user_id: u64) -> Vec<u64> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListFollowingRequest { user_id, page_size: 3, page_token };
        let page = roost.graph().list_following(request).await.expect("a page").into_inner();
        all.extend(page.user_ids);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn followers(roost: &Roost, user_id: u64) -> Vec<u64> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListFollowersRequest { user_id, page_size: 3, page_token };
        let page = roost.graph().list_followers(request).await.expect("a page").into_inner();
        all.extend(page.user_ids);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn pulled(roost: &Roost) -> Vec<u64> {
    let mut graph = roost.graph();
    let listed = graph.list_pulled_authors(ListPulledAuthorsRequest {}).await;
    listed.expect("listed").into_inner().author_ids
}

/// The one before it, round the ends.
fn before(place: usize) -> u64 {
    EDGES[(place + EDGES.len() - 1) % EDGES.len()]
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_ids_stay_themselves_in_every_call() {
    let roost = Roost::start().await;
    let mut graph = roost.graph();
    // One after the other, and all at once.
    for edge in EDGES {
        roost.follow(HUB, edge).await;
    }
    let list = FollowerList { followee_id: HUB, follower_ids: EDGES.to_vec() };
    roost.import(vec![ImportFollowsRequest { lists: vec![list] }]).await.expect("imported");
    let mut posts = Vec::new();
    for (place, edge) in EDGES.into_iter().enumerate() {
        let mention = PublishPostRequest { mentioned_ids: vec![before(place)], ..post(edge, "hi") };
        posts.insert(0, roost.publish(mention).await);
        let message = SendMessageRequest {
            sender_id: edge,
            recipient_ids: vec![before(place)],
            text: "psst".to_owned(),
            ..Default::default()
        };
        roost.messages().send_message(message).await.expect("sent");
        let mute = MuteRequest { muter_id: edge, muted_id: before(place) };
        graph.mute(mute).await.expect("muted");
        let block = BlockRequest { blocker_id: HUB, blocked_id: edge };
        graph.block(block).await.expect("blocked");
    }
    roost.follow(1, u64::MAX).await;
    roost.unfollow(1, u64::MAX).await;
    let of_hub = roost.publish(post(HUB, "to all of them")).await;
    roost.delivered().await;

    // What the hub has blocked it does not see, nor do they see it.
    let all_blocked = Seen::by(&roost, HUB).await;
    assert_eq!((all_blocked.home, all_blocked.blocked), (vec![of_hub], EDGES.to_vec()));
    for edge in EDGES {
        let unblock = UnblockRequest { blocker_id: HUB, blocked_id: edge };
        graph.unblock(unblock).await.expect("unblocked");
    }
    let whole: Vec<u64> = [of_hub].into_iter().chain(posts.clone()).collect();
    let hub = Seen::by(&roost, HUB).await;
    assert_eq!((&hub.home, &hub.blocked), (&whole, &vec![]));
    assert_eq!((&hub.following[..], &hub.followers[..]), (&EDGES[..], &EDGES[..]));
    assert_eq!(hub.counts, (EDGES.len() as u64, EDGES.len() as u64));

    let mut seen = vec![(HUB, hub)];
    for (place, edge) in EDGES.into_iter().enumerate() {
        let marker = MoveReadMarkerRequest { user_id: edge, post_id: of_hub };
        roost.timelines().move_read_marker(marker).await.expect("moved");
        let its = Seen::by(&roost, edge).await;
        let (after, own) = (EDGES[(place + 1) % EDGES.len()], posts[EDGES.len() - 1 - place]);
        assert_eq!((&its.home[..], &its.author[..]), (&[of_hub, own][..], &[own][..]), "{edge}");
        assert_eq!((&its.following[..], &its.followers[..]), (&[HUB][..], &[HUB][..]), "{edge}");
        assert_eq!((its.counts, its.read_marker), ((1, 1), of_hub), "{edge}");
        assert_eq!(its.muted, [before(place)], "{edge}");
        assert_eq!(its.notifications, [after], "{edge}");
        assert_eq!((&its.received[..], its.sent.len()), (&[(after, vec![edge])][..], 1), "{edge}");
        seen.push((edge, its));
    }

    // Everything again from the log, then once more after a restart.
    let (_, roost) = roost.rebuild().await;
    let roost = roost.restart().await;
    for (user, expected) in &seen {
        assert_eq!(&Seen::by(&roost, *user).await, expected, "account {user}");
    }
    let unmute = UnmuteRequest { muter_id: u64::MAX, muted_id: u64::MAX - 1 };
    roost.graph().unmute(unmute).await.expect("unmuted");
    assert!(Seen::by(&roost, u64::MAX).await.muted.is_empty());
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_ids_are_pulled_and_streamed() {
    let roost = Roost::start().await;
    for edge in EDGES {
        roost.follow(HUB, edge).await;
        roost.follow(edge, HUB).await;
    }
    let mut streams = Vec::new();
    for user_id in EDGES.into_iter().chain([HUB]) {
        let request = StreamHomeTimelineRequest { user_id, ids_only: true, ..Default::default() };
        let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
        let mut stream = stream.into_inner();
        // From here on nothing is missed.
        stream.message().await.expect("not broken").expect("a message");
        streams.push(stream);
    }
    for edge in EDGES {
        let delivery = SetDeliveryRequest { author_id: edge, delivery: Delivery::Pull.into() };
        roost.graph().set_delivery(delivery).await.expect("set");
    }
    let mut posts = Vec::new();
    for edge in EDGES {
        posts.insert(0, roost.publish(post(edge, "pulled")).await);
    }
    let of_hub = roost.publish(post(HUB, "pushed")).await;
    roost.delivered().await;
    posts.insert(0, of_hub);
    assert_eq!(pulled(&roost).await, EDGES);
    assert_eq!(roost.home(HUB).await.post_ids, posts);
    for (place, mut stream) in streams.into_iter().enumerate() {
        // An edge account sees its own post and the hub's.
        let expected = if place < EDGES.len() { 2 } else { posts.len() };
        let mut streamed = Vec::new();
        while streamed.len() < expected {
            streamed.extend(stream.message().await.expect("not broken").expect("more").post_ids);
        }
        streamed.sort_unstable();
        let mut home = roost.home(EDGES.get(place).copied().unwrap_or(HUB)).await.post_ids;
        home.reverse();
        assert_eq!(streamed, home);
    }
    let (_, roost) = roost.rebuild().await;
    assert_eq!(pulled(&roost).await, EDGES);
    assert_eq!(roost.home(HUB).await.post_ids, posts);
    roost.stop().await;
}
