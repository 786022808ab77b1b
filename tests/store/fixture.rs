//! A store to test, and what the tests say to it in one word.

use std::collections::BTreeSet;

use roost::{
    domain::{Event, Message, MessageId, Origin, Post, PostId, UserId},
    fanout::combine,
    store::{
        Accounts, FollowSide, HideReason, HomePage, HomeRead, Homes, Inboxes, Ledger, Lookups,
        NewestPosts, PushOutcome, RebuildTicket, Store,
    },
};

use crate::{Backend, CAP, model::Model};

pub const PARTITION: u32 = 0;
pub const NONE: [u64; 0] = [];

// Where the widths of numbers end: BOB < DEE < ANN < CEM.
pub const ANN: UserId = UserId(1 << 63);
pub const BOB: UserId = UserId(1);
pub const CEM: UserId = UserId(u64::MAX);
pub const DEE: UserId = UserId((1 << 53) + 1);

/// A store whose worker applies the events of one partition.
pub struct World<B: Backend> {
    pub backend: B,
    pub store: B::Store,
    pub log: Vec<Event>,
}

/// One past the last event that a store holds.
pub async fn applied(store: &impl Store, partition: u32) -> u64 {
    store.resume(partition, 0).await.unwrap().marks.applied
}

pub type Account<B> = <<B as Backend>::Store as Accounts>::Account;

impl<B: Backend> World<B> {
    pub async fn new(backend: B) -> Self {
        let store = backend.open().await;
        store.resume(PARTITION, 0).await.unwrap();
        Self { backend, store, log: Vec::new() }
    }

    /// All accounts are known.
    pub async fn peopled(backend: B) -> Self {
        let mut world = Self::new(backend).await;
        world.apply(&[followed(ANN, &[BOB, CEM, DEE])]).await;
        world
    }

    /// Something of everything has happened, and some of it was taken back.
    pub async fn eventful(backend: B) -> Self {
        let mut world = Self::new(backend).await;
        world.apply(&[followed(ANN, &[BOB, CEM]), named(10, ANN, "a"), post(11, ANN)]).await;
        world.apply(&[named(12, ANN, "a"), unfollowed(ANN, BOB), followed(BOB, &[ANN])]).await;
        world.apply(&[deleted(11, ANN), post(13, BOB), followed(ANN, &[DEE, BOB])]).await;
        world.apply(&[unfollowed(ANN, CEM), unfollowed(BOB, ANN), named(14, BOB, "a")]).await;
        world.apply(&[sent(15, ANN, "a"), sent(16, ANN, "a"), sent(17, ANN, "b")]).await;
        world.apply(&[unsent(17, ANN), sent(18, ANN, "b"), sent(19, BOB, "a")]).await;
        assert_eq!(world.ledger().await, Model::of(&world.log));
        world
    }

    pub async fn reopen(self) -> Self {
        let Self { backend, store, log } = self;
        store.sync().await.unwrap();
        drop(store);
        let store = backend.open().await;
        assert_eq!(applied(&store, PARTITION).await, log.len() as u64);
        Self { backend, store, log }
    }

    /// The same store as another process sees it.
    pub async fn open_another(&self) -> B::Store {
        self.backend.open().await
    }

    pub async fn apply(&mut self, events: &[Event]) -> Vec<u64> {
        let first_offset = self.log.len();
        self.log.extend_from_slice(events);
        self.replay(first_offset..self.log.len()).await
    }

    pub async fn replay(&self, offsets: std::ops::Range<usize>) -> Vec<u64> {
        let first_offset = offsets.start as u64;
        let events = self.log[offsets].into();
        let absent = self.store.apply(PARTITION, first_offset, events).await.unwrap();
        assert!(absent.is_sorted(), "{absent:?}");
        numbers(&absent)
    }

    pub async fn account(&self, user: UserId) -> Account<B> {
        let account = self.store.account(user).await.unwrap();
        account.unwrap_or_else(|| panic!("account {user} is not known"))
    }

    pub async fn accounts<const N: usize>(&self, users: [UserId; N]) -> [Account<B>; N] {
        let mut accounts = Vec::new();
        for user in users {
            accounts.push(self.account(user).await);
        }
        accounts.try_into().unwrap()
    }

    pub async fn existing(&self, ids: &[u64]) -> Vec<u64> {
        let ids: Vec<PostId> = ids.iter().copied().map(PostId).collect();
        let posts = self.store.posts(&ids).await.unwrap();
        assert_eq!(posts.len(), ids.len());
        posts.iter().flatten().map(|post| post.id.0).collect()
    }

    pub async fn author_page(&self, author: UserId, before: Option<u64>, count: usize) -> Vec<u64> {
        numbers(&self.store.author_page(author, before.map(PostId), count).await.unwrap())
    }

    pub async fn requests(&self, asked: &[(UserId, &str)]) -> Vec<Option<u64>> {
        let asked: Vec<_> = asked.iter().map(|(user, name)| (*user, (*name).to_owned())).collect();
        let made = self.store.requests(&asked).await.unwrap();
        made.into_iter().map(|post| post.map(|post| post.0)).collect()
    }

    pub async fn listed(&self, user: UserId, side: FollowSide) -> Vec<UserId> {
        let account = self.account(user).await;
        self.store.list_follows(account, side, None, usize::MAX).await.unwrap()
    }

    pub async fn newest(&self, author: Account<B>) -> (Vec<u64>, Option<u64>) {
        let newest = self.store.newest_of(&[author], self.store.entries_max()).await;
        let newest = newest.unwrap().pop().unwrap();
        (numbers(&newest.ids), newest.floor.map(|floor| floor.0))
    }

    /// Above the floor nothing is missing, and the floor is deep enough.
    pub async fn assert_newest(&self, author: UserId, all: &BTreeSet<u64>) {
        let (ids, floor) = self.newest(self.account(author).await).await;
        let above_floor: Vec<u64> =
            all.iter().copied().filter(|id| floor.is_none_or(|floor| *id > floor)).collect();
        assert_eq!(ids, above_floor, "the newest posts of {author} above {floor:?}");
        assert!(ids.len() <= self.store.entries_max());
        assert!(ids.len() >= CAP.min(all.len()), "{} of {} posts", ids.len(), all.len());
    }

    pub fn posts_in_log(&self) -> impl Iterator<Item = (PostId, UserId)> {
        self.log.iter().filter_map(|event| match event {
            Event::PostPublished { post, .. } => Some((post.id, post.author)),
            _ => None,
        })
    }

    pub fn messages_in_log(&self) -> impl Iterator<Item = (MessageId, UserId)> {
        self.log.iter().filter_map(|event| match event {
            Event::MessageSent { message, .. } => Some((message.id, message.sender)),
            _ => None,
        })
    }

    /// What the store says about everything that the log names.
    pub async fn ledger(&self) -> Model {
        let mut ledger = Model::default();
        let named = Model::named_in(&self.log);
        for user in named.users {
            let ids = self.author_page(user, None, usize::MAX).await;
            ledger.posts.extend(ids.into_iter().map(|id| (id, user)));
            let Some(account) = self.store.account(user).await.unwrap() else { continue };
            let read_marker = self.store.read_marker(account).await.unwrap().0;
            if read_marker > 0 {
                ledger.read_markers.insert(user, read_marker);
            }
            let hides = self.store.hides(account).await.unwrap();
            for reason in [HideReason::Muted, HideReason::Blocked, HideReason::BlockedBy] {
                let others = hides.for_reason(reason).iter();
                ledger.hides.extend(others.map(|other| (user, reason, *other)));
            }
            for followee in self.listed(user, FollowSide::Following).await {
                ledger.follows.insert((user, followee));
                let followee = self.account(followee).await;
                assert!(self.store.follows(account, followee).await.unwrap());
                let followers = self.store.followers_after(followee, None, usize::MAX).await;
                assert!(followers.unwrap().contains(&account));
            }
            let counts = self.store.count_follows(account).await.unwrap();
            let followers = self.listed(user, FollowSide::Followers).await;
            assert_eq!(counts.followers, followers.len() as u64);
            let of_user = ledger.follows.iter().filter(|(follower, _)| *follower == user);
            assert_eq!(counts.following, of_user.count() as u64);
        }
        let existing = self.existing(&named.posts).await;
        assert!(existing.iter().eq(ledger.posts.keys()), "{existing:?} {:?}", ledger.posts);
        for (author, name) in named.requests {
            if let Some(post) = self.requests(&[(author, &name)]).await[0] {
                ledger.requests.insert((author, name), post);
            }
        }
        let messages = self.store.messages(&named.messages).await.unwrap();
        ledger.messages.extend(messages.into_iter().flatten().map(|one| (one.id, one)));
        for (sender, name) in named.message_requests {
            if let Some(message) = self.store.message_of_request(sender, &name).await.unwrap() {
                ledger.message_requests.insert((sender, name), message);
            }
        }
        ledger
    }

    pub async fn wake(
        &self,
        reader: Account<B>,
        ids: impl IntoIterator<Item = u64>,
        floor: Option<u64>,
    ) {
        let ticket = self.store.begin_rebuild(reader).await.unwrap();
        assert!(self.store.finish_rebuild(reader, ticket, newest(ids, floor)).await.unwrap());
    }

    pub async fn finish(
        &self,
        reader: Account<B>,
        ticket: RebuildTicket,
        ids: impl IntoIterator<Item = u64>,
    ) -> bool {
        self.store.finish_rebuild(reader, ticket, newest(ids, None)).await.unwrap()
    }

    pub async fn push(&self, deliveries: &[(Account<B>, u64)]) -> PushOutcome {
        let deliveries = deliveries.iter().map(|(reader, id)| (*reader, PostId(*id))).collect();
        self.store.push(&combine(deliveries)).await.unwrap()
    }

    pub async fn page(
        &self,
        reader: Account<B>,
        before: Option<u64>,
        count_max: usize,
    ) -> HomePage {
        match self.store.page(reader, before.map(PostId), count_max).await.unwrap() {
            HomeRead::Page(page) => page,
            HomeRead::Asleep => panic!("{reader:?} sleeps"),
        }
    }

    /// The whole timeline, read in small pages; `None` while it sleeps.
    pub async fn shown(&self, reader: Account<B>) -> Option<Vec<u64>> {
        let mut shown = Vec::new();
        loop {
            let before = shown.last().copied().map(PostId);
            match self.store.page(reader, before, 7).await.unwrap() {
                HomeRead::Asleep => return None,
                HomeRead::Page(page) => {
                    assert!(!page.more || page.ids.len() == 7, "{page:?}");
                    shown.extend(numbers(&page.ids));
                    if !page.more {
                        return Some(shown);
                    }
                }
            }
        }
    }

    pub async fn deleted_of(&self, author: Account<B>) -> Vec<u64> {
        let mut deleted = numbers(&self.store.deleted_of(author).await.unwrap());
        deleted.sort_unstable();
        deleted
    }
}

pub fn post_of(id: u64, author: UserId) -> Post {
    Post {
        id: PostId(id),
        author,
        text: format!("post {id}"),
        origin: Origin::Shared,
        link: None,
        reply_to: None,
        repost_of: None,
        mentions: Vec::new(),
    }
}

pub fn post(id: u64, author: UserId) -> Event {
    Event::PostPublished { post: post_of(id, author), request_id: None }
}

pub fn named(id: u64, author: UserId, request_id: &str) -> Event {
    Event::PostPublished { post: post_of(id, author), request_id: Some(request_id.to_owned()) }
}

pub fn deleted(id: u64, author: UserId) -> Event {
    Event::PostDeleted { post: PostId(id), author }
}

pub fn followed(followee: UserId, followers: &[UserId]) -> Event {
    Event::Followed { followee, followers: followers.to_vec() }
}

pub fn unfollowed(followee: UserId, follower: UserId) -> Event {
    Event::Unfollowed { followee, follower }
}

pub fn muted(muter: UserId, muted: UserId, mutes: bool) -> Event {
    Event::MuteChanged { muter, muted, mutes }
}

pub fn blocked(blocker: UserId, blocked: UserId, blocks: bool) -> Event {
    Event::BlockChanged { blocker, blocked, blocks }
}

pub fn message_of(id: u64, sender: UserId, recipients: &[UserId]) -> Message {
    let text = format!("message {id}");
    Message { id: MessageId(id), sender, recipients: recipients.to_vec(), text }
}

/// To two accounts.
pub fn sent(id: u64, sender: UserId, request_id: &str) -> Event {
    let message = message_of(id, sender, &[CEM, DEE]);
    Event::MessageSent { message, request_id: Some(request_id.to_owned()) }
}

pub fn unsent(id: u64, sender: UserId) -> Event {
    Event::MessageDeleted { message: MessageId(id), sender }
}

/// Of ascending ids.
pub fn newest(ids: impl IntoIterator<Item = u64>, floor: Option<u64>) -> NewestPosts {
    NewestPosts { ids: ids.into_iter().map(PostId).collect(), floor: floor.map(PostId) }
}

pub fn numbers(ids: &[PostId]) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}
