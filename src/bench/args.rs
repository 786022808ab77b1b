//! The command line of `roost bench`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{BenchError, Report, Scenario, Settings, html, run};
use crate::{
    client::progress::TerminalReporter,
    load::{self, Source},
};

/// A graph that most machines hold, in minutes.
const USERS_DEFAULT: u32 = 100_000;
const POSTS_DEFAULT: u32 = 20_000;
/// As Red Planet Labs' demonstration of their Mastodon has it.
const FOLLOWERS_PER_POST: f64 = 403.0;

/// Measures Roost on this machine: how fast it delivers and how it answers, beside what
/// the machine could do at the best and beside what other ways of writing timelines do.
///
/// Everything runs on data of its own. Without --redis a redis-server is started for it.
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
    /// Posts to deliver [default: 20000]
    #[arg(long, value_name = "P", conflicts_with = "trace",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub posts: Option<u32>,
    /// Followers of a post, on average
    #[arg(long, value_name = "N", default_value_t = FOLLOWERS_PER_POST, conflicts_with = "trace")]
    pub followers_per_post: f64,
    /// Seed of the population and the authors
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// A Redis that runs and holds nothing: it is emptied again and again
    #[arg(long, value_name = "URL,…", env = "ROOST_BENCH_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// Kafka's brokers, for what is published into it, in topics of the bench's own
    #[arg(long, value_name = "HOST:PORT,…", env = "ROOST_BENCH_KAFKA")]
    pub kafka: Option<String>,
    /// Measure with 2,000 accounts and 500 posts: to see that it works
    #[arg(long, conflicts_with_all = ["users", "graph", "trace", "posts"])]
    pub smoke: bool,
    /// Where bench.json and bench.html are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

impl BenchArgs {
    /// Measures, prints the figures on stdout as they come, and writes both reports.
    ///
    /// # Errors
    /// If something could not be measured, or a report not be written.
    pub async fn run(self) -> Result<(), BenchError> {
        // Whether they can be written is known before anything is measured.
        let (json, page) = (self.out.join("bench.json"), self.out.join("bench.html"));
        std::fs::create_dir_all(&self.out)
            .map_err(|source| BenchError::Report { path: self.out.clone(), source })?;
        let report = run(self.into(), &mut TerminalReporter::default(), |section| {
            // It measures though nobody may read this.
            let _ = writeln!(std::io::stdout().lock(), "{section}");
        })
        .await?;
        write(&json, &format!("{}\n", json_of(&report)))?;
        write(&page, &html::page(&report))?;
        let _ = writeln!(std::io::stdout().lock(), "{} and {}", json.display(), page.display());
        Ok(())
    }
}

fn json_of(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text)
        .map_err(|source| BenchError::Report { path: path.to_owned(), source })
}

impl From<BenchArgs> for Settings {
    fn from(args: BenchArgs) -> Self {
        let (users, posts) = if args.smoke {
            (2_000, Some(500))
        } else {
            (args.users.unwrap_or(USERS_DEFAULT), args.posts.or(Some(POSTS_DEFAULT)))
        };
        let (source, followers_per_post) = match (args.trace, args.graph) {
            (Some(file), _) => (Source::Trace { file, speed: None }, None),
            (None, Some(file)) => {
                let source = Source::EdgeList { file, id_offset: 0, posts };
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
        let all = args.scenarios.is_empty();
        let scenarios = Scenario::ALL.into_iter();
        Self {
            scenarios: scenarios.filter(|one| all || args.scenarios.contains(one)).collect(),
            load,
            redis: args.redis,
            turn: Duration::from_millis(if args.smoke { 20 } else { 1_000 }),
            kafka: args.kafka,
            publish_posts: if args.smoke { 2_000 } else { 200_000 },
        }
    }
}
