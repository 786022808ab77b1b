//! *celebrity*: how long a small author's posts take, alone and while an author with
//! very many followers posts once a second.

use std::time::Duration;

use super::{
    BenchError, Goal, Ratio, Row, Section, Series,
    drain::RATE,
    ground::Ground,
    open_loop::{Held, Stream, hold},
    sustain::latency_plot,
    town::{Drawn, Town, share_of},
};

/// Those whose posts are looked at.
const SMALL_AUTHORS: usize = 200;
const SMALL_FOLLOWERS: u32 = 100;
const SMALL_POSTS_PER_SECOND: f64 = 200.0;
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
    let celebrity = Town::drawn(2, users, Drawn { authors: 1, first_id, followers: users }, 1);

    ground.say("waking the readers of small authors");
    let (mut roost, seen) = ground.watched_roost().await?;
    roost.prepare(&small).await?;
    roost.append(celebrity.follows()).await?;
    roost.settle().await?;
    let readers = celebrity.readers();
    roost.wake(&share_of(&readers, awake_percent)).await?;
    let writes = roost.writes();
    let small_posts =
        Stream { town: &small, posts_per_second: SMALL_POSTS_PER_SECOND, is_counted: true };
    let celebrity_posts = Stream {
        town: &celebrity,
        posts_per_second: CELEBRITY_POSTS_PER_SECOND,
        is_counted: false,
    };

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
    ground.say("small authors beside a celebrity, all of whose followers are awake");
    let all = hold(ground, &roost, &writes, &seen, &beside, window, patience).await?;
    roost.settle().await?;
    drop(writes);
    roost.stop().await?;

    let named = [
        ("alone".to_owned(), alone),
        (format!("celebrity, {awake_percent} % awake"), few),
        ("celebrity, all awake".to_owned(), all),
    ];
    Ok(vec![section(ground, users, &named)])
}

fn section(ground: &Ground<'_>, users: u32, named: &[(String, Held); 3]) -> Section {
    let rows = named.iter().map(|(name, held)| {
        held.latencies.figures(Row::new(name.clone()).with(RATE, held.rate, "/s"))
    });
    let p99 = |held: &Held| held.latencies.quantile(0.99).as_secs_f64();
    let [(_, alone), beside @ ..] = named;
    let small = SMALL_POSTS_PER_SECOND * f64::from(SMALL_FOLLOWERS + 1);
    let awake = [ground.settings.awake_percent, 100].map(|percent| f64::from(percent) / 100.0);
    let ratios = beside.iter().zip(awake).flat_map(|((name, held), awake)| {
        let due = small + CELEBRITY_POSTS_PER_SECOND * f64::from(users) * awake;
        [
            Ratio {
                name: format!("p99 of small authors, {name} ÷ alone"),
                value: p99(held) / p99(alone),
                goal: Goal::AtMost(2.0).only_if(users >= GOAL_FOLLOWERS),
            },
            // Whether the celebrity keeps up, or small authors have what it lacks.
            Ratio {
                name: format!("deliveries ÷ those that were due, {name}"),
                value: held.rate / due,
                goal: None,
            },
        ]
    });
    let curves = named.iter().map(|(name, held)| Series::new(name.clone(), held.latencies.curve()));
    Section {
        name: "celebrity".to_owned(),
        about: format!(
            "{SMALL_AUTHORS} authors with {SMALL_FOLLOWERS} followers each, all of them awake, \
             post {SMALL_POSTS_PER_SECOND:.0} times a second together, for {} s, into {} and \
             Redis; alone, and while an author with {users} followers posts once a second. The \
             latencies are those of the small authors' posts, from the moment one is due to the \
             moment it has reached all its readers.",
            ground.settings.window.as_secs_f64(),
            ground.logs.name(),
        ),
        rows: rows.collect(),
        ratios: ratios.collect(),
        plots: vec![latency_plot(curves.collect())],
    }
}
