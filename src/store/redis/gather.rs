//! Write combining over partitions: pushes of several workers that are waiting at the
//! same time are made together.
//!
//! ```text
//!  push of partition 0 ─┐
//!  push of partition 1 ─┼─► waiting ──► joined by reader ──► pushed ──► told to each
//!  push of partition 2 ─┘       while earlier ones are under way
//! ```
//!
//! Nobody waits while there is little to do: the first to come goes at once, alone.
//! Under backlog those that come meanwhile go together, so that a reader whom several
//! authors' posts reach is written once for all of them, and the window grows with the
//! load by itself. What waits is at most one push of each caller.
//!
//! Whoever gives up its push must be sure that nothing of it is sent afterwards, since
//! its partition may be another process's by then. So a push under way is broken off
//! for all once one of those whose ids are in it has gone; to the others its outcome is
//! unknown.

use std::{
    future::Future,
    mem,
    sync::{Mutex, PoisonError},
};

use futures::future::select_all;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    domain::UserId,
    store::{PushOutcome, Pushes, StoreError},
};

/// Joined pushes under way at once: while one waits for Redis, the next one is joined.
const UNDER_WAY_MAX: usize = 2;

/// What a push came to. Those of one that was joined are told to its first part, and
/// the others are told that there was nothing more.
type Said = Result<PushOutcome, StoreError>;

/// Pushes that wait for others.
#[derive(Debug)]
pub(super) struct Gather {
    waiting: Mutex<Vec<Part>>,
    turns: Semaphore,
}

/// The push of one caller.
#[derive(Debug)]
struct Part {
    pushes: Pushes<UserId>,
    said: oneshot::Sender<Said>,
}

impl Default for Gather {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(UNDER_WAY_MAX) }
    }
}

impl Gather {
    /// Makes a push by way of `make`, together with those that wait when its turn comes.
    ///
    /// # Errors
    /// What `make` says; or that it was broken off, after which nobody knows what of
    /// it was written.
    pub(super) async fn push<F>(
        &self,
        pushes: Pushes<UserId>,
        make: impl Fn(Pushes<UserId>) -> F,
    ) -> Said
    where
        F: Future<Output = Said>,
    {
        let (said, mut hear) = oneshot::channel();
        self.lock().push(Part { pushes, said });
        tokio::select! {
            biased;
            said = &mut hear => return said.unwrap_or_else(|_| Err(broken_off())),
            // It is never closed.
            _turn = self.turns.acquire() => {
                let parts = mem::take(&mut *self.lock());
                make_together(parts, &make).await;
            }
        }
        // Its own was among them, or is under way with others.
        hear.await.unwrap_or_else(|_| Err(broken_off()))
    }

    /// A list of parts is whole at any time.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Part>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn make_together<F>(mut parts: Vec<Part>, make: impl Fn(Pushes<UserId>) -> F)
where
    F: Future<Output = Said>,
{
    // Who has gone before anything was sent.
    parts.retain(|part| !part.said.is_closed());
    if parts.is_empty() {
        return;
    }
    let (pushes, mut tell): (Vec<_>, Vec<_>) =
        parts.into_iter().map(|part| (part.pushes, part.said)).unzip();
    let made = make(Pushes::joined(pushes));
    let said = tokio::select! {
        biased;
        // Looked at first whenever this goes on, so that nothing is sent after it.
        _ = select_all(tell.iter_mut().map(|tell| Box::pin(tell.closed()))) => Err(broken_off()),
        said = made => said,
    };
    let mut said = Some(said);
    for tell in tell {
        let to_this_one = match &said {
            Some(Err(error)) => Err(error.clone()),
            _ => said.take().unwrap_or(Ok(PushOutcome::default())),
        };
        // Whoever has gone need not know.
        let _ = tell.send(to_this_one);
    }
}

fn broken_off() -> StoreError {
    StoreError::Redis {
        reason: "a push was broken off, since the partition of some of it went to another \
                 worker; it is looked after"
            .to_owned(),
        is_final: false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{sync::mpsc, task::JoinHandle};

    use super::*;
    use crate::{domain::PostId, fanout::combine};

    /// Pushes that are made when the test says so.
    struct Redis {
        gather: Arc<Gather>,
        made: mpsc::UnboundedSender<Made>,
        makes: mpsc::UnboundedReceiver<Made>,
    }

    struct Made {
        pushes: Pushes<UserId>,
        answer: oneshot::Sender<Said>,
    }

    impl Made {
        fn readers(&self) -> Vec<u64> {
            self.pushes.iter().map(|(reader, _)| reader.0).collect()
        }

        fn is_given_up(&self) -> bool {
            self.answer.is_closed()
        }
    }

    impl Redis {
        fn new() -> Self {
            let (made, makes) = mpsc::unbounded_channel();
            Self { gather: Arc::default(), made, makes }
        }

        async fn push(&self, reader: u64) -> JoinHandle<Said> {
            let (gather, made) = (Arc::clone(&self.gather), self.made.clone());
            let pushes = combine(vec![(UserId(reader), PostId(reader))]);
            let task = tokio::spawn(async move {
                let make = |pushes| {
                    let (answer, hear) = oneshot::channel();
                    made.send(Made { pushes, answer }).expect("the test listens");
                    async { hear.await.expect("the test answers") }
                };
                gather.push(pushes, make).await
            });
            // One thread: it goes on until it waits.
            tokio::task::yield_now().await;
            task
        }

        async fn next(&mut self) -> Made {
            self.makes.recv().await.expect("a push")
        }
    }

    fn outcome(deliveries: u64) -> PushOutcome {
        PushOutcome { deliveries, ..PushOutcome::default() }
    }

    #[tokio::test]
    async fn what_waits_goes_together_and_each_is_told() {
        let mut redis = Redis::new();
        let mut tasks = Vec::new();
        for reader in 1..=5 {
            tasks.push(redis.push(reader).await);
        }
        let (first, second) = (redis.next().await, redis.next().await);
        assert_eq!((first.readers(), second.readers()), (vec![1], vec![2]));
        first.answer.send(Ok(outcome(1))).unwrap();
        let others = redis.next().await;
        assert_eq!(others.readers(), [3, 4, 5]);
        others.answer.send(Ok(outcome(3))).unwrap();
        second.answer.send(Ok(outcome(1))).unwrap();
        let mut all = PushOutcome::default();
        for task in tasks {
            all += task.await.unwrap().expect("pushed");
        }
        assert_eq!(all, outcome(5));
    }

    #[tokio::test]
    async fn an_error_is_everybodys() {
        let mut redis = Redis::new();
        let mut tasks = Vec::new();
        for reader in 1..=4 {
            tasks.push(redis.push(reader).await);
        }
        for _ in 0..2 {
            redis.next().await.answer.send(Ok(outcome(1))).unwrap();
        }
        redis.next().await.answer.send(Err(StoreError::Closed)).unwrap();
        let mut failed = 0;
        for task in tasks {
            failed += u32::from(task.await.unwrap().is_err());
        }
        assert_eq!(failed, 2);
    }

    #[tokio::test]
    async fn one_who_goes_before_its_turn_is_not_in_it() {
        let mut redis = Redis::new();
        let mut tasks = Vec::new();
        for reader in 1..=4 {
            tasks.push(redis.push(reader).await);
        }
        let (first, _second) = (redis.next().await, redis.next().await);
        tasks[2].abort();
        assert!(tasks.remove(2).await.unwrap_err().is_cancelled());
        first.answer.send(Ok(outcome(1))).unwrap();
        assert_eq!(redis.next().await.readers(), [4]);
    }

    #[tokio::test]
    async fn one_who_goes_breaks_off_what_it_is_in() {
        let mut redis = Redis::new();
        let mut tasks = Vec::new();
        for reader in 1..=4 {
            tasks.push(redis.push(reader).await);
        }
        let (first, _second) = (redis.next().await, redis.next().await);
        first.answer.send(Ok(outcome(1))).unwrap();
        let both = redis.next().await;
        assert_eq!(both.readers(), [3, 4]);
        // Whichever of them makes the push.
        tasks[3].abort();
        let error = tasks.remove(2).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("broken off"), "{error}");
        assert!(both.is_given_up(), "it must not go on");
    }
}
