//! What a load has measured: one table, and the same as JSON.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{latency::Quantiles, settings::Settings, verify::Verification};

/// What a load did and measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// The version of the server.
    pub server_version: String,
    /// The run's name, the front of every request id.
    pub run: String,
    /// True: Ctrl-C came before everything was published and delivered, and
    /// nothing was verified.
    pub interrupted: bool,
    /// Accounts of the load.
    pub users: u64,
    /// Follows that were imported.
    pub follows: u64,
    /// How long importing them took, until all of them held in reads.
    pub import_seconds: f64,
    /// Readers whose timelines were made live.
    pub woken_readers: u64,
    /// How long that took.
    pub wake_seconds: f64,
    /// Posts of the load.
    pub posts_planned: u64,
    /// Posts that were acknowledged. In a repeated run they are the posts of the
    /// first one.
    pub posts: u64,
    /// Follows made while publishing.
    pub churn_follows: u64,
    /// Follows ended while publishing.
    pub churn_unfollows: u64,
    /// Posts deleted while publishing.
    pub churn_deletions: u64,
    /// How often an author was switched between push and pull while publishing.
    pub switches: u64,
    /// Mutes and blocks that began or ended while publishing.
    pub hides: u64,
    /// Direct messages sent while publishing.
    pub messages: u64,
    /// Direct messages deleted while publishing.
    pub message_deletions: u64,
    /// From the first post sent to the last one acknowledged.
    pub publish_seconds: f64,
    /// From the first post sent until everything was delivered.
    pub delivered_seconds: f64,
    /// What the server counted meanwhile.
    pub deliveries: u64,
    /// Deliveries that it saved, because the reader was asleep.
    pub skipped_deliveries: u64,
    /// Writes that carried the deliveries.
    pub pushes: u64,
    /// How often a stream had to be opened again.
    pub reconnects: u32,
    /// How often the server was seen to have restarted; then `deliveries` lacks
    /// what the old process had not told yet.
    pub server_restarts: u32,
    /// Latencies.
    pub latencies: LatencyReport,
    /// Sampled posts that were not watched because enough others were.
    pub unwatched_posts: u32,
    /// Sampled posts that were in no follower's timeline after everything had been
    /// delivered.
    pub missed_posts: u32,
    /// Probing reads that failed.
    pub failed_reads: u32,
    /// Probing reads that showed a post twice or out of order.
    pub wrong_reads: u32,
    /// What the comparison with the model found, if there was one.
    pub verification: Option<Verification>,
}

/// The latencies that a load measures. Each counts from when the operation was
/// due, so that a server that stalls cannot hide it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyReport {
    /// From when a post was due until it was acknowledged.
    pub publish: Quantiles,
    /// From when a post was due until it was seen in a follower's home timeline.
    pub delivery: Quantiles,
    /// A page of 20 of a home timeline, ids only.
    pub home_ids: Quantiles,
    /// A page of 20 of a home timeline, with the posts.
    pub home_posts: Quantiles,
}

impl Report {
    /// Deliveries a second, from the first post until everything was delivered.
    pub fn deliveries_per_second(&self) -> f64 {
        rate(self.deliveries, self.delivered_seconds)
    }

    /// Posts acknowledged a second.
    pub fn posts_per_second(&self) -> f64 {
        rate(self.posts, self.publish_seconds)
    }

    /// The whole report as JSON, with the rates.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = json.as_object_mut() {
            fields.insert("posts_per_second".to_owned(), self.posts_per_second().into());
            fields.insert("deliveries_per_second".to_owned(), self.deliveries_per_second().into());
        }
        json
    }
}

impl fmt::Display for Report {
    /// The summary table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<14} {value}");
        row("run", format!("{} against Roost {}", self.run, self.server_version))?;
        row(
            "graph",
            format!(
                "{} accounts, {} follows imported in {:.1} s, {} readers woken in {:.1} s",
                grouped(self.users),
                grouped(self.follows),
                self.import_seconds,
                grouped(self.woken_readers),
                self.wake_seconds
            ),
        )?;
        let of = if self.posts == self.posts_planned {
            String::new()
        } else {
            format!(" of {}", grouped(self.posts_planned))
        };
        row(
            "posts",
            format!(
                "{}{of} in {:.1} s, {} a second",
                grouped(self.posts),
                self.publish_seconds,
                grouped(self.posts_per_second() as u64)
            ),
        )?;
        let churn = self.churn_follows + self.churn_unfollows + self.churn_deletions;
        if churn > 0 {
            row(
                "churn",
                format!(
                    "{} follows, {} unfollows, {} deletions",
                    grouped(self.churn_follows),
                    grouped(self.churn_unfollows),
                    grouped(self.churn_deletions)
                ),
            )?;
        }
        if self.switches > 0 {
            row("switches", format!("{} between push and pull", grouped(self.switches)))?;
        }
        if self.hides > 0 {
            row("hides", format!("{} mutes and blocks begun or ended", grouped(self.hides)))?;
        }
        if self.messages > 0 {
            row(
                "messages",
                format!(
                    "{} sent, {} of them deleted",
                    grouped(self.messages),
                    grouped(self.message_deletions)
                ),
            )?;
        }
        row("deliveries", self.deliveries_text())?;
        if self.server_restarts > 0 {
            row("", format!("at least: the server restarted {} times", self.server_restarts))?;
        }
        if self.reconnects > 0 {
            row("reconnects", self.reconnects.to_string())?;
        }
        if self.missed_posts > 0 {
            row("MISSED", format!("{} watched posts were never seen", self.missed_posts))?;
        }
        if self.wrong_reads > 0 {
            row("WRONG READS", format!("{} pages repeat posts or are unsorted", self.wrong_reads))?;
        }
        if self.failed_reads > 0 {
            row("failed reads", self.failed_reads.to_string())?;
        }

        writeln!(
            f,
            "\n{:<22} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, q) in [
            ("publish", &self.latencies.publish),
            ("publish to visible", &self.latencies.delivery),
            ("home read, ids only", &self.latencies.home_ids),
            ("home read, with posts", &self.latencies.home_posts),
        ] {
            let [p50, p90, p99, p99_9, max] =
                [q.p50_us, q.p90_us, q.p99_us, q.p99_9_us, q.max_us].map(|us| latency(q.count, us));
            writeln!(
                f,
                "{name:<22} {:>9} {p50:>10} {p90:>10} {p99:>10} {p99_9:>10} {max:>10}",
                grouped(q.count)
            )?;
        }
        if let Some(verification) = &self.verification {
            write!(f, "\n{verification}")?;
        }
        Ok(())
    }
}

impl Report {
    fn deliveries_text(&self) -> String {
        let seconds = self.delivered_seconds;
        if self.pushes == 0 && self.posts > 0 {
            // Those who were asked have no workers.
            return format!("done in {seconds:.1} s; the metrics of the workers say how many");
        }
        let combined = self.deliveries as f64 / self.pushes.max(1) as f64;
        format!(
            "{} in {seconds:.1} s, {} a second ({combined:.1} a write, {} saved)",
            grouped(self.deliveries),
            grouped(self.deliveries_per_second() as u64),
            grouped(self.skipped_deliveries)
        )
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timelines = grouped(self.home_timelines);
        if self.difference_count == 0 {
            return writeln!(
                f,
                "verified {timelines} home timelines: no difference ({} entries; {} accounts also \
                 page by page, with posts, floors and author timelines; {} notifications, {} \
                 messages)",
                grouped(self.entries),
                grouped(self.sampled_users),
                grouped(self.notifications),
                grouped(self.messages)
            );
        }
        writeln!(f, "verified {timelines} home timelines: {} DIFFERENCES", self.difference_count)?;
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        let more = self.difference_count.saturating_sub(self.differences.len() as u64);
        if more > 0 {
            writeln!(f, "  and {more} more")?;
        }
        writeln!(
            f,
            "  (Is something else using these accounts? A comparison needs them for itself: verify \
             against a fresh data directory to be sure.)"
        )
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A latency in the unit that suits it; a dash where there was none.
fn latency(count: u64, us: u64) -> String {
    if count == 0 {
        return "-".to_owned();
    }
    let time = Duration::from_micros(us);
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(latency(1, 950), "950 µs");
        assert_eq!(latency(1, 1_550), "1.6 ms");
        assert_eq!(latency(1, 2_346_000), "2.35 s");
        assert_eq!(latency(0, 0), "-");
    }
}
