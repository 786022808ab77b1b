//! The command line of `roost bench`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{BenchError, LogPlace, Report, Scenario, Settings, html, run};
use crate::{
    client::progress::TerminalReporter,
    load::{self, Source},
};

pub(super) const POSTS_DEFAULT: u32 = 60_000;
/// As Red Planet Labs' demonstration of their Mastodon has it.
pub(super) const FOLLOWERS_PER_POST_DEFAULT: f64 = 403.0;
/// Where `deploy/services` keeps Kafka's jars unless told otherwise.
const JARS_DEFAULT: &str = "target/services/jars";

/// Measures Roost on this machine: how fast it delivers and how it answers, beside what
/// the machine could do at the best and beside what other ways of writing timelines do.
///
/// Everything runs on data of its own. Without --redis a redis-server is started for it;
/// without --kafka a Kafka is, if its jars are there, and else the event log is embedded,
/// which the report says.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to measure [default: everything]
    #[arg(value_enum, value_name = "SCENARIO")]
    pub scenarios: Vec<Scenario>,
    /// Accounts of the synthetic population, 2 to 10,000,000 [default: 100000]
    #[arg(long, value_name = "N", conflicts_with_all = ["graph", "trace"],
          value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    pub users: Option<u32>,
    /// An edge list, plain or gzip: its accounts are the population
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub graph: Option<PathBuf>,
    /// An activity trace as SNAP's higgs-twitter: its pairs are the follows, its actions
    /// the posts
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Posts to deliver [default: 60000]
    #[arg(long, value_name = "P", conflicts_with = "trace",
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub posts: Option<u32>,
    /// Followers of a post, on average: so many of the most followed accounts post. It is not
    /// less than an account has on average, nor more than the most followed one has
    #[arg(long, value_name = "N", default_value_t = FOLLOWERS_PER_POST_DEFAULT, conflicts_with = "trace")]
    pub followers_per_post: f64,
    /// Seed of the population and the authors
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// A Redis that runs and holds nothing: it is emptied again and again
    #[arg(long, value_name = "URL,…", env = "ROOST_BENCH_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// Some brokers of a Kafka that runs: each log is a topic of its own, which is dropped
    /// in the end
    #[arg(long, value_name = "HOST:PORT,…", env = "ROOST_BENCH_KAFKA",
          conflicts_with_all = ["kafka_jars", "embedded_log"])]
    pub kafka: Option<String>,
    /// The folder of the jars of the Kafka to start [default: those that deploy/services
    /// has fetched]
    #[arg(
        long,
        value_name = "DIR",
        env = "ROOST_BENCH_KAFKA_JARS",
        conflicts_with = "embedded_log"
    )]
    pub kafka_jars: Option<PathBuf>,
    /// Measure on the embedded event log, whatever is there
    #[arg(long)]
    pub embedded_log: bool,
    /// Partitions of each event log [default: 4 embedded, 16 in Kafka]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: Option<u32>,
    /// sustain, celebrity, overload, streams: for how many seconds a rate is held [default: 20]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub window: Option<Duration>,
    /// sustain: how many seconds 99 of 100 posts may take until all readers see them
    /// [default: 5]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub visible_within: Option<Duration>,
    /// sustain: posts a second to begin the search with [default: half of what the drain
    /// has taken, or 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// sustain: timelines are full before the first rate is tried, as they are after a while
    #[arg(long)]
    pub full_timelines: bool,
    /// celebrity: followers of the one who has very many [default: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=50_000_000))]
    pub celebrity_followers: Option<u32>,
    /// sleepers, celebrity: the share of the readers who are awake, beside all of them
    #[arg(long, value_name = "PERCENT", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub awake: u8,
    /// scale: how many accounts, one after the other [default: 100000,1000000]
    #[arg(long, value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    pub scale_users: Vec<u32>,
    /// streams: how many readers follow their timelines [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub streams: Option<u32>,
    /// Measure everything small, on the embedded log unless another is given: to see that
    /// it works
    #[arg(long, conflicts_with_all = ["users", "graph", "trace", "posts"])]
    pub smoke: bool,
    /// Where bench.json and bench.html are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

impl BenchArgs {
    /// Measures, prints the figures on stdout as they come, and writes both reports, anew
    /// after every scenario. Its own data is kept in `workspace`.
    ///
    /// # Errors
    /// If something could not be measured, or a report not be written.
    pub async fn run(self, workspace: &Path) -> Result<(), BenchError> {
        // Whether they can be written is known before anything is measured.
        let (json, page) = (self.out.join("bench.json"), self.out.join("bench.html"));
        std::fs::create_dir_all(&self.out)
            .map_err(|source| BenchError::Report { path: self.out.clone(), source })?;
        run(Settings::of(self, workspace), &mut TerminalReporter::default(), |report, first| {
            for section in &report.sections[first..] {
                // It measures though nobody may read this.
                let _ = writeln!(std::io::stdout().lock(), "{section}");
            }
            write(&json, &format!("{}\n", json_of(report)))?;
            write(&page, &html::page(report))
        })
        .await?;
        let _ = writeln!(std::io::stdout().lock(), "{} and {}", json.display(), page.display());
        Ok(())
    }
}

impl BenchArgs {
    fn log_place(&self) -> LogPlace {
        if let Some(brokers) = self.kafka.clone() {
            return LogPlace::Kafka { brokers };
        }
        if let Some(jars) = self.kafka_jars.clone() {
            return LogPlace::OwnKafka { jars };
        }
        if self.embedded_log || self.smoke {
            return LogPlace::Embedded;
        }
        fetched_jars().map_or(LogPlace::Embedded, |jars| LogPlace::OwnKafka { jars })
    }
}

/// The folder of Kafka's jars that `deploy/services` has fetched, if it has.
fn fetched_jars() -> Option<PathBuf> {
    let dir = std::env::var_os("ROOST_SERVICES_JARS").unwrap_or_else(|| JARS_DEFAULT.into());
    let folders = std::fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("kafka-") && !name.ends_with(".part") && path.is_dir()
        })
        .max()
}

fn json_of(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text)
        .map_err(|source| BenchError::Report { path: path.to_owned(), source })
}

/// A positive number of seconds, at most an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if !(seconds > 0.0 && seconds <= 3_600.0) {
        return Err("it must be above 0 and at most 3600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Settings {
    fn of(args: BenchArgs, workspace: &Path) -> Self {
        let log = args.log_place();
        let size = if args.smoke { &SMOKE } else { &FULL };
        let (users, posts) =
            (args.users.unwrap_or(size.users), Some(args.posts.unwrap_or(size.posts)));
        let (source, followers_per_post) = match (args.trace, args.graph) {
            (Some(file), _) => (Source::Trace { file, speed: None }, None),
            (None, Some(file)) => {
                let source = Source::EdgeList { file, posts };
                (source, Some(args.followers_per_post))
            }
            (None, None) => (Source::Synthetic { users, posts }, Some(args.followers_per_post)),
        };
        let load = load::Settings {
            source,
            followers_per_post,
            seed: args.seed,
            ..load::Settings::synthetic(crate::client::Target::new(""), 2)
        };
        let mut scale_users = args.scale_users;
        scale_users.sort_unstable();
        scale_users.dedup();
        if scale_users.is_empty() {
            scale_users = size.scale_users.to_vec();
        }
        let all = args.scenarios.is_empty();
        Self {
            scenarios: Scenario::all().filter(|one| all || args.scenarios.contains(one)).collect(),
            load,
            redis: args.redis,
            log,
            partitions: args.partitions,
            window: args.window.unwrap_or(size.window),
            visible_max: args.visible_within.unwrap_or(size.visible_max),
            rate_first: args.rate.map(f64::from),
            rates_max: size.rates_max,
            full_timelines: args.full_timelines,
            celebrity_followers: args.celebrity_followers.unwrap_or(size.celebrity_followers),
            awake_percent: args.awake,
            scale_users,
            streams: args.streams.unwrap_or(size.streams),
            turn: size.turn,
            turn_posts: size.turn_posts,
            workspace: workspace.to_owned(),
            judges: !args.smoke,
        }
    }
}

/// What is not said otherwise.
struct Size {
    users: u32,
    posts: u32,
    window: Duration,
    visible_max: Duration,
    rates_max: usize,
    celebrity_followers: u32,
    scale_users: [u32; 2],
    streams: u32,
    turn: Duration,
    turn_posts: usize,
}

/// A graph that most machines hold, in minutes.
const FULL: Size = Size {
    users: 100_000,
    posts: POSTS_DEFAULT,
    window: Duration::from_secs(20),
    visible_max: Duration::from_secs(5),
    rates_max: 12,
    celebrity_followers: 1_000_000,
    scale_users: [100_000, 1_000_000],
    streams: 10_000,
    turn: Duration::from_secs(1),
    turn_posts: 400_000,
};

/// Enough to see that it works, on the slowest machine too.
const SMOKE: Size = Size {
    users: 2_000,
    posts: 500,
    window: Duration::from_millis(500),
    visible_max: Duration::from_secs(60),
    rates_max: 2,
    celebrity_followers: 1_000,
    scale_users: [1_000, 2_000],
    streams: 50,
    turn: Duration::from_millis(10),
    turn_posts: 1_000,
};
