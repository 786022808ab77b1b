//! What to load, how fast, and what to look at meanwhile.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::LoadError;
use crate::client::Target;

/// A run's name is the front of every request id, which has room for 64 bytes.
const RUN_NAME_BYTES_MAX: usize = 40;
/// Posts are a tenth of all actions, at least.
const CHANGES_PERCENT_MAX: u16 = 90;

/// A load, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The addresses of the server's API processes, each `http://HOST:PORT`; at least
    /// one.
    pub targets: Vec<String>,
    /// Who posts and who reads.
    pub source: Source,
    /// What is added to every account id of the source; with it none passes 2^64 - 1.
    pub id_offset: u64,
    /// Seed of the population, the authors and the texts.
    pub seed: u64,
    /// Only accounts with many followers post, so many that a post has this many on
    /// average. `None`: all of them do. Above 0; not with a trace.
    pub followers_per_post: Option<f64>,
    /// Actions a second; `None` is as fast as it goes.
    pub actions_per_second: Option<f64>,
    /// The share of follows, unfollows and deletions among all actions, 0 to 90;
    /// 0 with a trace.
    pub churn_percent: u8,
    /// The share of actions that switch one of the most followed authors between push and
    /// pull. All shares together are 90 at the most.
    pub pulls_percent: u8,
    /// The share of actions by which an account mutes or blocks another, or no longer.
    pub hides_percent: u8,
    /// The share of actions that send a direct message, or delete one.
    pub messages_percent: u8,
    /// The share of posts that mention up to three accounts, 0 to 100; 0 with a trace, which
    /// has mentions of its own.
    pub mentions_percent: u8,
    /// The share of readers with a live timeline when publishing begins, 0 to 100.
    pub active_percent: u8,
    /// Streams to publish over, at least 1.
    pub streams: u16,
    /// Unacknowledged posts a stream, at least 1.
    pub window: u32,
    /// Home timeline reads a second while publishing; 0 is none.
    pub reads_per_second: u32,
    /// Posts whose way into a timeline is watched, at most; 0 is none.
    pub probes_max: u32,
    /// The run's name, at most 40 bytes; `None` is a hash of the load.
    pub run: Option<String>,
    /// How long to retry while the server is away.
    #[serde(rename = "retry_for_seconds", serialize_with = "as_seconds")]
    pub retry_for: Duration,
    /// Where what was done is kept for the next run of this load; `None` is nowhere.
    pub journal: Option<PathBuf>,
    /// Whether every home timeline is compared with the model afterwards.
    pub verify: bool,
}

/// Where a load's accounts, follows and posts come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A seeded population.
    Synthetic {
        /// How many accounts, at least 2.
        users: u32,
        /// How many posts; `None` is as many as fill timelines.
        posts: Option<u32>,
    },
    /// The accounts of an edge list.
    EdgeList {
        /// The file.
        file: PathBuf,
        /// How many posts; `None` is as many as fill timelines.
        posts: Option<u32>,
    },
    /// An activity trace.
    Trace {
        /// The file.
        file: PathBuf,
        /// How many times faster than it was; `None` is as fast as it goes.
        speed: Option<f64>,
    },
}

impl Settings {
    /// A load of `users` synthetic accounts on `target`, as `roost load --users`
    /// has it by default.
    pub fn synthetic(target: Target, users: u32) -> Self {
        Self {
            targets: vec![target.url],
            source: Source::Synthetic { users, posts: None },
            id_offset: 0,
            seed: 1,
            followers_per_post: None,
            actions_per_second: None,
            churn_percent: 0,
            pulls_percent: 0,
            hides_percent: 0,
            messages_percent: 0,
            mentions_percent: 0,
            active_percent: 100,
            streams: 4,
            window: 1_024,
            reads_per_second: 200,
            probes_max: 2_000,
            run: None,
            retry_for: Duration::from_secs(60),
            journal: None,
            verify: false,
        }
    }

    /// The share of all that is no post among all actions.
    pub(super) fn changes_percent(&self) -> u16 {
        [self.churn_percent, self.pulls_percent, self.hides_percent, self.messages_percent]
            .map(u16::from)
            .iter()
            .sum()
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// [`LoadError::BadSettings`] with every setting that is wrong.
    pub fn check(&self) -> Result<(), LoadError> {
        let mut problems = Vec::new();
        let positive = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v > 0.0);
        if !positive(self.actions_per_second) {
            problems.push("--rate must be above 0".to_owned());
        }
        if !positive(self.followers_per_post) {
            problems.push("--followers-per-post must be above 0".to_owned());
        }
        if let Source::Trace { speed, .. } = &self.source {
            if self.followers_per_post.is_some() {
                problems.push("--followers-per-post does not go with --trace".to_owned());
            }
            if !positive(*speed) {
                problems.push("--speed must be above 0".to_owned());
            }
            if self.churn_percent > 0 {
                problems.push("--churn does not go with --trace".to_owned());
            }
            if self.mentions_percent > 0 {
                problems.push("--mentions does not go with --trace".to_owned());
            }
        }
        if let Source::Synthetic { users, .. } = &self.source {
            if *users < 2 {
                problems.push("--users must be at least 2".to_owned());
            }
            let id_offset_max = u64::MAX - u64::from(*users);
            if self.id_offset > id_offset_max {
                problems.push(format!(
                    "--id-offset {} puts ids of {users} accounts past 2^64 - 1, the greatest; it \
                     goes up to {id_offset_max}",
                    self.id_offset
                ));
            }
        }
        if self.changes_percent() > CHANGES_PERCENT_MAX {
            problems.push(format!(
                "--churn, --pulls, --hides and --messages together go to {CHANGES_PERCENT_MAX} percent"
            ));
        }
        if self.active_percent > 100 || self.mentions_percent > 100 {
            problems.push("--active and --mentions go to 100 percent".to_owned());
        }
        if self.targets.is_empty() {
            problems.push("--target must name a server".to_owned());
        }
        if self.streams == 0 || self.window == 0 {
            problems.push("--streams and --window must be at least 1".to_owned());
        }
        if let Some(run) = &self.run
            && (run.is_empty() || run.len() > RUN_NAME_BYTES_MAX)
        {
            problems.push(format!("--run must have 1 to {RUN_NAME_BYTES_MAX} bytes"));
        }
        if problems.is_empty() { Ok(()) } else { Err(LoadError::BadSettings(problems.join("; "))) }
    }
}

fn as_seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}
