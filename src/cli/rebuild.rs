//! `roost rebuild`.

use std::time::Instant;

use clap::Args;

use super::{CliError, config::ServeFlags, serve::stop_token};
use crate::{
    app::{self, RebuildStep},
    client::progress::{Reporter, TerminalReporter},
};

/// Drops everything that is derived from the event log (posts, follows, timelines) and
/// makes it again from the log, which itself is not touched. Takes the settings of
/// `roost serve`; those of the API are not used.
///
/// On disk the server must be stopped. With Kafka and Redis servers may run: until it
/// is done they answer no reads, and their workers take part in it. What is broken
/// off, also by Ctrl-C, is begun again by the same command.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    #[command(flatten)]
    flags: ServeFlags,
}

impl RebuildArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let settings = self.flags.settings()?;
        let stop = stop_token();
        let begun = Instant::now();
        let mut shown = Shown::default();
        let rebuilt = app::rebuild(settings, &mut |step| shown.tell(step), &stop).await?;
        shown.reporter.end();
        println!(
            "rebuilt the store from {} events of {} partitions in {:.1} s",
            rebuilt.events,
            rebuilt.partitions,
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// What the terminal shows.
#[derive(Default)]
struct Shown {
    reporter: TerminalReporter,
    is_dropping: bool,
    is_delivering: bool,
}

impl Shown {
    fn tell(&mut self, step: RebuildStep) {
        match step {
            RebuildStep::Dropped { keys } => {
                if !self.is_dropping {
                    self.is_dropping = true;
                    self.reporter.begin("dropping the old store's keys", None);
                }
                self.reporter.advance(keys);
            }
            RebuildStep::Delivered { done, events } => {
                if !self.is_delivering {
                    self.is_delivering = true;
                    self.reporter.begin("applying the events of the log", Some(events));
                }
                self.reporter.advance(done);
            }
        }
    }
}
