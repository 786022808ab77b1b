//! Whether the store can be trusted to know which requests have made their posts.
//!
//! A request that is sent again, perhaps to another process, is answered with the post
//! that it has made before, which the store tells. A store that was emptied, or whose
//! replica took over without the last writes, does not know, and does not know that it
//! does not; or it names what a later event of the request has made.
//!
//! ```text
//!  told ──► a look begins ──► nothing lost, then or shortly before: what it said holds
//!                        └──► something lost: ask again once all is there again, and the
//!                             post is applied
//! ```

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// For so long after a loss, what another process was about to write may still come
/// into the log, and nobody knows what it had claimed.
const DISTRUST: Duration = Duration::from_secs(30);
/// A worker may take so long to notice a loss, and believes until then that it knows
/// every request.
const SETTLE: Duration = Duration::from_secs(2);
/// How long anybody waits for a store that is away, or until it holds again what it has
/// lost: longer than most failovers take.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(15);
/// Refusals that come no later one after the other than this are of one time.
const REFUSALS_APART_MAX: Duration = Duration::from_secs(1);

/// What looks at the store have found. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Memory(Option<watch::Sender<Looks>>);

#[derive(Clone, Copy, Debug)]
struct Looks {
    /// When the last look began that found everything there.
    whole: Instant,
    /// When the first of those began that have found everything there since one did not.
    whole_since: Instant,
    /// Whether the last look found that not all of what was lost is there again.
    lacks: bool,
    lost: Option<Lost>,
    /// Looks find a store that refuses what it is asked, as one does that is full.
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    since: Instant,
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    /// When a loss was found last.
    at: Instant,
    /// Since when not everything is there, or has not been until `whole`.
    since: Instant,
}

impl Memory {
    /// Of a store that never loses anything.
    pub fn perfect() -> Self {
        Self(None)
    }

    /// Of a store that holds everything now, and must be looked at from time to time.
    pub fn of_shared_store() -> Self {
        let now = Instant::now();
        let looks = Looks { whole: now, whole_since: now, lacks: false, lost: None, refused: None };
        Self(Some(watch::Sender::new(looks)))
    }

    /// Whether there is anything to look for.
    pub fn may_fail(&self) -> bool {
        self.0.is_some()
    }

    /// A look that began at `begun` found everything there.
    pub fn found_whole(&self, begun: Instant) {
        self.change(|looks| {
            if looks.is_lost() {
                looks.whole_since = begun;
            }
            (looks.whole, looks.lacks) = (begun, false);
        });
    }

    /// A look found that what was lost is not all there again.
    pub fn found_lacking(&self) {
        self.change(|looks| looks.lacks = true);
    }

    /// A look found that the store has lost something.
    pub fn found_loss(&self) {
        self.change(|looks| {
            let at = Instant::now();
            // One that comes before the last is made good belongs to it.
            let since = match looks.lost {
                Some(lost) if looks.is_lost() => lost.since,
                _ => at,
            };
            looks.lost = Some(Lost { at, since });
        });
    }

    /// The store has not done what it was asked, and may later. Returns until when to wait for
    /// that: all who are refused at one time wait for the same.
    pub(super) fn found_refusal(&self) -> Instant {
        let last = Instant::now();
        let mut since = last;
        self.change(|looks| {
            let before = looks.refused.filter(|before| last <= before.last + REFUSALS_APART_MAX);
            since = before.map_or(last, |before| before.since);
            looks.refused = Some(Refused { since, last });
        });
        since + WAIT_MAX
    }

    /// Looks that find everything there, for tests: until the task is aborted.
    #[cfg(test)]
    pub(crate) fn find_whole_again_and_again(&self) -> tokio::task::JoinHandle<()> {
        let memory = self.clone();
        tokio::spawn(async move {
            loop {
                memory.found_whole(Instant::now());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Looks)) {
        if let Some(looks) = &self.0 {
            looks.send_modify(change);
        }
    }

    /// Whether what the store had said at `told` can be trusted. Waits for the next look,
    /// unless the store has been without an answer for long.
    pub async fn holds_since(&self, told: Instant) -> bool {
        let Some(looks) = &self.0 else { return true };
        let until = self.patience_until();
        let mut looks = looks.subscribe();
        let looked_at = looks.wait_for(|looks| looks.whole >= told || looks.is_lost());
        match timeout_at(until, looked_at).await {
            Ok(Ok(looks)) => {
                let is_forgotten = looks.lost.is_none_or(|lost| lost.at + DISTRUST <= told);
                is_forgotten && !looks.is_lost() && looks.whole_since <= told
            }
            _ => false,
        }
    }

    /// Waits until a look from `since` on finds everything there that ever was, and no worker
    /// believes so by mistake. Returns when something was lost last.
    pub(super) async fn wait_whole(&self, since: Instant) -> Option<Instant> {
        let looks = self.0.as_ref()?;
        let whole = |looks: &Looks| {
            let settled = looks.lost.map_or(since, |lost| lost.at + SETTLE);
            looks.whole >= settled.max(since)
        };
        // The sender is here.
        let mut looks = looks.subscribe();
        looks.wait_for(whole).await.ok()?.lost.map(|lost| lost.at)
    }

    /// Whether nothing more was lost until `told` than at `lost`. Waits for the next look.
    pub(super) async fn is_as_whole(&self, lost: Option<Instant>, told: Instant) -> bool {
        let Some(looks) = &self.0 else { return true };
        let is_other = |looks: &Looks| looks.lost.map(|lost| lost.at) != lost;
        let mut looks = looks.subscribe();
        let looked_at = looks.wait_for(|looks| looks.whole >= told || is_other(looks)).await;
        looked_at.is_ok_and(|looks| !is_other(&looks))
    }

    /// Until when to wait for a store that is away or has lost something: all who ask
    /// meanwhile wait for the same time. One that never loses anything is not away.
    pub(super) fn patience_until(&self) -> Instant {
        let Some(looks) = &self.0 else { return Instant::now() };
        let looks = looks.borrow();
        let since = match looks.lost {
            Some(lost) if looks.is_lost() => lost.since,
            _ => looks.whole,
        };
        since + WAIT_MAX
    }
}

impl Looks {
    /// Whether not everything is there, as far as is known.
    fn is_lost(&self) -> bool {
        self.lacks || self.lost.is_some_and(|lost| self.whole <= lost.at)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    async fn waits(memory: &Memory, asked: Instant) -> tokio::task::JoinHandle<bool> {
        let memory = memory.clone();
        let task = tokio::spawn(async move { memory.holds_since(asked).await });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        task
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_holds_once_a_look_that_began_after_it_finds_all() {
        let memory = Memory::of_shared_store();
        advance(Duration::from_secs(1)).await;
        let asked = Instant::now();
        let task = waits(&memory, asked).await;
        memory.found_whole(asked - Duration::from_millis(1));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        memory.found_whole(asked);
        assert!(task.await.unwrap());
        assert!(Memory::perfect().holds_since(asked).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_waited_for_once() {
        let memory = Memory::of_shared_store();
        let begun = Instant::now();
        advance(Duration::from_secs(1)).await;
        assert!(!memory.holds_since(Instant::now()).await);
        assert!(begun.elapsed() >= WAIT_MAX);
        let waited = begun.elapsed();
        assert!(!memory.holds_since(Instant::now()).await);
        assert!(memory.patience_until() <= Instant::now());
        assert_eq!(begun.elapsed(), waited);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_loss_nothing_is_trusted_for_a_while() {
        let memory = Memory::of_shared_store();
        advance(Duration::from_secs(1)).await;
        let task = waits(&memory, Instant::now()).await;
        memory.found_loss();
        assert!(!task.await.unwrap());
        advance(Duration::from_secs(3)).await;
        memory.found_whole(Instant::now());
        assert!(!memory.holds_since(Instant::now()).await);
        advance(DISTRUST).await;
        memory.found_whole(Instant::now());
        assert!(memory.holds_since(Instant::now()).await);
    }

    /// However long it takes until all is there again.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_trusted_that_was_said_while_something_was_lost() {
        let memory = Memory::of_shared_store();
        memory.found_loss();
        for after in [DISTRUST / 2, DISTRUST, 2 * DISTRUST] {
            memory.found_lacking();
            // No look since: the store is away as well.
            advance(after).await;
            assert!(!memory.holds_since(Instant::now()).await);
        }
        let told_before = Instant::now();
        advance(Duration::from_millis(20)).await;
        memory.found_whole(Instant::now());
        assert!(!memory.holds_since(told_before).await, "the first look finds what is there now");
        assert!(memory.holds_since(Instant::now()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_after_the_wait_holds_unless_something_was_lost_meanwhile() {
        let memory = Memory::of_shared_store();
        for is_lost in [false, true] {
            advance(Duration::from_secs(1)).await;
            let since = Instant::now();
            memory.found_whole(since);
            let lost = memory.wait_whole(since).await;
            let waiting = memory.clone();
            let told = since + Duration::from_millis(1);
            let task = tokio::spawn(async move { waiting.is_as_whole(lost, told).await });
            tokio::task::yield_now().await;
            assert!(!task.is_finished());
            if is_lost {
                memory.found_loss();
            }
            memory.found_whole(told);
            assert_eq!(task.await.unwrap(), !is_lost);
        }
        assert!(Memory::perfect().is_as_whole(None, Instant::now()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_again_waits_until_all_is_there_and_knows_for_how_long() {
        let memory = Memory::of_shared_store();
        advance(Duration::from_secs(1)).await;
        memory.found_loss();
        let since = Instant::now();
        let waiting = memory.clone();
        let task = tokio::spawn(async move { waiting.wait_whole(since).await });
        sleep(SETTLE / 2).await;
        // Too early: a worker may not have noticed.
        memory.found_whole(Instant::now());
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        sleep(SETTLE).await;
        memory.found_whole(Instant::now());
        assert_eq!(task.await.unwrap(), Some(since));

        memory.found_loss();
        let lost = Instant::now();
        assert_eq!(memory.patience_until(), lost + WAIT_MAX);
        // Whoever comes later does not wait as long again.
        sleep(SETTLE).await;
        memory.found_loss();
        assert_eq!(memory.patience_until(), lost + WAIT_MAX);
    }
}
