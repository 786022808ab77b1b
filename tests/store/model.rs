//! What a store should say, by brute force, and random runs held against it.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Message, MessageId, PostId, UserId},
    store::{Floor, HideReason, Homes, Lookups, NewestPosts},
};

use crate::{
    Backend, CAP,
    fixture::{
        ANN, World, blocked, followed, message_of, muted, newest, numbers, post_of, unfollowed,
    },
    on_every_backend,
    seed::seed,
};

on_every_backend! {
    the_ledger_is_what_a_plain_model_would_be
    a_timeline_is_what_a_plain_model_would_be
}

async fn the_ledger_is_what_a_plain_model_would_be(backend: impl Backend) {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut world = World::new(backend).await;
    let users: Vec<UserId> = (1..=6).map(UserId).collect();
    let mut next_id = 0;
    for _ in 0..120 {
        let user = |rng: &mut StdRng| users[rng.random_range(0..users.len())];
        let event = |rng: &mut StdRng, next_id: &mut u64| match rng.random_range(0..10) {
            0..5 => {
                *next_id += rng.random_range(1..3);
                let id = if rng.random_bool(0.1) { *next_id + 10_000 } else { *next_id };
                let request = rng.random_bool(0.4).then(|| rng.random_range(0..12).to_string());
                Event::PostPublished { post: post_of(id, user(rng)), request_id: request }
            }
            5..7 => followed(user(rng), &[user(rng), user(rng)]),
            7 => muted(user(rng), user(rng), rng.random_bool(0.6)),
            8 if rng.random_bool(0.5) => blocked(user(rng), user(rng), rng.random_bool(0.6)),
            8 if rng.random_bool(0.5) => {
                *next_id += 1;
                let request = rng.random_bool(0.4).then(|| rng.random_range(0..12).to_string());
                let message = message_of(*next_id, user(rng), &[user(rng)]);
                Event::MessageSent { message, request_id: request }
            }
            8 => Event::ReadMarkerMoved {
                reader: user(rng),
                post: PostId(rng.random_range(1..*next_id + 2)),
            },
            _ => unfollowed(user(rng), user(rng)),
        };
        let mut events: Vec<Event> =
            (0..rng.random_range(1..6)).map(|_| event(&mut rng, &mut next_id)).collect();
        let posts: Vec<(PostId, UserId)> = world.posts_in_log().collect();
        if !posts.is_empty() && rng.random_bool(0.4) {
            let (post, author) = posts[rng.random_range(0..posts.len())];
            events.push(Event::PostDeleted { post, author });
        }
        let messages: Vec<(MessageId, UserId)> = world.messages_in_log().collect();
        if !messages.is_empty() && rng.random_bool(0.2) {
            let (message, sender) = messages[rng.random_range(0..messages.len())];
            events.push(Event::MessageDeleted { message, sender });
        }
        world.apply(&events).await;
        match rng.random_range(0..6) {
            0 => {
                let from = rng.random_range(0..world.log.len());
                let end = rng.random_range(from..=world.log.len());
                world.replay(from..end).await;
            }
            1 => {
                world = world.reopen().await;
                let mut next = rng.random_range(0..=world.log.len());
                while next < world.log.len() {
                    let end = world.log.len().min(next + rng.random_range(1..20));
                    world.replay(next..end).await;
                    next = end;
                }
            }
            _ => {}
        }
        let expected = Model::of(&world.log);
        assert_eq!(world.ledger().await, expected);
        for user in &users {
            if world.store.exists(*user).await.unwrap() {
                let of_user = expected.posts.iter().filter(|(_, author)| *author == user);
                let all: BTreeSet<u64> = of_user.map(|(id, _)| *id).collect();
                world.assert_newest(*user, &all).await;
                let before = rng.random_range(0..next_id + 2);
                let expected: Vec<u64> = all.range(..before).rev().take(3).copied().collect();
                let author = world.account(*user).await;
                let older = world.store.older_of(&[author], PostId(before), 3).await.unwrap();
                assert_eq!(numbers(&older[0]), expected, "of {user} before {before}");
            }
        }
    }
}

/// A reader of three authors, whose posts come in nearly in order, go, and come
/// and go all together as the reader follows and unfollows.
async fn a_timeline_is_what_a_plain_model_would_be(backend: impl Backend) {
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::peopled(backend).await;
    let reader = world.account(ANN).await;
    let entries_max = world.store.entries_max();
    let mut posts: [BTreeSet<u64>; 3] = Default::default();
    let mut followed = [true; 3];
    let mut answered = 0;
    for step in 1..=600 {
        let author = rng.random_range(0..3);
        match rng.random_range(0..20) {
            0 => {
                followed[author] = !followed[author];
                let of_author = newest_of(posts[author].iter().copied(), entries_max);
                if followed[author] {
                    world.store.merge(reader, &of_author).await.unwrap();
                } else {
                    world.store.purge(reader, &of_author).await.unwrap();
                }
            }
            1..4 => {
                let id = posts[author].iter().rev().nth(rng.random_range(0..10)).copied();
                if let Some(id) = id {
                    posts[author].remove(&id);
                    world.store.remove(&[reader], PostId(id)).await.unwrap();
                }
            }
            _ => {
                let lag = if rng.random_bool(0.1) { 200 } else { 3 };
                let id = 10 * (1_000 + step - rng.random_range(0..lag)) + author as u64;
                posts[author].insert(id);
                if followed[author] {
                    world.push(&[(reader, id)]).await;
                }
            }
        }
        let of_followed = posts.iter().zip(followed).filter(|(_, followed)| *followed);
        let all: BTreeSet<u64> = of_followed.flat_map(|(ids, _)| ids.iter().copied()).collect();
        let expected: Vec<u64> = all.iter().rev().take(CAP).copied().collect();
        match world.shown(reader).await {
            Some(shown) => {
                assert_eq!(shown, expected, "step {step}");
                let floor = world.page(reader, None, 1).await.floor;
                let is_capped = floor == Floor::Cap(PostId(*expected.last().unwrap_or(&0)));
                let is_true = if all.len() > CAP { is_capped } else { floor == Floor::Beginning };
                assert!(is_true || all.len() == CAP && is_capped, "step {step}: {floor:?}");
                answered += 1;
            }
            None => {
                let NewestPosts { ids, floor } = newest_of(all.iter().copied(), entries_max);
                world.wake(reader, numbers(&ids), floor.map(|floor| floor.0)).await;
                assert_eq!(world.shown(reader).await, Some(expected), "step {step}");
            }
        }
    }
    assert!(answered > 300, "{answered} of 600");
}

/// The newest of all these ascending ids, as a ledger would give them.
fn newest_of(all: impl ExactSizeIterator<Item = u64>, count_max: usize) -> NewestPosts {
    let dropped = all.len().saturating_sub(count_max);
    let all: Vec<u64> = all.collect();
    let floor = dropped.checked_sub(1).map(|place| all[place]);
    newest(all[dropped..].iter().copied(), floor)
}

/// What events make, by brute force.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub posts: BTreeMap<u64, UserId>,
    /// Follower, followee.
    pub follows: BTreeSet<(UserId, UserId)>,
    pub requests: BTreeMap<(UserId, String), u64>,
    pub read_markers: BTreeMap<UserId, u64>,
    pub messages: BTreeMap<MessageId, Message>,
    pub message_requests: BTreeMap<(UserId, String), MessageId>,
    /// Reader, why, whom it hides.
    pub hides: BTreeSet<(UserId, HideReason, UserId)>,
}

#[derive(Default)]
pub struct Named {
    pub users: BTreeSet<UserId>,
    pub posts: Vec<u64>,
    pub messages: Vec<MessageId>,
    pub message_requests: BTreeSet<(UserId, String)>,
    pub requests: BTreeSet<(UserId, String)>,
}

impl Model {
    pub fn of(log: &[Event]) -> Self {
        let mut ledger = Self::default();
        for event in log.iter().cloned() {
            match event {
                Event::PostPublished { post, request_id } => {
                    let request = request_id.map(|request_id| (post.author, request_id));
                    let made = request.map(|key| *ledger.requests.entry(key).or_insert(post.id.0));
                    if made.is_none_or(|made| made == post.id.0) {
                        ledger.posts.insert(post.id.0, post.author);
                    }
                }
                Event::PostDeleted { post, .. } => {
                    ledger.posts.remove(&post.0);
                }
                Event::Followed { followee, followers } => {
                    ledger.follows.extend(followers.into_iter().map(|user| (user, followee)));
                }
                Event::Unfollowed { followee, follower } => {
                    ledger.follows.remove(&(follower, followee));
                }
                Event::PullChanged { .. } => {}
                Event::ReadMarkerMoved { reader, post } => {
                    let marker = ledger.read_markers.entry(reader).or_default();
                    *marker = post.0.max(*marker);
                }
                Event::MuteChanged { muter, muted, mutes } => {
                    ledger.set_hide((muter, HideReason::Muted, muted), mutes);
                }
                Event::BlockChanged { blocker, blocked, blocks } => {
                    ledger.set_hide((blocker, HideReason::Blocked, blocked), blocks);
                    ledger.set_hide((blocked, HideReason::BlockedBy, blocker), blocks);
                }
                Event::MessageSent { message, request_id } => {
                    let request = request_id.map(|request_id| (message.sender, request_id));
                    let requests = &mut ledger.message_requests;
                    let made = request.map(|key| *requests.entry(key).or_insert(message.id));
                    if made.is_none_or(|made| made == message.id) {
                        ledger.messages.insert(message.id, message);
                    }
                }
                Event::MessageDeleted { message, .. } => {
                    ledger.messages.remove(&message);
                }
            }
        }
        ledger
    }

    fn set_hide(&mut self, hide: (UserId, HideReason, UserId), hides: bool) {
        if hides {
            self.hides.insert(hide);
        } else {
            self.hides.remove(&hide);
        }
    }

    pub fn named_in(log: &[Event]) -> Named {
        let mut named = Named::default();
        for event in log {
            named.users.insert(event.key());
            match event {
                Event::PostPublished { post, request_id } => {
                    named.posts.push(post.id.0);
                    named.requests.extend(request_id.clone().map(|name| (post.author, name)));
                }
                Event::Followed { followers, .. } => named.users.extend(followers),
                Event::Unfollowed { follower, .. } => {
                    named.users.insert(*follower);
                }
                Event::MuteChanged { muted: other, .. }
                | Event::BlockChanged { blocked: other, .. } => {
                    named.users.insert(*other);
                }
                Event::MessageSent { message, request_id } => {
                    named.messages.push(message.id);
                    let request = request_id.clone().map(|name| (message.sender, name));
                    named.message_requests.extend(request);
                }
                Event::PostDeleted { .. }
                | Event::ReadMarkerMoved { .. }
                | Event::PullChanged { .. }
                | Event::MessageDeleted { .. } => {}
            }
        }
        named.posts.sort_unstable();
        named
    }
}
