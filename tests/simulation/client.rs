//! What clients do, and what they may expect while everything is under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use roost::{
    domain::{Event, MessageId, Origin, Post, PostId, UserId},
    event_log::{EventLog, codec, partition_of},
    home_timeline::{Filter, HomeTimelines},
    post_id::PostIds,
    writes::{Draft, Writes},
};

use crate::{
    faults::{Faults, FaultyStore},
    log::SimLog,
    model::Model,
    run::{CAP, PARTITIONS, USERS},
};

/// How many of them there are.
pub const CLIENTS: u64 = 3;
/// Authors who write as much as all others together, and have most followers.
const POPULAR: u64 = 2;

/// What was acknowledged to clients, as far as it binds the engine.
#[derive(Default)]
pub struct Acknowledged {
    /// Acknowledged posts.
    pub published: Mutex<BTreeMap<PostId, UserId>>,
    /// Acknowledged posts by their request.
    pub requests: Mutex<BTreeMap<(UserId, String), PostId>>,
    /// Posts whose deletion holds in every read.
    pub deleted: Mutex<BTreeSet<PostId>>,
    /// Follower and followee: whether the follow holds in every read, while no
    /// change of it is under way.
    pub follows: Mutex<BTreeMap<(UserId, UserId), bool>>,
    /// Muter and muted, likewise.
    pub mutes: Mutex<BTreeMap<(UserId, UserId), bool>>,
    /// Blocker and blocked, likewise.
    pub blocks: Mutex<BTreeMap<(UserId, UserId), bool>>,
    /// Acknowledged messages.
    pub messages: Mutex<BTreeMap<MessageId, UserId>>,
    /// Acknowledged messages by their request.
    pub message_requests: Mutex<BTreeMap<(UserId, String), MessageId>>,
    /// Messages whose deletion holds in every read.
    pub deleted_messages: Mutex<BTreeSet<MessageId>>,
    /// How far readers have read, at least.
    pub read_markers: Mutex<BTreeMap<UserId, PostId>>,
    pub next_request: AtomicU64,
    pub reads: AtomicU64,
    pub repeated_requests: AtomicU64,
}

/// One of several, who know nothing of each other but what was acknowledged.
pub struct Client {
    pub number: u64,
    /// Whether it has authors pulled, and pushed again.
    pub pulls: bool,
    pub faults: Faults,
    pub acknowledged: Arc<Acknowledged>,
    pub log: Arc<SimLog>,
    pub writes: Writes<SimLog, FaultyStore>,
    pub homes: Arc<HomeTimelines<FaultyStore>>,
    pub store: Arc<FaultyStore>,
    pub clock: Arc<AtomicU64>,
    pub other_node: Arc<PostIds>,
}

impl Client {
    pub async fn run(self) {
        for _ in 0..self.faults.pick(5..30) {
            match self.faults.pick(0..100) {
                0..25 => self.publish(self.author()).await,
                25..32 => self.delete().await,
                32..45 => self.change_follow(self.author(), true).await,
                45..52 => self.change_follow(self.author(), false).await,
                52..55 => self.import().await,
                55..64 => self.change_all_at_once().await,
                64..67 => self.repeat_a_request_elsewhere().await,
                67..72 => self.change_hide().await,
                72..75 => self.move_read_marker().await,
                75..80 => self.send_message().await,
                80..82 => self.delete_message().await,
                82..86 => self.read_inbox().await,
                86..90 if self.pulls => {
                    drop(self.writes.set_delivery(self.author(), self.faults.chance(50)).await);
                }
                _ => self.read().await,
            }
        }
    }

    pub fn user(&self) -> UserId {
        USERS[self.faults.pick(0..USERS.len() as u64) as usize]
    }

    pub fn author(&self) -> UserId {
        let users = if self.faults.chance(50) { POPULAR } else { USERS.len() as u64 };
        USERS[self.faults.pick(0..users) as usize]
    }

    /// What one author's followers see changes in every way, in any order.
    async fn change_all_at_once(&self) {
        let author = self.author();
        let follow = self.faults.chance(30);
        tokio::join!(
            self.publish(author),
            self.delete(),
            self.change_follow(author, follow),
            self.delete(),
        );
    }

    /// A request that was acknowledged comes again by way of another node, which
    /// does not know of it yet.
    async fn repeat_a_request_elsewhere(&self) {
        let (author, request_id) = {
            let requests = self.acknowledged.requests.lock().unwrap();
            let Some(request) = self.pick_one(requests.keys()) else { return };
            request.clone()
        };
        let post = Post {
            id: self.other_node.next(self.clock.load(Ordering::Relaxed), false).unwrap(),
            author,
            text: "tweet".to_owned(),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
            mentions: Vec::new(),
        };
        let event = Event::PostPublished { post, request_id: Some(request_id) };
        let partition = partition_of(author, PARTITIONS);
        if self.log.append(partition, vec![codec::encode(&event)]).await.is_ok() {
            self.acknowledged.repeated_requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Mostly one of the last.
    pub fn pick_one<T>(&self, mut items: impl ExactSizeIterator<Item = T>) -> Option<T> {
        let len = items.len();
        let candidates = if self.faults.chance(60) { len.min(4) } else { len };
        let place = len.checked_sub(1)? - self.faults.pick(0..candidates as u64) as usize;
        items.nth(place)
    }

    async fn publish(&self, author: UserId) {
        let count = self.faults.pick(1..4);
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft(author)).collect();
        let named: Vec<_> =
            drafts.iter().map(|draft| (draft.author, draft.request_id.clone())).collect();
        let results = self.writes.publish(drafts).await;
        for ((author, request_id), result) in named.into_iter().zip(results) {
            let Ok(post) = result else { continue };
            self.acknowledged.published.lock().unwrap().insert(post, author);
            if let Some(request_id) = request_id {
                let mut requests = self.acknowledged.requests.lock().unwrap();
                let first = *requests.entry((author, request_id)).or_insert(post);
                assert_eq!(first, post, "one request made two posts");
            }
        }
    }

    fn mentions(&self, author: UserId) -> BTreeSet<UserId> {
        let few = if self.faults.chance(40) { self.faults.pick(1..3) } else { 0 };
        (0..few).map(|_| self.author()).filter(|user| *user != author).collect()
    }

    fn draft(&self, author: UserId) -> Draft {
        let author = if self.faults.chance(70) { author } else { self.author() };
        let request_id = match self.faults.pick(0..10) {
            0..5 => None,
            5..8 => Some(self.acknowledged.next_request.fetch_add(1, Ordering::Relaxed)),
            // A repetition, perhaps of one that is under way.
            _ => Some(self.faults.pick(0..20)),
        };
        let repost_of = self.repost_of();
        // With a text it is not a plain one.
        let is_plain = repost_of.is_some() && self.faults.chance(80);
        Draft {
            author,
            text: if is_plain { String::new() } else { "tweet".to_owned() },
            origin: Origin::Shared,
            link: None,
            reply_to: self.reply_to(),
            repost_of,
            mentions: self.mentions(author),
            request_id: request_id.map(|number| number.to_string()),
            is_retry: self.faults.chance(20),
        }
    }

    /// Now and then one of the last posts, which may be a repost, or deleted.
    fn repost_of(&self) -> Option<PostId> {
        if !self.faults.chance(25) {
            return None;
        }
        let published = self.acknowledged.published.lock().unwrap();
        self.pick_one(published.keys()).copied()
    }

    fn reply_to(&self) -> Option<PostId> {
        if !self.faults.chance(15) {
            return None;
        }
        let published = self.acknowledged.published.lock().unwrap();
        self.pick_one(published.keys()).copied()
    }

    async fn delete(&self) {
        let post = {
            let published = self.acknowledged.published.lock().unwrap();
            let Some(post) = self.pick_one(published.keys()) else { return };
            *post
        };
        if let Ok(true) = self.writes.delete(post).await {
            self.acknowledged.deleted.lock().unwrap().insert(post);
        }
    }

    /// Each client changes the follows of its own readers, so that it knows in
    /// which order it asked.
    async fn change_follow(&self, followee: UserId, follow: bool) {
        let follower = self.user();
        if follower == followee || follower.0 % CLIENTS != self.number {
            return;
        }
        let pair = (follower, followee);
        self.acknowledged.follows.lock().unwrap().remove(&pair);
        let result = if follow {
            self.writes.follow(follower, followee).await
        } else {
            self.writes.unfollow(follower, followee).await
        };
        if let Ok(true) = result {
            self.acknowledged.follows.lock().unwrap().insert(pair, follow);
        }
    }

    /// As with follows, those of its own readers.
    async fn change_hide(&self) {
        let (reader, other, hides) = (self.user(), self.author(), self.faults.chance(60));
        if reader == other || reader.0 % CLIENTS != self.number {
            return;
        }
        let pair = (reader, other);
        let (acknowledged, result) = if self.faults.chance(50) {
            self.acknowledged.mutes.lock().unwrap().remove(&pair);
            (&self.acknowledged.mutes, self.writes.mute(reader, other, hides).await)
        } else {
            self.acknowledged.blocks.lock().unwrap().remove(&pair);
            (&self.acknowledged.blocks, self.writes.block(reader, other, hides).await)
        };
        if let Ok(true) = result {
            acknowledged.lock().unwrap().insert(pair, hides);
        }
    }

    async fn move_read_marker(&self) {
        let reader = self.user();
        let page = self.homes.read(reader, &Filter::default(), None, CAP).await;
        let Some(post) = page.ok().and_then(|page| self.pick_one(page.ids.into_iter())) else {
            return;
        };
        if let Ok(true) = self.writes.move_read_marker(reader, post).await {
            let mut markers = self.acknowledged.read_markers.lock().unwrap();
            let marker = markers.entry(reader).or_insert(post);
            *marker = post.max(*marker);
        }
    }

    async fn import(&self) {
        let followee = self.author();
        let followers: Vec<UserId> = USERS
            .into_iter()
            .filter(|user| *user != followee && user.0 % CLIENTS == self.number)
            .collect();
        for follower in &followers {
            self.acknowledged.follows.lock().unwrap().remove(&(*follower, followee));
        }
        // Durable, but not yet applied: it binds nothing but the end.
        let _ = self.writes.import(vec![(followee, followers)]).await;
    }

    async fn read(&self) {
        let reader = self.user();
        let deleted = self.acknowledged.deleted.lock().unwrap().clone();
        let all_acknowledged = || {
            let Acknowledged { follows, mutes, blocks, .. } = &*self.acknowledged;
            [follows, mutes, blocks].map(|acknowledged| acknowledged.lock().unwrap().clone())
        };
        let [follows, mutes, blocks] = all_acknowledged();
        let count_max = self.faults.pick(1..CAP as u64 + 2) as usize;
        let page = self.homes.read(reader, &Filter::default(), None, count_max).await;
        let Ok(page) = page else { return };
        self.acknowledged.reads.fetch_add(1, Ordering::Relaxed);
        let [follows_then, mutes_then, blocks_then] = all_acknowledged();
        let model = Model::of(&self.log.all());
        assert!(page.ids.is_sorted_by(|newer, older| newer > older), "the order of {page:?}");
        for id in page.ids {
            let original = model.reposts.get(&id).copied().unwrap_or(id);
            for post in [id, original] {
                assert!(!deleted.contains(&post), "{post} is deleted, and {reader} sees it");
            }
            let author = model.authors[&id];
            let (pair, turned) = ((reader, author), (author, reader));
            // Acknowledged before the read, and after it.
            let is = |acknowledged: &BTreeMap<_, bool>, then: &BTreeMap<_, bool>, pair, value| {
                acknowledged.get(pair) == Some(&value) && then.get(pair) == Some(&value)
            };
            let unfollowed = is(&follows, &follows_then, &pair, false);
            assert!(!unfollowed, "{reader} does not follow {author}, and sees {id}");
            let hidden = is(&mutes, &mutes_then, &pair, true)
                || is(&blocks, &blocks_then, &pair, true)
                || is(&blocks, &blocks_then, &turned, true);
            assert!(!hidden, "{reader} hides {author}, and sees {id}");
        }
    }
}
