//! *sustain*: the highest rate of posts at which 99 of 100 show to all their readers in
//! time, and how long they take at half of it.

mod search;
mod section;

use std::time::Duration;

use self::search::Search;
use super::{
    BenchError, Section,
    ground::Ground,
    log::BenchLog,
    open_loop::{Held, Seen, hold},
    roost::Roost,
    schedule::Stream,
    sleepers::FILLERS,
    town::{FILLED, Town, is_of_a_million},
};
use crate::{store::redis::RedisStore, writes::Writes};

/// Posts a second to begin with where nothing is known.
const RATE_FIRST: f64 = 500.0;
/// Which share of what a drain takes is tried first.
const FIRST_SHARE: f64 = 0.5;
/// A rate that was found is held for so many windows.
const CONFIRM_WINDOWS: u32 = 3;
/// A rate can be held if such a share of what is due in the second half of so many windows is
/// delivered in it: otherwise the backlog grows, if too slowly for the latencies to tell.
const KEPT_UP: f64 = 0.95;
/// Which shares of a rate that was found are held, until one is good.
const CONFIRM_SHARES: [f64; 6] = [1.0, 0.93, 0.86, 0.75, 0.6, 0.4];

/// The goal is for Kafka, within so long.
const GOAL_VISIBLE: Duration = Duration::from_secs(5);

/// A rate that was tried for a while.
struct Tried {
    posts_per_second: f64,
    /// Ids that a timeline had been given on average when it began.
    entries: f64,
    held: Held,
    /// Whether 99 of 100 posts showed in time.
    is_in_time: bool,
}

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let town = ground.town().await?;
    let readers = town.delivery_count() as f64 / town.posts().len() as f64;
    let drained = ground.drained.as_ref().map(|drained| drained.drained.work.rate());
    let first = ground.settings.rate_first;
    let first = first.or(drained.map(|rate| rate / readers * FIRST_SHARE)).unwrap_or(RATE_FIRST);
    let window = ground.settings.window;
    let (mut search, mut others) = (Search::new(first, ground.settings.rates_max), Vec::new());
    ground.say("waking the readers");
    let (mut roost, seen) = ground.watched_roost().await?;
    roost.prepare(&town).await?;
    if ground.settings.full_timelines {
        ground.say("filling timelines");
        let filler = Town::filler(&town.readers(), FILLERS, FILLED);
        roost.append(filler.follows()).await?;
        roost.settle().await?;
        roost.append(filler.events()).await?;
        roost.settle().await?;
    }
    let writes = roost.writes();
    let readers_count = town.readers().len();
    let mut road = Road {
        ground,
        town: &town,
        readers: readers_count.max(1),
        roost: &mut roost,
        writes: &writes,
        seen: &seen,
    };

    // Followers are read for the first time, and the broker's code is compiled.
    road.hold("warming up at", first, window / 2).await?;
    while let Some(rate) = search.next() {
        let tried = road.hold("trying", rate, window).await?;
        search.note(rate, tried.is_in_time);
        others.push(tried);
    }
    let mut found = None;
    for rate in search.best().iter().flat_map(|best| CONFIRM_SHARES.map(|share| best * share)) {
        let tried = road.hold("holding", rate, window * CONFIRM_WINDOWS).await?;
        if tried.is_in_time && tried.keeps_up() {
            found = Some(tried);
            break;
        }
        others.push(tried);
    }
    let half = match &found {
        Some(found) => Some(road.hold("holding", found.posts_per_second / 2.0, window).await?),
        None => None,
    };
    drop(writes);
    roost.stop().await?;
    let about = section::about(ground, readers, readers_count);
    let is_for_goal = is_of_a_million(readers_count)
        && ground.has_usual_followers()
        && ground.settings.visible_max <= GOAL_VISIBLE
        && ground.logs.are_of_kafka();
    Ok(vec![section::of(about, is_for_goal, found, half, &others)])
}

/// Where rates are held, one after the other.
struct Road<'a, 'g> {
    ground: &'a mut Ground<'g>,
    town: &'a Town,
    readers: usize,
    roost: &'a mut Roost<RedisStore>,
    writes: &'a Writes<BenchLog, RedisStore>,
    seen: &'a Seen,
}

impl Road<'_, '_> {
    async fn hold(
        &mut self,
        phase: &str,
        posts_per_second: f64,
        window: Duration,
    ) -> Result<Tried, BenchError> {
        self.ground.say(&format!("{phase} {posts_per_second:.0} posts a second"));
        let visible_max = self.ground.settings.visible_max;
        let delivered = self.roost.moment().deliveries();
        let entries = delivered as f64 / self.readers as f64;
        let streams = [Stream { town: self.town, posts_per_second, is_counted: true }];
        let patience = visible_max * 2;
        let (ground, roost) = (&*self.ground, &*self.roost);
        let held = hold(ground, roost, self.writes, self.seen, &streams, window, patience).await?;
        // The next one does not begin with what this one leaves.
        self.roost.settle().await?;
        let is_in_time = held.unseen == 0 && held.latencies.quantile(0.99) <= visible_max;
        Ok(Tried { posts_per_second, entries, held, is_in_time })
    }
}

impl Tried {
    /// Whether about as much was delivered as was due, if it was for long enough to tell.
    fn keeps_up(&self) -> bool {
        self.held.steady.is_none_or(|steady| steady.rate >= steady.due * KEPT_UP)
    }

    /// Deliveries a second. What was left of the window's first half is not of its rate.
    fn rate(&self) -> f64 {
        self.held.steady.map_or(self.held.rate(), |steady| steady.rate.min(steady.due))
    }
}
