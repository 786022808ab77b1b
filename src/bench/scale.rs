//! *scale*: what a delivery costs in populations of several sizes, and for authors with
//! few followers and with many.

use super::{
    Axis, BenchError, Goal, Plot, Ratio, Row, Scale, Section, Series,
    drain::{self, DrainedRedis, OWN_CPU, REDIS_CPU},
    ground::Ground,
    town::{Drawn, Town},
};

/// Followers of the authors that are beside each other, as far as there are accounts.
const FOLLOWERS: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Deliveries of each of them, about; fewer where the load has fewer.
const DELIVERIES_MAX: u64 = 2_000_000;
const AUTHORS_MAX: u64 = 2_000;

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    Ok(vec![by_users(ground).await?, by_followers(ground).await?])
}

async fn by_users(ground: &mut Ground<'_>) -> Result<Section, BenchError> {
    let sizes = ground.settings.scale_users.clone();
    let mut measured = Vec::new();
    for users in &sizes {
        let town = ground.town_of(*users).await?;
        measured.push(Population::drained(ground, format!("{users} accounts"), &town).await?);
    }
    let posts = measured.iter().map(|population| population.posts).max().unwrap_or_default();
    let mut ratios = Vec::new();
    if let ([fewest, .., most], [first, .., last]) = (&sizes[..], &measured[..]) {
        let is_for_goal = *fewest <= 100_000 && *most >= 10_000_000;
        let like = last.drained_by_fewer(ground, *fewest, first).await?;
        ratios.push(Ratio {
            name: "CPU a delivery, own and of Redis, most accounts ÷ fewest".to_owned(),
            value: last.drained.micros() / first.drained.micros(),
            goal: Goal::AtMost(1.5).only_if(is_for_goal),
        });
        ratios.push(Ratio {
            name: "the same, with as few ids a reader at the fewest".to_owned(),
            value: last.drained.micros() / like.drained.micros(),
            goal: None,
        });
        measured.push(like);
    }
    Ok(Section {
        name: "scale".to_owned(),
        about: format!(
            "Drains of {posts} posts in synthetic populations, from {} into Redis: as many \
             followers a post in each, and all who get a post are awake, with empty timelines at \
             the beginning. In a larger population a reader gets fewer of the posts, so fewer of \
             them share a push: the last row is the smallest population once more, with so few \
             posts that a reader gets as few as in the largest.",
            ground.logs.name()
        ),
        rows: measured.iter().map(Population::row).collect(),
        ratios,
        ..Section::default()
    })
}

/// Accounts whose posts were drained.
struct Population {
    name: String,
    posts: usize,
    readers: usize,
    drained: DrainedRedis,
}

impl Population {
    async fn drained(
        ground: &mut Ground<'_>,
        name: String,
        town: &Town,
    ) -> Result<Self, BenchError> {
        ground.say(&format!("draining, {name}"));
        let (posts, readers) = (town.posts().len(), town.readers().len());
        Ok(Self { name, posts, readers, drained: drain::drain(ground, town).await? })
    }

    /// The `fewest` accounts, which were drained before, with so few posts that each of their
    /// readers gets as many as one of these.
    async fn drained_by_fewer(
        &self,
        ground: &mut Ground<'_>,
        fewest: u32,
        before: &Self,
    ) -> Result<Self, BenchError> {
        let town = ground.town_of(fewest).await?;
        let share = self.ids_a_reader() / before.ids_a_reader();
        let town = town.first(((before.posts as f64 * share) as usize).max(1));
        Self::drained(ground, format!("{fewest} accounts, few posts"), &town).await
    }

    fn ids_a_reader(&self) -> f64 {
        self.drained.drained.work.deliveries as f64 / self.readers as f64
    }

    fn row(&self) -> Row {
        let row = self.drained.row(&self.name).with("readers awake", self.readers as f64, "");
        row.with("ids a reader", self.ids_a_reader(), "")
    }
}

async fn by_followers(ground: &mut Ground<'_>) -> Result<Section, BenchError> {
    let town = ground.town().await?;
    let (users, deliveries) = (town.readers().len() as u32, town.delivery_count());
    let mut measured = Vec::new();
    for followers in FOLLOWERS.into_iter().filter(|followers| *followers <= users) {
        ground.say(&format!("draining, authors with {followers} followers"));
        let posts = (deliveries.min(DELIVERIES_MAX) / u64::from(followers)).max(1);
        let authors = posts.min(AUTHORS_MAX) as usize;
        let drawn = Drawn { authors, first_id: u64::from(users) + 1, followers };
        let town = Town::drawn(u64::from(followers), users, drawn, posts as usize);
        measured.push((followers, posts, drain::drain(ground, &town).await?));
    }
    let rows = measured.iter().map(|(followers, posts, drained)| {
        drained.row(&format!("{followers} followers")).with("posts", *posts as f64, "")
    });
    let line = |name, cost: fn(&DrainedRedis) -> f64| {
        let points = measured.iter();
        let points = points.map(|(followers, _, drained)| (f64::from(*followers), cost(drained)));
        Series::new(name, points.collect())
    };
    let plot = Plot {
        title: "Cost of a delivery by the author's followers".to_owned(),
        x: Axis { name: "followers of the author", unit: "", scale: Scale::Log },
        y: Axis { name: "CPU a delivery", unit: "µs", scale: Scale::Linear },
        series: vec![
            line(OWN_CPU, DrainedRedis::own_micros),
            line(REDIS_CPU, DrainedRedis::redis_micros),
        ],
    };
    Ok(Section {
        name: "followers".to_owned(),
        about: format!(
            "Drains of about as many deliveries each, by authors who all have the same number of \
             followers, drawn from {users} accounts, all of them awake, from {} into Redis. What a \
             post itself costs is in it, so few followers make a delivery dear.",
            ground.logs.name()
        ),
        rows: rows.collect(),
        plots: vec![plot],
        ..Section::default()
    })
}
