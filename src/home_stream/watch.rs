//! Which of the timelines that are followed have changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, future, stream};
use tokio::{
    sync::watch::{Receiver, Sender},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{PostId, UserId},
    fanout::Settled,
    store::{Accounts, HomeEnd, Homes, Lookups, StoreError},
    writes::Memory,
};

/// How often the ends of timelines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Timelines that are looked at together.
const LOOKED_AT_MAX: usize = 1_000;
/// Readers of whom it is asked at once whether they follow somebody.
const ASKED_AT_ONCE: usize = 256;

/// The newest post of each author.
type Newest<S> = HashMap<<S as Accounts>::Account, Vec<PostId>>;

/// Watches the timelines that are followed in this process.
pub struct Watch<S: Homes> {
    store: Arc<S>,
    readers: Mutex<HashMap<S::Account, Watched>>,
    settled: Arc<Settled>,
    memory: Memory,
}

struct Watched {
    /// As it was seen last.
    end: Option<HomeEnd>,
    changed: Sender<()>,
}

impl<S: Homes + Lookups> Watch<S> {
    /// Watches nothing yet; `settled` says what its streams need not remember, and `memory`
    /// whether the store has lost anything.
    pub fn new(store: Arc<S>, settled: Arc<Settled>, memory: Memory) -> Self {
        Self { store, readers: Mutex::default(), settled, memory }
    }

    /// Whether what the store has said since `told` can be trusted.
    pub(super) async fn holds_since(&self, told: Instant) -> bool {
        self.memory.holds_since(told).await
    }

    /// Up to this id every post that there will be has reached every timeline.
    pub(super) fn settled(&self) -> PostId {
        self.settled.up_to()
    }

    /// Hears of every change of an account's timeline; `None` if no event has named it.
    pub(super) async fn subscribe(&self, user: UserId) -> Result<Option<Receiver<()>>, StoreError> {
        let Some(reader) = self.store.account(user).await? else { return Ok(None) };
        let mut readers = self.lock();
        let watched = readers
            .entry(reader)
            .or_insert_with(|| Watched { end: None, changed: Sender::new(()) });
        Ok(Some(watched.changed.subscribe()))
    }

    /// Watches until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let look = async {
            let mut pulled = HashMap::new();
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                // What fails here fails in the streams too, which tell of it.
                let _ = self.look().await;
                let _ = self.look_at_pulled(&mut pulled).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = look => {}
        }
    }

    /// Tells those who follow a timeline that has another end than before.
    async fn look(&self) -> Result<(), StoreError> {
        let mut watched: Vec<S::Account> = {
            let mut readers = self.lock();
            readers.retain(|_, watched| watched.changed.receiver_count() > 0);
            readers.keys().copied().collect()
        };
        watched.sort_unstable();
        let mut failed = Ok(());
        for piece in watched.chunks(LOOKED_AT_MAX) {
            let ends = match self.store.ends(piece).await {
                Ok(ends) => ends,
                // Others may be elsewhere.
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            let mut readers = self.lock();
            for (reader, end) in piece.iter().zip(ends) {
                let Some(watched) = readers.get_mut(reader) else { continue };
                if watched.end.replace(end) != Some(end) {
                    watched.changed.send_replace(());
                }
            }
        }
        failed
    }

    /// Tells those who read an author who is pulled, and so changes no end, that it has posted.
    async fn look_at_pulled(&self, last: &mut Newest<S>) -> Result<(), StoreError> {
        let authors = self.store.pulled_authors();
        if authors.is_empty() || self.lock().is_empty() {
            return Ok(());
        }
        let newest = self.store.older_of(&authors, PostId(u64::MAX), 1).await?;
        let newest: Newest<S> = authors.iter().copied().zip(newest).collect();
        let has_posted = |author: &S::Account| last.get(author) != newest.get(author);
        let posted: Vec<S::Account> = authors.iter().copied().filter(has_posted).collect();
        *last = newest;
        if posted.is_empty() {
            return Ok(());
        }
        let watched: Vec<S::Account> = self.lock().keys().copied().collect();
        stream::iter(watched)
            .map(|reader| self.reads_any(reader, &posted))
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(future::ready)
            .for_each(|reader| {
                if let Some(watched) = self.lock().get(&reader) {
                    watched.changed.send_replace(());
                }
                future::ready(())
            })
            .await;
        Ok(())
    }

    /// The reader, if it reads any of these, or that cannot be found out.
    async fn reads_any(&self, reader: S::Account, authors: &[S::Account]) -> Option<S::Account> {
        let read = self.store.read_among(reader, authors).await;
        read.map_or(true, |some| !some.is_empty()).then_some(reader)
    }

    /// The map is whole even after a panic: it is changed by single calls only.
    fn lock(&self) -> MutexGuard<'_, HashMap<S::Account, Watched>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Event, Post},
        store::{
            Ledger,
            embedded::{EmbeddedStore, Settings},
        },
    };

    #[tokio::test]
    async fn a_post_that_is_pulled_is_told_to_those_who_read_its_author() {
        const AUTHOR: UserId = UserId(7);
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path(), Settings::default()).unwrap());
        let follow = |followee, follower| Event::Followed { followee, followers: vec![follower] };
        let post = |id, author| Event::PostPublished {
            post: Post::plain(PostId(id), author),
            request_id: None,
        };
        let events = vec![
            follow(AUTHOR, UserId(1)),
            follow(UserId(8), UserId(2)),
            Event::PullChanged { author: AUTHOR, pulled: true },
            post(1, AUTHOR),
        ];
        store.apply(0, 0, events.into()).await.unwrap();
        let watch = Watch::new(
            Arc::clone(&store),
            Arc::new(Settled::new(Duration::ZERO)),
            Memory::perfect(),
        );
        let mut streams = Vec::new();
        for user in [UserId(1), AUTHOR, UserId(2)] {
            streams.push(watch.subscribe(user).await.unwrap().expect("it is known"));
        }
        let mut last = HashMap::new();
        let mut told = async || {
            watch.look_at_pulled(&mut last).await.unwrap();
            streams
                .iter_mut()
                .map(|changed| {
                    let has_changed = changed.has_changed().unwrap();
                    changed.mark_unchanged();
                    has_changed
                })
                .collect::<Vec<bool>>()
        };
        assert_eq!(told().await, [true, true, false]);
        assert_eq!(told().await, [false, false, false]);
        store.apply(0, 4, vec![post(2, UserId(8))].into()).await.unwrap();
        assert_eq!(told().await, [false, false, false]);
        store.apply(0, 5, vec![post(3, AUTHOR)].into()).await.unwrap();
        assert_eq!(told().await, [true, true, false]);
    }
}
