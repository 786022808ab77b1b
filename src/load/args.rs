//! `roost load`.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Args;

use super::{LoadError, Report, Settings, Source, run};
use crate::client::{ClientError, Interrupt, Targets, progress::TerminalReporter};

/// How many accounts a synthetic population has unless told otherwise.
const USERS_DEFAULT: u32 = 10_000;

/// Drives any Roost over gRPC and measures it.
///
/// The load is a synthetic population (the default), the accounts of an edge
/// list (--graph), or the replay of an activity trace (--trace). Every post has a
/// request id that follows from the load, so running the same command again
/// publishes nothing twice and goes on where a broken run stopped.
///
/// Ctrl-C stops publishing, prints the summary of what was done, and exits with 0;
/// with --verify, which then has not been done, with 1. A second Ctrl-C prints
/// nothing more and exits with 130.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Accounts of the synthetic population, 2 to 10,000,000 [default: 10000]
    #[arg(long, value_name = "N", conflicts_with_all = ["graph", "trace"],
          value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    pub users: Option<u32>,
    /// An edge list, plain or gzip: its accounts are the population
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub graph: Option<PathBuf>,
    /// Add N to every account id: of the synthetic population, whose ids begin at 1 without
    /// it, of the edge list or of the trace
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub id_offset: u64,
    /// An activity trace as SNAP's higgs-twitter: `userA userB unix_time RT|MT|RE`
    /// a line, plain or gzip
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Replay the trace at X times its own speed [default: as fast as it goes]
    #[arg(long, value_name = "X", requires = "trace", conflicts_with = "rate")]
    pub speed: Option<f64>,
    /// Seed of the population, the authors and the texts
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Posts to publish [default: one an account, more where accounts have so few
    /// followers that timelines would hold less than 20]
    #[arg(long, value_name = "P", conflicts_with = "trace",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub posts: Option<u32>,
    /// Only accounts with many followers post, so many that a post has N on average
    /// [default: every account posts]
    #[arg(long, value_name = "N", conflicts_with = "trace")]
    pub followers_per_post: Option<f64>,
    /// Actions a second, begun on time whatever the server does; latency counts
    /// from the time at which a post was due [default: as fast as it goes]
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// This share of all actions are follows, unfollows and deletions
    #[arg(long, value_name = "PERCENT", default_value_t = 0, conflicts_with = "trace",
          value_parser = clap::value_parser!(u8).range(0..=90))]
    pub churn: u8,
    /// This share of all actions switch one of the 16 most followed authors between push
    /// and pull
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=90))]
    pub pulls: u8,
    /// This share of all actions are mutes and blocks, and ends of them
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=90))]
    pub hides: u8,
    /// This share of all actions send direct messages, and delete some
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=90))]
    pub messages: u8,
    /// This share of the posts mention up to three accounts, often the most followed ones
    #[arg(long, value_name = "PERCENT", default_value_t = 0, conflicts_with = "trace",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub mentions: u8,
    /// This share of the readers has a live timeline when publishing begins
    #[arg(long, value_name = "PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub active: u8,
    /// Streams to publish over; an author is always on the same one
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub streams: u16,
    /// Unacknowledged posts a stream
    #[arg(long, value_name = "N", default_value_t = 1_024,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: u32,
    /// Home timeline reads a second that measure read latency while publishing;
    /// half of them ids only, half with the posts
    #[arg(long, value_name = "R", default_value_t = 200)]
    pub read_rate: u32,
    /// Posts whose way into a follower's timeline is watched, at most
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub probes: u32,
    /// A name for this run: another name publishes everything again [default: a
    /// hash of the load]
    #[arg(long, value_name = "NAME")]
    pub run: Option<String>,
    /// How long to retry while the server is away
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub retry_for: u64,
    /// Keep in FILE what was acknowledged, when the load ends and after Ctrl-C: the next
    /// run of the load sends none of it again, and --verify misses it if it is gone.
    /// What else is done while publishing is done again all the same
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Afterwards compare every home timeline with a brute-force model. The
    /// accounts of the load must not be used for anything else
    #[arg(long)]
    pub verify: bool,
    /// Write the summary as JSON too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Which Roost to load.
    #[command(flatten)]
    pub targets: Targets,
}

impl LoadArgs {
    /// Runs the load, shows its progress, prints the summary on stdout and writes
    /// the JSON. Ctrl-C stops publishing; the summary of what was done is printed
    /// all the same.
    ///
    /// # Errors
    /// If the load fails, if a timeline differs from the model
    /// ([`LoadError::Differences`]), or if Ctrl-C came before the verification that
    /// was asked for ([`LoadError::Interrupted`]).
    pub async fn run(self) -> Result<(), LoadError> {
        let json = self.json.clone();
        let verify = self.verify;
        let interrupt = Interrupt::listen();
        let stop = interrupt.stop.clone();
        let report = match run(self.into(), &mut TerminalReporter::default(), stop).await {
            Err(LoadError::Interrupted) if !verify => {
                writeln!(std::io::stdout().lock(), "stopped before anything was sent")
                    .map_err(ClientError::from)?;
                return Ok(());
            }
            done => done?,
        };
        writeln!(std::io::stdout().lock(), "{report}").map_err(ClientError::from)?;
        if let Some(path) = json {
            write_json(&report, path).await?;
        }
        let difference_count = report.verification.map_or(0, |found| found.difference_count);
        match (report.interrupted, difference_count) {
            (true, _) if verify => Err(LoadError::Interrupted),
            (_, 0) => Ok(()),
            (_, count) => Err(LoadError::Differences(count)),
        }
    }
}

impl From<LoadArgs> for Settings {
    fn from(args: LoadArgs) -> Self {
        let source = match (args.trace, args.graph) {
            (Some(file), _) => Source::Trace { file, speed: args.speed },
            (None, Some(file)) => Source::EdgeList { file, posts: args.posts },
            (None, None) => {
                Source::Synthetic { users: args.users.unwrap_or(USERS_DEFAULT), posts: args.posts }
            }
        };
        Self {
            targets: args.targets.urls,
            source,
            id_offset: args.id_offset,
            seed: args.seed,
            followers_per_post: args.followers_per_post,
            actions_per_second: args.rate,
            churn_percent: args.churn,
            pulls_percent: args.pulls,
            hides_percent: args.hides,
            messages_percent: args.messages,
            mentions_percent: args.mentions,
            active_percent: args.active,
            streams: args.streams,
            window: args.window,
            reads_per_second: args.read_rate,
            probes_max: args.probes,
            run: args.run,
            retry_for: Duration::from_secs(args.retry_for),
            journal: args.journal,
            verify: args.verify,
        }
    }
}

async fn write_json(report: &Report, path: PathBuf) -> Result<(), LoadError> {
    let text = format!("{:#}\n", report.to_json());
    tokio::fs::write(&path, text).await.map_err(|source| LoadError::Json { path, source })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::client::Target;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn settings(line: &str) -> Result<Settings, String> {
        let args = Command::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        Ok(args.load.into())
    }

    #[test]
    fn the_arguments_are_well_formed_and_default_to_the_library_s() {
        Command::command().debug_assert();
        let default = Settings::synthetic(Target::new(crate::client::DEFAULT_TARGET), 10_000);
        assert_eq!(settings("load"), Ok(default));
    }

    #[test]
    fn id_offset_goes_up_to_the_greatest_id() {
        let line = "load --users 5 --id-offset 18446744073709551610";
        assert!(settings(line).is_ok_and(|settings| settings.check().is_ok()));
        for source in ["--graph f", "--trace f"] {
            let line = format!("load {source} --id-offset 18446744073709551615");
            assert_eq!(settings(&line).expect("well-formed").id_offset, u64::MAX);
        }
        let past = settings("load --users 5 --id-offset 18446744073709551611").expect("a number");
        let problem = past.check().expect_err("too far").to_string();
        assert!(problem.contains("it goes up to 18446744073709551610"), "{problem}");
    }

    #[test]
    fn several_targets_may_be_given_in_either_way() {
        for line in ["load --target a,b", "load --target a --target b"] {
            assert_eq!(settings(line).expect(line).targets, ["a", "b"], "{line}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "load --users 5 --graph f",
            "load --trace t --graph f",
            "load --trace t --churn 5",
            "load --trace t --mentions 5",
            "load --speed 2",
            "load --users 1",
            "load --churn 91",
        ] {
            assert!(settings(line).is_err(), "{line}");
        }
        for line in [
            "load --rate 0",
            "load --trace t --speed -1",
            "load --rate NaN",
            "load --churn 60 --pulls 31",
            "load --users 5 --id-offset 18446744073709551611",
        ] {
            let line = line.replace(" -1", "=-1");
            assert!(settings(&line).is_ok_and(|s| s.check().is_err()), "{line}");
        }
        let long = format!("load --run {}", "x".repeat(41));
        assert!(settings(&long).is_ok_and(|s| s.check().is_err()));
    }
}
