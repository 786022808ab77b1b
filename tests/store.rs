//! What every store does, written once and run on each backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Origin, Post, PostId, UserId},
    fanout::combine,
    store::{
        Accounts, Floor, FollowCounts, FollowSide, HomePage, HomeRead, Homes, Ledger, Lookups,
        NewestPosts, PushOutcome, RebuildTicket, Store,
        embedded::{EmbeddedStore, Settings},
        redis::{self as redis_store, RedisStore, config::RedisConfig},
    },
};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

const CAP: usize = 20;
const DEADLINE: Duration = Duration::from_secs(60);
const PARTITION: u32 = 0;
const NONE: [u64; 0] = [];

const ANN: UserId = UserId(1_000_001);
const BOB: UserId = UserId(7);
const CEM: UserId = UserId(1 << 61);
const DEE: UserId = UserId(40);

/// Where a store with timelines of [`CAP`] is, empty at first.
trait Backend {
    type Store: Store;

    /// Opens the store, each time the same one.
    fn open(&self) -> impl Future<Output = Self::Store>;
}

struct Embedded {
    dir: TempDir,
}

impl Backend for Embedded {
    type Store = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        let settings = Settings { home_timeline_cap: CAP, ..Settings::default() };
        EmbeddedStore::open(self.dir.path(), settings).unwrap()
    }
}

fn embedded() -> Option<Embedded> {
    Some(Embedded { dir: tempfile::tempdir().unwrap() })
}

/// A Redis that the tests take turns with; empty at first.
struct Redis {
    config: Arc<RedisConfig>,
    turn: &'static Mutex<()>,
    taken: OnceCell<MutexGuard<'static, ()>>,
}

impl Redis {
    /// Where a variable says that one is; without it the tests on it are skipped.
    fn at(variable: &str, turn: &'static Mutex<()>) -> Option<Self> {
        let Ok(urls) = std::env::var(variable) else {
            assert!(
                std::env::var("ROOST_TEST_REQUIRE_SERVICES").is_err(),
                "{variable} is not set; run deploy/services up"
            );
            println!("skipped: {variable} is not set, run deploy/services up");
            return None;
        };
        let config = Arc::new(RedisConfig::from_urls(&urls, None).unwrap());
        Some(Self { config, turn, taken: OnceCell::new() })
    }

    async fn empty(&self) {
        for info in self.config.connection_infos() {
            let client = ::redis::Client::open(info.clone()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            // A replica refuses, and has nothing of its own.
            let _: Result<(), _> = ::redis::cmd("FLUSHALL").query_async(&mut connection).await;
        }
    }
}

impl Backend for Redis {
    type Store = RedisStore;

    async fn open(&self) -> RedisStore {
        let take = async {
            let turn = self.turn.lock().await;
            self.empty().await;
            turn
        };
        self.taken.get_or_init(|| take).await;
        let mut settings = redis_store::Settings::new(self.config.clone(), "test".to_owned(), 3);
        settings.home_timeline_cap = CAP;
        RedisStore::open(settings).await.unwrap()
    }
}

fn redis() -> Option<Redis> {
    static TURN: Mutex<()> = Mutex::const_new(());
    Redis::at("ROOST_TEST_REDIS", &TURN)
}

fn redis_cluster() -> Option<Redis> {
    static TURN: Mutex<()> = Mutex::const_new(());
    Redis::at("ROOST_TEST_REDIS_CLUSTER", &TURN)
}

macro_rules! behaviours {
    ($($name:ident)*) => {
        behaviours!(@on embedded $($name)*);
        behaviours!(@on redis $($name)*);
        behaviours!(@on redis_cluster $($name)*);
    };
    (@on $backend:ident $($name:ident)*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let Some(backend) = super::$backend() else { return };
                    let behaviour = super::$name(backend);
                    tokio::time::timeout(super::DEADLINE, behaviour).await.expect("it hangs");
                }
            )*
        }
    };
}

behaviours! {
    an_account_is_known_once_an_event_names_it
    posts_are_kept_as_they_were_written
    a_deleted_post_is_nowhere
    a_request_makes_one_post
    a_request_that_made_a_deleted_post_makes_no_other
    a_partitions_events_are_counted
    events_applied_again_change_nothing
    events_applied_again_after_reopening_change_nothing
    a_batch_that_is_half_known_is_half_applied
    a_replay_brings_nothing_back_for_a_moment
    followers_are_paged_by_handle
    follows_are_listed_by_user_id
    follows_are_counted_once
    the_greatest_post_is_remembered
    a_remembered_post_is_known_until_it_is_gone
    a_post_deleted_before_it_is_remembered_stays_gone
    requests_are_each_authors_own
    an_author_timeline_is_paged
    the_newest_posts_say_what_is_missing
    the_ledger_is_what_a_plain_model_would_be

    pushes_reach_live_timelines
    a_timeline_shows_an_id_once_and_in_order
    those_who_are_awake_are_told_apart
    merged_posts_stand_where_they_belong
    a_sleeping_timeline_takes_nothing
    purged_posts_are_gone
    a_purge_takes_what_it_cannot_tell_apart
    a_removed_post_is_gone_from_those_named
    a_timeline_is_paged
    a_timeline_of_cap_posts_is_complete
    a_longer_timeline_stops_at_cap
    a_late_post_below_the_floor_is_not_shown
    a_few_posts_taken_away_are_replaced_by_older_ones
    a_deleted_post_is_hidden_before_it_is_removed
    a_deleted_post_is_remembered_until_it_is_forgotten
    a_rebuild_joins_what_is_pushed_meanwhile
    a_rebuild_leaves_out_what_was_taken_away_meanwhile
    a_rebuild_leaves_out_what_a_purge_cannot_tell_apart
    of_two_rebuilds_at_once_the_last_one_begun_ends_well
    a_timeline_is_what_a_plain_model_would_be
}

async fn an_account_is_known_once_an_event_names_it(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert!(!world.store.exists(ANN).await.unwrap());
    world.apply(&[post(10, ANN)]).await;
    world.apply(&[followed(BOB, &[CEM])]).await;
    let users = [ANN, BOB, CEM];
    let accounts = world.accounts(users).await;
    assert_eq!(accounts.iter().collect::<BTreeSet<_>>().len(), 3);
    world.apply(&[unfollowed(DEE, UserId(41)), deleted(99, UserId(42))]).await;
    assert_eq!(world.accounts(users).await, accounts);
    let world = world.reopen().await;
    world.accounts([ANN, BOB, CEM, DEE, UserId(41), UserId(42)]).await;
    assert!(!world.store.exists(UserId(43)).await.unwrap());
}

async fn posts_are_kept_as_they_were_written(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let plain = post_of(10, ANN);
    let rich = Post {
        text: "жук 🐞".to_owned(),
        origin: Origin::Rss,
        link: Some("https://example.org/?q=1".to_owned()),
        reply_to: Some(PostId(10)),
        ..post_of(11, BOB)
    };
    let repost =
        Post { text: String::new(), repost_of: Some(PostId(11)), ..post_of(u64::MAX >> 1, ANN) };
    let posts = [plain, rich, repost];
    let events = posts.clone().map(|post| Event::PostPublished { post, request_id: None });
    assert_eq!(world.apply(&events).await, NONE);
    let asked = [11, 12, 10, u64::MAX >> 1].map(PostId);
    let expected = [Some(posts[1].clone()), None, Some(posts[0].clone()), Some(posts[2].clone())];
    for _ in 0..2 {
        let found = world.store.posts(&asked).await.unwrap();
        assert!(found.iter().map(Option::as_deref).eq(expected.iter().map(Option::as_ref)));
        world = world.reopen().await;
    }
}

async fn a_deleted_post_is_nowhere(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, ANN)]).await;
    let ann = world.account(ANN).await;
    assert_eq!(world.newest(ann).await.0, [10, 11, 12]);
    assert_eq!(world.existing(&[10, 11, 12]).await, [10, 11, 12]);
    assert_eq!(world.apply(&[deleted(11, ANN), deleted(13, ANN)]).await, NONE);
    for _ in 0..2 {
        let ann = world.account(ANN).await;
        assert_eq!(world.existing(&[10, 11, 12]).await, [10, 12]);
        assert_eq!(world.author_page(ANN, None, 10).await, [12, 10]);
        assert_eq!(world.newest(ann).await.0, [10, 12]);
        world = world.reopen().await;
    }
}

async fn a_request_makes_one_post(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let batch = [
        named(10, ANN, "a"),
        named(13, ANN, "b"),
        named(12, ANN, "a"),
        named(11, ANN, "a"),
        named(14, BOB, "a"),
        named(15, BOB, "b"),
    ];
    assert_eq!(world.apply(&batch).await, [11, 12]);
    assert_eq!(world.apply(&[named(20, ANN, "b"), named(21, ANN, "c")]).await, [20]);
    world = world.reopen().await;
    assert_eq!(world.apply(&[named(30, ANN, "c"), named(31, ANN, "d")]).await, [30]);
    world = world.reopen().await;
    assert_eq!(world.author_page(ANN, None, 10).await, [31, 21, 13, 10]);
    assert_eq!(world.author_page(BOB, None, 10).await, [15, 14]);
    assert_eq!(world.existing(&[11, 12, 20, 30]).await, NONE);
    let made = world.requests(&[(ANN, "a"), (ANN, "b"), (ANN, "c"), (ANN, "d")]).await;
    assert_eq!(made, [Some(10), Some(13), Some(21), Some(31)]);
}

async fn a_request_that_made_a_deleted_post_makes_no_other(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[named(10, ANN, "a")]).await;
    world.apply(&[deleted(10, ANN)]).await;
    assert_eq!(world.apply(&[named(11, ANN, "a")]).await, [11]);
    assert_eq!(world.author_page(ANN, None, 10).await, NONE);
}

async fn a_partitions_events_are_counted(backend: impl Backend) {
    let store = backend.open().await;
    assert_eq!(
        [applied(&store, 0).await, applied(&store, 1).await, applied(&store, 2).await],
        [0, 0, 0]
    );
    store.apply(1, 0, [post(10, ANN), post(11, ANN)].into()).await.unwrap();
    store.apply(2, 0, [followed(BOB, &[CEM])].into()).await.unwrap();
    store.apply(1, 2, [deleted(10, ANN)].into()).await.unwrap();
    assert_eq!(
        [applied(&store, 0).await, applied(&store, 1).await, applied(&store, 2).await],
        [0, 3, 1]
    );
    store.apply(1, 0, [post(10, ANN)].into()).await.unwrap();
    assert_eq!(applied(&store, 1).await, 3);
    store.sync().await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(
        [applied(&store, 0).await, applied(&store, 1).await, applied(&store, 2).await],
        [0, 3, 1]
    );
}

async fn events_applied_again_change_nothing(backend: impl Backend) {
    let mut world = World::eventful(backend).await;
    let before = world.ledger().await;
    for from in 0..world.log.len() {
        let absent = world.replay(from..world.log.len()).await;
        assert!(absent.iter().all(|id| !before.posts.contains_key(id)), "{absent:?}");
        assert_eq!(world.ledger().await, before, "from {from}");
    }
    assert_eq!(world.replay(0..world.log.len()).await, [11, 12]);
    assert_eq!(world.apply(&[post(99, ANN)]).await, NONE);
}

async fn events_applied_again_after_reopening_change_nothing(backend: impl Backend) {
    let mut world = World::eventful(backend).await;
    let before = world.ledger().await;
    for from in (0..world.log.len()).rev() {
        world = world.reopen().await;
        assert_eq!(world.ledger().await, before);
        for offset in from..world.log.len() {
            world.replay(offset..offset + 1).await;
        }
        assert_eq!(world.ledger().await, before, "from {from}");
    }
}

async fn a_batch_that_is_half_known_is_half_applied(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[named(10, ANN, "a"), post(11, ANN), deleted(11, ANN)]).await;
    world.log.extend([named(12, ANN, "a"), post(13, ANN), followed(ANN, &[BOB])]);
    assert_eq!(world.replay(1..6).await, [11, 12]);
    assert_eq!(world.author_page(ANN, None, 10).await, [13, 10]);
    assert_eq!(world.listed(ANN, FollowSide::Followers).await, [BOB]);
    assert_eq!(applied(&world.store, PARTITION).await, 6);
}

async fn a_replay_brings_nothing_back_for_a_moment(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let taken_away_later = [post(10, ANN), followed(ANN, &[BOB, CEM])];
    world.apply(&taken_away_later).await;
    world.apply(&[deleted(10, ANN), unfollowed(ANN, BOB)]).await;
    assert_eq!(world.replay(0..2).await, [10]);
    assert_eq!(world.existing(&[10]).await, NONE);
    assert_eq!(world.author_page(ANN, None, 10).await, NONE);
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    assert!(!world.store.follows(bob, ann).await.unwrap());
    assert_eq!(world.listed(ANN, FollowSide::Followers).await, [CEM]);
}

async fn followers_are_paged_by_handle(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let followers: Vec<UserId> = (1..=27).map(|number| UserId(number * 7_919 % 101)).collect();
    world.apply(&[followed(ANN, &followers[..9]), post(10, followers[20])]).await;
    world.apply(&[followed(ANN, &followers[5..]), unfollowed(ANN, followers[3])]).await;
    world.apply(&[unfollowed(ANN, followers[26])]).await;
    let ann = world.account(ANN).await;
    let mut expected = Vec::new();
    for follower in followers.iter().filter(|user| ![followers[3], followers[26]].contains(user)) {
        expected.push(world.account(*follower).await);
    }
    expected.sort_unstable();
    for count_max in [1, 2, 7, 24, 25, 26, 1_000] {
        let mut paged = Vec::new();
        loop {
            let after = paged.last().copied();
            let page = world.store.followers_after(ann, after, count_max).await.unwrap();
            let is_last = page.len() < count_max;
            paged.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(paged, expected, "{count_max} at a time");
    }
    let stranger = world.account(followers[26]).await;
    let after_stranger = world.store.followers_after(ann, Some(stranger), 1_000).await.unwrap();
    expected.retain(|follower| *follower > stranger);
    assert_eq!(after_stranger, expected);
    let lonely = world.account(followers[0]).await;
    assert_eq!(world.store.followers_after(lonely, None, 10).await.unwrap(), []);
}

async fn follows_are_listed_by_user_id(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let users = [500, 3, u64::MAX >> 1, 77, 4, 1 << 40].map(UserId);
    world.apply(&[followed(ANN, &users)]).await;
    for user in users {
        world.apply(&[followed(user, &[ANN, BOB])]).await;
    }
    world.apply(&[unfollowed(ANN, UserId(77)), unfollowed(UserId(4), ANN)]).await;
    for _ in 0..2 {
        let [ann, bob, stranger] = world.accounts([ANN, BOB, UserId(77)]).await;
        let followers = [3, 4, 500, 1 << 40, u64::MAX >> 1].map(UserId);
        let following = [3, 77, 500, 1 << 40, u64::MAX >> 1].map(UserId);
        for (side, expected) in
            [(FollowSide::Followers, followers), (FollowSide::Following, following)]
        {
            for after in [0, 2, 3, 4, 77, 500, 1 << 40, (u64::MAX >> 1) - 1, u64::MAX].map(UserId) {
                for count_max in [1, 2, 5, 100] {
                    let listed = world.store.list_follows(ann, side, Some(after), count_max).await;
                    let rest = expected.iter().filter(|user| **user > after);
                    let page: Vec<UserId> = rest.take(count_max).copied().collect();
                    assert_eq!(listed.unwrap(), page, "{side:?} after {after}");
                }
            }
            assert_eq!(world.listed(ANN, side).await, expected);
        }
        assert_eq!(world.listed(BOB, FollowSide::Followers).await, []);
        assert!(world.store.follows(bob, stranger).await.unwrap());
        assert!(!world.store.follows(stranger, ann).await.unwrap());
        let handles = world.store.following(ann).await.unwrap();
        let mut expected = world.accounts(following).await;
        expected.sort_unstable();
        assert_eq!(handles, expected);
        world = world.reopen().await;
    }
}

async fn follows_are_counted_once(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[followed(ANN, &[BOB, CEM, BOB]), followed(ANN, &[BOB]), post(10, DEE)]).await;
    world.apply(&[followed(DEE, &[ANN]), unfollowed(ANN, DEE), unfollowed(BOB, CEM)]).await;
    world.apply(&[unfollowed(ANN, CEM), unfollowed(ANN, CEM)]).await;
    for _ in 0..2 {
        let mut counts = Vec::new();
        for account in world.accounts([ANN, BOB, CEM, DEE]).await {
            counts.push(world.store.count_follows(account).await.unwrap());
        }
        let expected = [(1, 1), (0, 1), (0, 0), (1, 0)];
        let expected = expected.map(|(followers, following)| FollowCounts { followers, following });
        assert_eq!(counts, expected);
        world = world.reopen().await;
    }
}

async fn the_greatest_post_is_remembered(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert_eq!(world.store.greatest_post().await.unwrap(), None);
    world.apply(&[followed(ANN, &[BOB])]).await;
    assert_eq!(world.store.greatest_post().await.unwrap(), None);
    world.apply(&[post(10, ANN), post(30, BOB), post(20, ANN)]).await;
    world.apply(&[deleted(30, BOB), post(25, ANN)]).await;
    assert_eq!(world.store.greatest_post().await.unwrap(), Some(PostId(30)));
    let world = world.reopen().await;
    assert_eq!(world.store.greatest_post().await.unwrap(), Some(PostId(30)));
}

async fn a_remembered_post_is_known_until_it_is_gone(backend: impl Backend) {
    let mut world = World::new(backend).await;
    for id in [10, 11] {
        let before = world.store.moment();
        world.store.remember(Arc::new(post_of(id, ANN)), before);
    }
    // A store need not heed the hint.
    let known = world.existing(&[10, 11, 12]).await;
    assert!(known == [10, 11] || known == NONE, "{known:?}");
    world.apply(&[named(9, ANN, "a"), post(10, ANN)]).await;
    assert_eq!(world.apply(&[named(11, ANN, "a")]).await, [11]);
    assert_eq!(world.existing(&[9, 10, 11]).await, [9, 10]);
    world.apply(&[deleted(10, ANN)]).await;
    assert_eq!(world.existing(&[9, 10, 11]).await, [9]);
}

async fn a_post_deleted_before_it_is_remembered_stays_gone(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let before = world.store.moment();
    world.apply(&[post(10, ANN)]).await;
    world.apply(&[deleted(10, ANN)]).await;
    world.store.remember(Arc::new(post_of(10, ANN)), before);
    assert_eq!(world.existing(&[10]).await, NONE);
}

async fn requests_are_each_authors_own(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert_eq!(world.requests(&[(ANN, "a")]).await, [None]);
    assert!(world.requests(&[]).await.is_empty());
    world.apply(&[named(10, ANN, "a"), named(11, BOB, "a"), named(12, ANN, "")]).await;
    world.apply(&[post(13, ANN)]).await;
    let asked = [(BOB, "a"), (BOB, "b"), (ANN, "a"), (CEM, "a"), (ANN, "aa"), (ANN, "")];
    for _ in 0..2 {
        let made = world.requests(&asked).await;
        assert_eq!(made, [Some(11), None, Some(10), None, None, Some(12)]);
        world = world.reopen().await;
    }
}

async fn an_author_timeline_is_paged(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert_eq!(world.author_page(ANN, None, 10).await, NONE);
    let neighbour = UserId(ANN.0 + 1);
    world.apply(&[post(30, ANN), post(10, ANN), post(25, neighbour), post(20, ANN)]).await;
    assert_eq!(world.author_page(ANN, None, 10).await, [30, 20, 10]);
    assert_eq!(world.author_page(ANN, None, 2).await, [30, 20]);
    assert_eq!(world.author_page(ANN, Some(30), 1).await, [20]);
    assert_eq!(world.author_page(ANN, Some(29), 10).await, [20, 10]);
    assert_eq!(world.author_page(ANN, Some(u64::MAX), 10).await, [30, 20, 10]);
    assert_eq!(world.author_page(ANN, Some(10), 10).await, NONE);
    assert_eq!(world.author_page(neighbour, None, 10).await, [25]);
    let many: Vec<Event> = (100..100 + 5 * CAP as u64).map(|id| post(id, BOB)).collect();
    world.apply(&many).await;
    let all: Vec<u64> = (100..100 + 5 * CAP as u64).rev().collect();
    assert_eq!(world.author_page(BOB, None, 1_000).await, all);
}

async fn the_newest_posts_say_what_is_missing(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let entries_max = world.store.entries_max() as u64;
    assert!(entries_max > CAP as u64);
    world.apply(&[followed(ANN, &[BOB])]).await;
    let mut all = BTreeSet::new();
    let grow_to = |count: u64| (1..=count).map(|number| number * 10);
    for count in [0, 1, entries_max, entries_max + 1, 3 * entries_max] {
        let new: Vec<u64> = grow_to(count).filter(|id| !all.contains(id)).collect();
        let events: Vec<Event> = new.iter().map(|id| post(*id, ANN)).collect();
        world.apply(&events).await;
        all.extend(new);
        world.assert_newest(ANN, &all).await;
        let nothing_is_missing = world.newest(world.account(ANN).await).await.1.is_none();
        assert_eq!(nothing_is_missing, count <= entries_max, "{count} posts");
    }
    for id in [3 * entries_max * 10, (3 * entries_max - 5) * 10, 10] {
        world.apply(&[deleted(id, ANN)]).await;
        all.remove(&id);
        world.assert_newest(ANN, &all).await;
    }
    let late = 15;
    world.apply(&[post(late, ANN)]).await;
    all.insert(late);
    world.assert_newest(ANN, &all).await;
    let world = world.reopen().await;
    world.assert_newest(ANN, &all).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let newest = world.store.newest_of(&[bob, ann]).await.unwrap();
    assert_eq!(newest[0], NewestPosts::default());
    assert_eq!(newest[1].ids.last(), all.last().map(|id| PostId(*id)).as_ref());
}

async fn the_ledger_is_what_a_plain_model_would_be(backend: impl Backend) {
    let mut rng = seeded();
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
            _ => unfollowed(user(rng), user(rng)),
        };
        let mut events: Vec<Event> =
            (0..rng.random_range(1..6)).map(|_| event(&mut rng, &mut next_id)).collect();
        let posts: Vec<(PostId, UserId)> = world.posts_in_log().collect();
        if !posts.is_empty() && rng.random_bool(0.4) {
            let (post, author) = posts[rng.random_range(0..posts.len())];
            events.push(Event::PostDeleted { post, author });
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
                world.assert_newest(*user, &of_user.map(|(id, _)| *id).collect()).await;
            }
        }
    }
}

async fn pushes_reach_live_timelines(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob, cem] = world.accounts([ANN, BOB, CEM]).await;
    world.wake(ann, [], None).await;
    world.wake(cem, [5], None).await;
    let outcome = world.push(&[(ann, 10), (bob, 10), (cem, 10), (ann, 11), (bob, 12)]).await;
    assert_eq!(outcome, PushOutcome { deliveries: 3, skipped: 2, pushes: 2 });
    assert_eq!(world.shown(ann).await, Some(vec![11, 10]));
    assert_eq!(world.shown(bob).await, None);
    assert_eq!(world.shown(cem).await, Some(vec![10, 5]));
}

async fn a_timeline_shows_an_id_once_and_in_order(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.wake(ann, [3, 5], None).await;
    for ids in [&[10, 11][..], &[10], &[5, 7, 11], &[7], &[1]] {
        let deliveries: Vec<_> = ids.iter().map(|id| (ann, *id)).collect();
        world.push(&deliveries).await;
    }
    assert_eq!(world.shown(ann).await, Some(vec![11, 10, 7, 5, 3, 1]));
}

async fn those_who_are_awake_are_told_apart(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob, cem, dee] = world.accounts([ANN, BOB, CEM, DEE]).await;
    let mut all = vec![ann, bob, cem, dee];
    all.sort_unstable();
    assert_eq!(world.store.awake(&all).await.unwrap(), []);
    world.wake(bob, [1], None).await;
    world.wake(dee, [], None).await;
    world.store.begin_rebuild(ann).await.unwrap();
    let mut expected = vec![ann, bob, dee];
    expected.sort_unstable();
    assert_eq!(world.store.awake(&all).await.unwrap(), expected);
    assert_eq!(world.store.awake(&[cem]).await.unwrap(), []);
    assert_eq!(world.store.awake(&[]).await.unwrap(), []);
}

async fn merged_posts_stand_where_they_belong(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.wake(ann, [10, 20, 30], None).await;
    world.store.merge(ann, &newest([5, 15, 20, 35], None)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![35, 30, 20, 15, 10, 5]));
    world.store.merge(ann, &newest([], None)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![35, 30, 20, 15, 10, 5]));
    let entries_max = world.store.entries_max() as u64;
    let older = 100 - entries_max;
    world.store.merge(ann, &newest(older..100, Some(older - 1))).await.unwrap();
    assert_eq!(world.shown(ann).await, Some((100 - CAP as u64..100).rev().collect()));
}

async fn a_sleeping_timeline_takes_nothing(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.push(&[(ann, 10)]).await;
    world.store.merge(ann, &newest([11, 12], None)).await.unwrap();
    world.store.purge(ann, &newest([12], None)).await.unwrap();
    world.store.remove(&[ann], PostId(11)).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
    world.wake(ann, [20], None).await;
    assert_eq!(world.shown(ann).await, Some(vec![20]));
}

async fn purged_posts_are_gone(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    for reader in [ann, bob] {
        world.wake(reader, 10..=15, None).await;
    }
    world.store.purge(ann, &newest([1, 10, 12, 15, 17], None)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![14, 13, 11]));
    assert_eq!(world.shown(bob).await, Some(vec![15, 14, 13, 12, 11, 10]));
    world.push(&[(ann, 12)]).await;
    assert_eq!(world.shown(ann).await, Some(vec![14, 13, 12, 11]));
}

async fn a_purge_takes_what_it_cannot_tell_apart(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    let newest_id = 10 + CAP as u64;
    world.wake(ann, 10..=newest_id, None).await;
    world.store.purge(ann, &newest([], Some(10))).await.unwrap();
    assert_eq!(world.shown(ann).await, Some((11..=newest_id).rev().collect()));
    let page = world.page(ann, None, 1).await;
    assert_eq!(page.floor, Floor::Cap(PostId(11)));
    world.store.purge(ann, &newest([newest_id], Some(15))).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
}

async fn a_removed_post_is_gone_from_those_named(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob, cem, dee] = world.accounts([ANN, BOB, CEM, DEE]).await;
    for reader in [ann, bob, dee] {
        world.wake(reader, [10, 11, 12], None).await;
    }
    let mut readers = [ann, bob, cem];
    readers.sort_unstable();
    world.store.remove(&readers, PostId(11)).await.unwrap();
    world.store.remove(&readers, PostId(99)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![12, 10]));
    assert_eq!(world.shown(bob).await, Some(vec![12, 10]));
    assert_eq!(world.shown(cem).await, None);
    assert_eq!(world.shown(dee).await, Some(vec![12, 11, 10]));
}

async fn a_timeline_is_paged(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.wake(ann, [10, 20, 30, 40, 50], None).await;
    let read = async |before, count_max| {
        let page = world.page(ann, before, count_max).await;
        assert_eq!(page.floor, Floor::Beginning);
        (numbers(&page.ids), page.more)
    };
    assert_eq!(read(None, 2).await, (vec![50, 40], true));
    assert_eq!(read(Some(40), 2).await, (vec![30, 20], true));
    assert_eq!(read(Some(20), 2).await, (vec![10], false));
    assert_eq!(read(None, 5).await, (vec![50, 40, 30, 20, 10], false));
    assert_eq!(read(Some(35), 1).await, (vec![30], true));
    assert_eq!(read(Some(99), 1).await, (vec![50], true));
    assert_eq!(read(Some(15), 1).await, (vec![10], false));
    assert_eq!(read(Some(10), 3).await, (NONE.into(), false));
    assert_eq!(read(Some(1), 3).await, (NONE.into(), false));
}

async fn a_timeline_of_cap_posts_is_complete(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    world.wake(ann, [], None).await;
    for id in 1..=CAP as u64 {
        assert_eq!(world.page(ann, None, 1).await.floor, Floor::Beginning, "before post {id}");
        world.push(&[(ann, id)]).await;
    }
    let page = world.page(ann, None, 1_000).await;
    let all: Vec<u64> = (1..=CAP as u64).rev().collect();
    assert_eq!((numbers(&page.ids), page.more, page.floor), (all, false, Floor::Beginning));
    world.wake(bob, 11..=10 + CAP as u64, Some(10)).await;
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Cap(PostId(11)));
}

async fn a_longer_timeline_stops_at_cap(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let cap = CAP as u64;
    world.wake(ann, 1..=cap, None).await;
    for id in cap + 1..=4 * cap {
        world.push(&[(ann, id)]).await;
        assert_eq!(world.shown(ann).await, Some((id - cap + 1..=id).rev().collect()));
        for before in [None, Some(id - cap + 3)] {
            let page = world.page(ann, before, CAP).await;
            assert_eq!((page.floor, page.more), (Floor::Cap(PostId(id - cap + 1)), false));
        }
        let below = world.page(ann, Some(id - cap + 1), CAP).await;
        assert_eq!((numbers(&below.ids), below.more), (NONE.into(), false));
    }
    world.wake(bob, 1..=cap + 1, None).await;
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Cap(PostId(2)));
}

async fn a_late_post_below_the_floor_is_not_shown(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    let entries_max = world.store.entries_max() as u64;
    let newest_id = 100 + 10 * entries_max;
    world.wake(ann, (1..=entries_max).map(|number| 100 + 10 * number), Some(100)).await;
    world.push(&[(ann, 50), (ann, 100)]).await;
    world.store.merge(ann, &newest([60], None)).await.unwrap();
    let shown: Vec<u64> = (0..CAP as u64).map(|number| newest_id - 10 * number).collect();
    assert_eq!(world.shown(ann).await, Some(shown.clone()));
    world.push(&[(ann, newest_id - 5)]).await;
    let mut with_late = shown;
    with_late.insert(1, newest_id - 5);
    with_late.truncate(CAP);
    assert_eq!(world.shown(ann).await, Some(with_late));
}

async fn a_few_posts_taken_away_are_replaced_by_older_ones(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let entries_max = world.store.entries_max() as u64;
    world.wake(ann, 101..=100 + entries_max, Some(100)).await;
    world.wake(bob, 101..=100 + entries_max, None).await;
    let slack = entries_max - CAP as u64;
    for removed in 0..slack {
        for reader in [ann, bob] {
            world.store.remove(&[reader], PostId(100 + entries_max - removed)).await.unwrap();
            let newest_id = 100 + entries_max - removed - 1;
            let expected = (newest_id - CAP as u64 + 1..=newest_id).rev().collect();
            assert_eq!(world.shown(reader).await, Some(expected));
        }
    }
    assert_eq!(world.page(ann, None, 1).await.floor, Floor::Cap(PostId(101)));
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Beginning);
    for reader in [ann, bob] {
        world.store.remove(&[reader], PostId(105)).await.unwrap();
    }
    assert_eq!(world.shown(ann).await, None);
    assert_eq!(world.shown(bob).await.map(|ids| ids.len()), Some(CAP - 1));
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Beginning);
}

async fn a_deleted_post_is_hidden_before_it_is_removed(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, BOB)]).await;
    let dee = world.account(DEE).await;
    world.wake(dee, [10, 11, 12], None).await;
    world.apply(&[deleted(10, ANN)]).await;
    let page = world.page(dee, None, 2).await;
    assert_eq!((numbers(&page.ids), page.more), (vec![12, 11], false));
    world.apply(&[deleted(12, BOB)]).await;
    let page = world.page(dee, None, 1).await;
    assert_eq!((numbers(&page.ids), page.more), (vec![11], false));
    world.push(&[(dee, 10), (dee, 12), (dee, 13)]).await;
    assert_eq!(world.shown(dee).await, Some(vec![13, 11]));
}

async fn a_deleted_post_is_remembered_until_it_is_forgotten(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, BOB), post(13, ANN)]).await;
    let [ann, bob, dee] = world.accounts([ANN, BOB, DEE]).await;
    world.wake(dee, [10, 11, 12, 13], None).await;
    world.apply(&[deleted(13, ANN), deleted(12, BOB), deleted(10, ANN)]).await;
    assert_eq!(world.deleted_of(ann).await, [10, 13]);
    assert_eq!(world.deleted_of(bob).await, [12]);
    assert_eq!(world.deleted_of(dee).await, NONE);
    world.store.remove(&[dee], PostId(13)).await.unwrap();
    world.store.forget_deleted(PostId(13)).await.unwrap();
    world.store.forget_deleted(PostId(99)).await.unwrap();
    assert_eq!(world.deleted_of(ann).await, [10]);
    assert_eq!(world.deleted_of(bob).await, [12]);
    assert_eq!(world.shown(dee).await, Some(vec![11]));
}

async fn a_rebuild_joins_what_is_pushed_meanwhile(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let entries_max = world.store.entries_max() as u64;
    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
    world.push(&[(ann, 50), (ann, 90), (bob, 91)]).await;
    world.store.merge(ann, &newest([40, 60], None)).await.unwrap();
    world.store.remove(&[bob], PostId(50)).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
    assert!(world.store.finish_rebuild(ann, ticket, newest([30, 50, 70], None)).await.unwrap());
    assert_eq!(world.shown(ann).await, Some(vec![90, 70, 60, 50, 40, 30]));
    assert_eq!(world.page(ann, None, 1).await.floor, Floor::Beginning);

    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    let last = 100 + entries_max;
    world.push(&[(ann, 99), (ann, 100), (ann, last + 1)]).await;
    let read = newest(101..=last, Some(100));
    assert!(world.store.finish_rebuild(ann, ticket, read).await.unwrap());
    let expected = (last + 2 - CAP as u64..=last + 1).rev().collect();
    assert_eq!(world.shown(ann).await, Some(expected));
}

async fn a_rebuild_leaves_out_what_was_taken_away_meanwhile(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    for purged in [true, false] {
        let ticket = world.store.begin_rebuild(ann).await.unwrap();
        if purged {
            world.store.purge(ann, &newest([10], None)).await.unwrap();
        } else {
            let mut readers = [ann, bob];
            readers.sort_unstable();
            world.store.remove(&readers, PostId(10)).await.unwrap();
        }
        assert!(world.finish(ann, ticket, [10, 11]).await);
        assert_eq!(world.shown(ann).await, Some(vec![11]));
    }
    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    world.store.purge(ann, &newest([10, 11], None)).await.unwrap();
    world.store.merge(ann, &newest([11], None)).await.unwrap();
    assert!(world.finish(ann, ticket, [10, 11]).await);
    assert_eq!(world.shown(ann).await, Some(vec![11]));
}

async fn a_rebuild_leaves_out_what_a_purge_cannot_tell_apart(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    let newest_id = 12 + CAP as u64;
    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    world.store.purge(ann, &newest([], Some(12))).await.unwrap();
    assert!(world.finish(ann, ticket, 11..=newest_id).await);
    assert_eq!(world.shown(ann).await, Some((13..=newest_id).rev().collect()));
}

async fn of_two_rebuilds_at_once_the_last_one_begun_ends_well(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let first = world.store.begin_rebuild(ann).await.unwrap();
    world.push(&[(ann, 20)]).await;
    let of_bob = world.store.begin_rebuild(bob).await.unwrap();
    let second = world.store.begin_rebuild(ann).await.unwrap();
    world.push(&[(ann, 21)]).await;
    // A store may take the second as a part of the first.
    let first_ended = world.finish(ann, first, [11, 20]).await;
    assert_eq!(world.shown(ann).await, first_ended.then(|| vec![21, 20, 11]));
    assert!(world.finish(ann, second, [11, 20]).await);
    assert!(world.finish(bob, of_bob, [12]).await);
    assert_eq!(world.shown(ann).await, Some(vec![21, 20, 11]));
    assert_eq!(world.shown(bob).await, Some(vec![12]));
    let third = world.store.begin_rebuild(ann).await.unwrap();
    assert!(!world.finish(ann, second, [10]).await);
    assert!(world.finish(ann, third, [13]).await);
    assert_eq!(world.shown(ann).await, Some(vec![13]));
}

/// A reader of three authors, whose posts come in nearly in order, go, and come
/// and go all together as the reader follows and unfollows.
async fn a_timeline_is_what_a_plain_model_would_be(backend: impl Backend) {
    let mut rng = seeded();
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

/// A store whose worker applies the events of one partition.
struct World<B: Backend> {
    backend: B,
    store: B::Store,
    log: Vec<Event>,
}

/// One past the last event that a store holds.
async fn applied(store: &impl Store, partition: u32) -> u64 {
    store.resume(partition).await.unwrap().applied
}

type Account<B> = <<B as Backend>::Store as Accounts>::Account;

impl<B: Backend> World<B> {
    async fn new(backend: B) -> Self {
        let store = backend.open().await;
        Self { backend, store, log: Vec::new() }
    }

    /// All accounts are known.
    async fn peopled(backend: B) -> Self {
        let mut world = Self::new(backend).await;
        world.apply(&[followed(ANN, &[BOB, CEM, DEE])]).await;
        world
    }

    /// Something of everything has happened, and some of it was taken back.
    async fn eventful(backend: B) -> Self {
        let mut world = Self::new(backend).await;
        world.apply(&[followed(ANN, &[BOB, CEM]), named(10, ANN, "a"), post(11, ANN)]).await;
        world.apply(&[named(12, ANN, "a"), unfollowed(ANN, BOB), followed(BOB, &[ANN])]).await;
        world.apply(&[deleted(11, ANN), post(13, BOB), followed(ANN, &[DEE, BOB])]).await;
        world.apply(&[unfollowed(ANN, CEM), unfollowed(BOB, ANN), named(14, BOB, "a")]).await;
        assert_eq!(world.ledger().await, Model::of(&world.log));
        world
    }

    async fn reopen(self) -> Self {
        let Self { backend, store, log } = self;
        store.sync().await.unwrap();
        drop(store);
        let store = backend.open().await;
        assert_eq!(applied(&store, PARTITION).await, log.len() as u64);
        Self { backend, store, log }
    }

    async fn apply(&mut self, events: &[Event]) -> Vec<u64> {
        let first_offset = self.log.len();
        self.log.extend_from_slice(events);
        self.replay(first_offset..self.log.len()).await
    }

    async fn replay(&self, offsets: std::ops::Range<usize>) -> Vec<u64> {
        let first_offset = offsets.start as u64;
        let events = self.log[offsets].into();
        let absent = self.store.apply(PARTITION, first_offset, events).await.unwrap();
        assert!(absent.is_sorted(), "{absent:?}");
        numbers(&absent)
    }

    async fn account(&self, user: UserId) -> Account<B> {
        let account = self.store.account(user).await.unwrap();
        account.unwrap_or_else(|| panic!("account {user} is not known"))
    }

    async fn accounts<const N: usize>(&self, users: [UserId; N]) -> [Account<B>; N] {
        let mut accounts = Vec::new();
        for user in users {
            accounts.push(self.account(user).await);
        }
        accounts.try_into().unwrap()
    }

    async fn existing(&self, ids: &[u64]) -> Vec<u64> {
        let ids: Vec<PostId> = ids.iter().copied().map(PostId).collect();
        let posts = self.store.posts(&ids).await.unwrap();
        assert_eq!(posts.len(), ids.len());
        posts.iter().flatten().map(|post| post.id.0).collect()
    }

    async fn author_page(&self, author: UserId, before: Option<u64>, count: usize) -> Vec<u64> {
        numbers(&self.store.author_page(author, before.map(PostId), count).await.unwrap())
    }

    async fn requests(&self, asked: &[(UserId, &str)]) -> Vec<Option<u64>> {
        let asked: Vec<_> = asked.iter().map(|(user, name)| (*user, (*name).to_owned())).collect();
        let made = self.store.requests(&asked).await.unwrap();
        made.into_iter().map(|post| post.map(|post| post.0)).collect()
    }

    async fn listed(&self, user: UserId, side: FollowSide) -> Vec<UserId> {
        let account = self.account(user).await;
        self.store.list_follows(account, side, None, usize::MAX).await.unwrap()
    }

    async fn newest(&self, author: Account<B>) -> (Vec<u64>, Option<u64>) {
        let newest = self.store.newest_of(&[author]).await.unwrap().pop().unwrap();
        (numbers(&newest.ids), newest.floor.map(|floor| floor.0))
    }

    /// Above the floor nothing is missing, and the floor is deep enough.
    async fn assert_newest(&self, author: UserId, all: &BTreeSet<u64>) {
        let (ids, floor) = self.newest(self.account(author).await).await;
        let above_floor: Vec<u64> =
            all.iter().copied().filter(|id| floor.is_none_or(|floor| *id > floor)).collect();
        assert_eq!(ids, above_floor, "the newest posts of {author} above {floor:?}");
        assert!(ids.len() <= self.store.entries_max());
        assert!(ids.len() >= CAP.min(all.len()), "{} of {} posts", ids.len(), all.len());
    }

    fn posts_in_log(&self) -> impl Iterator<Item = (PostId, UserId)> {
        self.log.iter().filter_map(|event| match event {
            Event::PostPublished { post, .. } => Some((post.id, post.author)),
            _ => None,
        })
    }

    /// What the store says about everything that the log names.
    async fn ledger(&self) -> Model {
        let mut ledger = Model::default();
        let named = Model::named_in(&self.log);
        for user in named.users {
            let ids = self.author_page(user, None, usize::MAX).await;
            ledger.posts.extend(ids.into_iter().map(|id| (id, user)));
            let Some(account) = self.store.account(user).await.unwrap() else { continue };
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
        ledger
    }

    async fn wake(
        &self,
        reader: Account<B>,
        ids: impl IntoIterator<Item = u64>,
        floor: Option<u64>,
    ) {
        let ticket = self.store.begin_rebuild(reader).await.unwrap();
        assert!(self.store.finish_rebuild(reader, ticket, newest(ids, floor)).await.unwrap());
    }

    async fn finish(
        &self,
        reader: Account<B>,
        ticket: RebuildTicket,
        ids: impl IntoIterator<Item = u64>,
    ) -> bool {
        self.store.finish_rebuild(reader, ticket, newest(ids, None)).await.unwrap()
    }

    async fn push(&self, deliveries: &[(Account<B>, u64)]) -> PushOutcome {
        let deliveries = deliveries.iter().map(|(reader, id)| (*reader, PostId(*id))).collect();
        self.store.push(&combine(deliveries)).await.unwrap()
    }

    async fn page(&self, reader: Account<B>, before: Option<u64>, count_max: usize) -> HomePage {
        match self.store.page(reader, before.map(PostId), count_max).await.unwrap() {
            HomeRead::Page(page) => page,
            HomeRead::Asleep => panic!("{reader:?} sleeps"),
        }
    }

    /// The whole timeline, read in small pages; `None` while it sleeps.
    async fn shown(&self, reader: Account<B>) -> Option<Vec<u64>> {
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

    async fn deleted_of(&self, author: Account<B>) -> Vec<u64> {
        let mut deleted = numbers(&self.store.deleted_of(author).await.unwrap());
        deleted.sort_unstable();
        deleted
    }
}

/// What events make, by brute force.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    posts: BTreeMap<u64, UserId>,
    /// Follower, followee.
    follows: BTreeSet<(UserId, UserId)>,
    requests: BTreeMap<(UserId, String), u64>,
}

#[derive(Default)]
struct Named {
    users: BTreeSet<UserId>,
    posts: Vec<u64>,
    requests: BTreeSet<(UserId, String)>,
}

impl Model {
    fn of(log: &[Event]) -> Self {
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
            }
        }
        ledger
    }

    fn named_in(log: &[Event]) -> Named {
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
                Event::PostDeleted { .. } => {}
            }
        }
        named.posts.sort_unstable();
        named
    }
}

fn seeded() -> StdRng {
    let seed = rand::random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn post_of(id: u64, author: UserId) -> Post {
    Post {
        id: PostId(id),
        author,
        text: format!("post {id}"),
        origin: Origin::Shared,
        link: None,
        reply_to: None,
        repost_of: None,
    }
}

fn post(id: u64, author: UserId) -> Event {
    Event::PostPublished { post: post_of(id, author), request_id: None }
}

fn named(id: u64, author: UserId, request_id: &str) -> Event {
    Event::PostPublished { post: post_of(id, author), request_id: Some(request_id.to_owned()) }
}

fn deleted(id: u64, author: UserId) -> Event {
    Event::PostDeleted { post: PostId(id), author }
}

fn followed(followee: UserId, followers: &[UserId]) -> Event {
    Event::Followed { followee, followers: followers.to_vec() }
}

fn unfollowed(followee: UserId, follower: UserId) -> Event {
    Event::Unfollowed { followee, follower }
}

/// Of ascending ids.
fn newest(ids: impl IntoIterator<Item = u64>, floor: Option<u64>) -> NewestPosts {
    NewestPosts { ids: ids.into_iter().map(PostId).collect(), floor: floor.map(PostId) }
}

/// The newest of all these ascending ids, as a ledger would give them.
fn newest_of(all: impl ExactSizeIterator<Item = u64>, count_max: usize) -> NewestPosts {
    let dropped = all.len().saturating_sub(count_max);
    let all: Vec<u64> = all.collect();
    let floor = dropped.checked_sub(1).map(|place| all[place]);
    newest(all[dropped..].iter().copied(), floor)
}

fn numbers(ids: &[PostId]) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}
