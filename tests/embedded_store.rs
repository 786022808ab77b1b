//! What only the embedded store promises: what its disk and its memory cost.

#[path = "common/seed.rs"]
mod seed;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Origin, Post, PostId, UserId},
    fanout::combine,
    store::{
        Accounts, FollowSide, HomeRead, Homes, Ledger, Lookups, NewestPosts, StoreError,
        embedded::{EmbeddedStore, Settings},
    },
};
use tempfile::TempDir;

use self::seed::seed;

const PARTITION: u32 = 0;
const AUTHOR: UserId = UserId(1);

#[tokio::test]
async fn a_lost_directory_resumes_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(&store, 0, &[post(10), followed(&[UserId(2)])]).await;
    store.sync().await.unwrap();
    drop(store);
    assert_eq!(open(&dir).applied(PARTITION), 2);
    std::fs::remove_dir_all(dir.path()).unwrap();
    let store = open(&dir);
    assert_eq!(store.applied(PARTITION), 0);
    assert_eq!(store.greatest_post().await.unwrap(), None);
    assert_eq!(store.account(AUTHOR).await.unwrap(), None);
    apply(&store, 0, &[post(10), followed(&[UserId(2)])]).await;
    assert_eq!(followers(&store).await, BTreeSet::from([UserId(2)]));
}

#[tokio::test]
async fn all_readers_sleep_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(&store, 0, &[post(10)]).await;
    let author = wake(&store, AUTHOR).await;
    assert!(matches!(store.page(author, None, 1).await.unwrap(), HomeRead::Page(_)));
    drop(store);
    let store = open(&dir);
    let author = store.account(AUTHOR).await.unwrap().unwrap();
    assert_eq!(store.page(author, None, 1).await.unwrap(), HomeRead::Asleep);
    assert_eq!(store.size().await.unwrap().live_timelines, 0);
}

/// So many changes that they are replaced by snapshots many times over.
#[tokio::test]
async fn followers_survive_thousands_of_changes() {
    const CHANGES: u64 = 3_000;
    let mut rng = StdRng::seed_from_u64(seed());
    let events: Vec<Event> = (0..CHANGES)
        .map(|_| {
            let first = rng.random_range(2..400);
            match rng.random_range(0..5) {
                0..2 => followed(&[UserId(first)]),
                2 => followed(&(first..first + 30).map(UserId).collect::<Vec<_>>()),
                _ => unfollowed(UserId(first)),
            }
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir);
    let mut next = 0;
    let mut furthest = 0;
    while next < events.len() {
        let end = events.len().min(next + rng.random_range(1..60));
        apply(&store, next as u64, &events[next..end]).await;
        next = end;
        furthest = furthest.max(next);
        if next == furthest && rng.random_bool(0.1) {
            drop(store);
            store = open(&dir);
            assert_eq!(followers(&store).await, followers_after(&events[..next]));
            let applied = store.applied(PARTITION) as usize;
            next = rng.random_range(applied.saturating_sub(700)..=applied);
        }
    }
    let expected = followers_after(&events);
    assert_eq!(followers(&store).await, expected);
    drop(store);
    let store = open(&dir);
    assert_eq!(followers(&store).await, expected);
    assert_eq!(store.size().await.unwrap().follows, expected.len() as u64);
}

/// The whole of it, from several places, into a store that already has its end.
#[tokio::test]
async fn a_replay_of_follow_changes_ends_where_it_ended_before() {
    let mut rng = StdRng::seed_from_u64(seed());
    let events: Vec<Event> = (0..2_000)
        .map(|_| {
            let user = UserId(rng.random_range(2..300));
            if rng.random_bool(0.6) { followed(&[user]) } else { unfollowed(user) }
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(&store, 0, &events).await;
    let expected = followers(&store).await;
    assert_eq!(expected, followers_after(&events));
    drop(store);
    for from in [1_999, 1_500, 700, 0] {
        for batch_len in [2_000, 333] {
            let store = open(&dir);
            for (start, batch) in (from..).step_by(batch_len).zip(events[from..].chunks(batch_len))
            {
                apply(&store, start as u64, batch).await;
            }
            assert_eq!(followers(&store).await, expected, "from {from}");
            drop(store);
            assert_eq!(followers(&open(&dir)).await, expected, "from {from}, reopened");
        }
    }
}

#[tokio::test]
async fn a_timeline_costs_12_bytes_an_entry_and_200_beside() {
    const READERS: u64 = 100;
    let readers: Vec<UserId> = (2..2 + READERS).map(UserId).collect();
    for rebuilt in [false, true] {
        for len in [0, 1, 20, 100, 800, 2_000] {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir);
            apply(&store, 0, &[followed(&readers)]).await;
            let ids: Vec<PostId> = (1..=len).map(PostId).collect();
            let kept = ids.len().min(store.entries_max());
            for reader in &readers {
                let reader = wake_with(&store, *reader, if rebuilt { &ids } else { &[] }).await;
                if !rebuilt {
                    for id in &ids {
                        store.push(&combine(vec![(reader, *id)])).await.unwrap();
                    }
                }
            }
            let size = store.size().await.unwrap();
            assert_eq!(size.live_timelines, READERS);
            assert_eq!(size.timeline_entries, READERS * kept as u64);
            let bytes_max = 12 * size.timeline_entries + 200 * size.live_timelines;
            assert!(size.timeline_bytes >= 8 * size.timeline_entries, "{size:?}");
            assert!(size.timeline_bytes <= bytes_max, "{len} posts: {size:?}");
        }
    }
}

#[tokio::test]
async fn the_size_follows_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(&store, 0, &[followed(&[UserId(2), UserId(3)]), unfollowed(UserId(3))]).await;
    let reader = wake_with(&store, UserId(2), &[PostId(10), PostId(11)]).await;
    store.push(&combine(vec![(reader, PostId(12)), (reader, PostId(11))])).await.unwrap();
    let size = store.size().await.unwrap();
    assert_eq!((size.accounts, size.follows), (3, 1));
    assert_eq!((size.live_timelines, size.timeline_entries), (1, 3));
    store.remove(&[reader], PostId(10)).await.unwrap();
    let gone = NewestPosts { ids: vec![PostId(12)], floor: None };
    store.purge(reader, &gone).await.unwrap();
    assert_eq!(store.size().await.unwrap().timeline_entries, 1);
    let before = store.size().await.unwrap().timeline_bytes;
    wake_with(&store, UserId(3), &[]).await;
    assert_eq!(store.size().await.unwrap().live_timelines, 2);
    assert!(store.size().await.unwrap().timeline_bytes > before);
}

/// Each file is cut, changed and removed.
#[tokio::test]
async fn damaged_file_is_refused_with_rebuild_or_mended() {
    let whole = tempfile::tempdir().unwrap();
    let store = open(&whole);
    apply(&store, 0, &[post(10), followed(&[UserId(2)]), post(12)]).await;
    store.sync().await.unwrap();
    drop(store);
    let mut refused = 0;
    for file in files(whole.path()) {
        let bytes = fs::read(whole.path().join(&file)).unwrap();
        let mut changed = bytes.clone();
        changed.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x40);
        let half = &bytes[..bytes.len() / 2];
        for damaged in [Some(half), Some(&changed), None] {
            let dir = tempfile::tempdir().unwrap();
            for other in files(whole.path()) {
                let to = dir.path().join(&other);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(whole.path().join(&other), to).unwrap();
            }
            match damaged {
                Some(bytes) => fs::write(dir.path().join(&file), bytes).unwrap(),
                None => fs::remove_file(dir.path().join(&file)).unwrap(),
            }
            let Err(error) = EmbeddedStore::open(dir.path(), Settings::default()) else { continue };
            let said = error.to_string();
            refused += 1;
            assert!(matches!(error, StoreError::Damaged { .. }), "{file:?}: {said}");
            let names = [dir.path().to_str().unwrap(), "roost rebuild"];
            assert!(names.iter().all(|name| said.contains(name)), "{file:?}: {said}");
        }
    }
    assert!(refused > 0);
}

/// The files below a directory, as paths from there.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            files.extend(self::files(&path).into_iter().map(|file| name.join(file)));
        } else {
            files.push(name);
        }
    }
    files
}

fn open(dir: &TempDir) -> EmbeddedStore {
    EmbeddedStore::open(dir.path(), Settings::default()).unwrap()
}

async fn apply(store: &EmbeddedStore, first_offset: u64, events: &[Event]) {
    store.apply(PARTITION, first_offset, events.into()).await.unwrap();
}

async fn wake(store: &EmbeddedStore, reader: UserId) -> u32 {
    wake_with(store, reader, &[]).await
}

/// Makes a timeline of these posts live.
async fn wake_with(store: &EmbeddedStore, reader: UserId, ids: &[PostId]) -> u32 {
    let reader = store.account(reader).await.unwrap().unwrap();
    let ticket = store.begin_rebuild(reader).await.unwrap();
    let posts = NewestPosts { ids: ids.to_vec(), floor: None };
    assert!(store.finish_rebuild(reader, ticket, posts).await.unwrap());
    reader
}

async fn followers(store: &EmbeddedStore) -> BTreeSet<UserId> {
    let Some(author) = store.account(AUTHOR).await.unwrap() else { return BTreeSet::new() };
    let listed = store.list_follows(author, FollowSide::Followers, None, usize::MAX).await.unwrap();
    for follower in &listed {
        let follower = store.account(*follower).await.unwrap().unwrap();
        assert!(store.follows(follower, author).await.unwrap());
    }
    let counts = store.count_follows(author).await.unwrap();
    assert_eq!(counts.followers, listed.len() as u64);
    listed.into_iter().collect()
}

fn followers_after(events: &[Event]) -> BTreeSet<UserId> {
    let mut followers = BTreeSet::new();
    for event in events {
        match event {
            Event::Followed { followers: new, .. } => followers.extend(new),
            Event::Unfollowed { follower, .. } => {
                followers.remove(follower);
            }
            _ => {}
        }
    }
    followers
}

fn followed(followers: &[UserId]) -> Event {
    Event::Followed { followee: AUTHOR, followers: followers.to_vec() }
}

fn unfollowed(follower: UserId) -> Event {
    Event::Unfollowed { followee: AUTHOR, follower }
}

fn post(id: u64) -> Event {
    let post = Post {
        id: PostId(id),
        author: AUTHOR,
        text: "hello".to_owned(),
        origin: Origin::Shared,
        link: None,
        reply_to: None,
        repost_of: None,
        mentions: Vec::new(),
    };
    Event::PostPublished { post, request_id: None }
}
