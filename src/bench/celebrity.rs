//! *celebrity*: how long a small author's posts take, alone and while an author with
//! more and more followers posts once a second, until that one is pulled by reads.

use std::time::Duration;

use super::{
    BenchError, Goal, Plot, Ratio, Row, Section,
    drain::RATE,
    ground::Ground,
    open_loop::{Held, hold},
    schedule::Stream,
    town::{Drawn, Town, share_of},
};

/// Those whose posts are looked at.
const SMALL_AUTHORS: usize = 200;
const SMALL_FOLLOWERS: u32 = 100;
const SMALL_POSTS_PER_SECOND: f64 = 200.0;
/// Authors with a part of the celebrity's followers: one in so many.
const PARTS: [u32; 3] = [100, 10, 3];
const CELEBRITY_POSTS_PER_SECOND: f64 = 1.0;
/// The goal is for an author with so many.
const GOAL_FOLLOWERS: u32 = 1_000_000;
const WARM_UP: Duration = Duration::from_secs(2);

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let settings = ground.settings;
    let (users, awake_percent) = (settings.celebrity_followers, settings.awake_percent);
    let (window, patience) = (settings.window, settings.visible_max * 2);
    let first_id = u64::from(users) + 1;
    let small = Drawn { authors: SMALL_AUTHORS, first_id, followers: SMALL_FOLLOWERS };
    // As many posts as come before an author's turn is again.
    let small = Town::drawn(1, users, small, SMALL_AUTHORS);
    let first_id = first_id + SMALL_AUTHORS as u64;
    let of = |place: u64, followers| {
        let drawn = Drawn { authors: 1, first_id: first_id + place, followers };
        Town::drawn(2 + place, users, drawn, 1)
    };
    let celebrity = of(0, users);
    let lesser: Vec<(u32, Town)> =
        (1..).zip(PARTS).map(|(place, part)| (users / part, of(place, users / part))).collect();

    ground.say("waking the readers of small authors");
    let (mut roost, seen) = ground.watched_roost().await?;
    roost.prepare(&small).await?;
    roost.append(celebrity.follows()).await?;
    for (_, town) in &lesser {
        roost.append(town.follows()).await?;
    }
    roost.settle().await?;
    let readers = celebrity.readers();
    roost.wake(&share_of(&readers, awake_percent)).await?;
    let writes = roost.writes();
    let small_posts =
        Stream { town: &small, posts_per_second: SMALL_POSTS_PER_SECOND, is_counted: true };
    let posts_of =
        |town| Stream { town, posts_per_second: CELEBRITY_POSTS_PER_SECOND, is_counted: false };
    let celebrity_posts = posts_of(&celebrity);

    // What is done for the first time is done before anything is measured.
    let warm_up = [small_posts, celebrity_posts];
    hold(ground, &roost, &writes, &seen, &warm_up, WARM_UP, patience).await?;
    roost.settle().await?;
    ground.say("small authors alone");
    let alone = hold(ground, &roost, &writes, &seen, &[small_posts], window, patience).await?;
    let beside = [small_posts, celebrity_posts];
    ground.say("small authors beside a celebrity, few of whose followers are awake");
    let few = hold(ground, &roost, &writes, &seen, &beside, window, patience).await?;
    roost.settle().await?;
    ground.say("waking the celebrity's followers");
    roost.wake(&readers).await?;
    let mut besides = vec![Beside::pushed(users, awake_percent, few)];
    for (followers, town) in &lesser {
        ground.say(&format!("small authors beside one with {followers} followers"));
        let beside = [small_posts, posts_of(town)];
        let held = hold(ground, &roost, &writes, &seen, &beside, window, patience).await?;
        roost.settle().await?;
        besides.push(Beside::pushed(*followers, 100, held));
    }
    ground.say("small authors beside a celebrity, all of whose followers are awake");
    let all = hold(ground, &roost, &writes, &seen, &beside, window, patience).await?;
    besides.push(Beside::pushed(users, 100, all));
    roost.settle().await?;
    ground.say("small authors beside a celebrity who is pulled");
    writes.set_delivery(celebrity.author(celebrity.posts()[0]), true).await?;
    let pulled = hold(ground, &roost, &writes, &seen, &beside, window, patience).await?;
    besides.push(Beside { name: format!("{users} followers, pulled"), due: 0.0, held: pulled });
    roost.settle().await?;
    drop(writes);
    roost.stop().await?;
    Ok(vec![section(ground, &alone, &besides)])
}

/// What small authors' posts came to beside another's.
struct Beside {
    name: String,
    /// Deliveries that the other asked for, a second.
    due: f64,
    held: Held,
}

impl Beside {
    fn pushed(followers: u32, awake_percent: u8, held: Held) -> Self {
        Self {
            name: format!("{followers} followers, {awake_percent} % awake"),
            due: CELEBRITY_POSTS_PER_SECOND * f64::from(followers) * f64::from(awake_percent)
                / 100.0,
            held,
        }
    }
}

fn section(ground: &Ground<'_>, alone: &Held, besides: &[Beside]) -> Section {
    let window = ground.settings.window.as_secs_f64();
    let row = |name: &str, held: &Held| {
        let row = Row::new(name).with(RATE, held.rate(), "/s").with(
            "Redis CPU a second",
            held.redis_cpu.as_secs_f64() / window,
            "s",
        );
        held.latencies.figures(row)
    };
    let mut rows = vec![row("alone", alone)];
    rows.extend(besides.iter().map(|beside| row(&beside.name, &beside.held)));
    let p99 = |held: &Held| held.latencies.quantile(0.99).as_secs_f64();
    let small = SMALL_POSTS_PER_SECOND * f64::from(SMALL_FOLLOWERS + 1);
    let ratios = besides.iter().flat_map(|Beside { name, due, held }| {
        [
            Ratio {
                name: format!("p99 of small authors, beside {name} ÷ alone"),
                value: p99(held) / p99(alone),
                goal: Goal::AtMost(2.0).only_if(*due >= f64::from(GOAL_FOLLOWERS)),
            },
            // Whether the other keeps up, or small authors have what it lacks.
            Ratio {
                name: format!("deliveries ÷ those that were due, beside {name}"),
                value: held.rate() / (small + due),
                goal: None,
            },
        ]
    });
    let curves = besides.iter().map(|beside| (beside.name.as_str(), &beside.held));
    let curves = [("alone", alone)].into_iter().chain(curves);
    let curves = curves.map(|(name, held)| held.latencies.series(name));
    Section {
        name: "celebrity".to_owned(),
        about: format!(
            "{SMALL_AUTHORS} authors with {SMALL_FOLLOWERS} followers each, all of them awake, \
             post {SMALL_POSTS_PER_SECOND:.0} times a second together, for {} s, into {} and \
             Redis; alone, and while an author with more and more followers posts once a second, \
             who is pulled in the end. The latencies are those of the small authors' posts, from the moment one is due to the \
             moment it has reached all its readers.",
            ground.settings.window.as_secs_f64(),
            ground.logs.name(),
        ),
        rows,
        ratios: ratios.collect(),
        plots: vec![Plot::of_latencies(
            "Publish to visible",
            "share of the posts",
            curves.collect(),
        )],
        ..Section::default()
    }
}
