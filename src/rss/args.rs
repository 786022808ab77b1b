//! `roost rss`, as it is typed.

use std::{
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, value_parser};
use rand::{SeedableRng, rngs::StdRng};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    RssError,
    destination::AllowedHosts,
    publish::Roost,
    run::run,
    settings::{Settings, UnixSeconds},
};
use crate::client::{ClientError, Interrupt, Target};

/// Polls RSS, Atom and JSON feeds, and posts what is new in them.
///
/// The list has a line for each feed: the account that posts its entries, and the URL of
/// the feed; blank lines and lines that begin with # are skipped. An entry is posted once,
/// however often the command is started or killed: a title, cut to the limit, and the
/// link of the entry. It is posted with the origin `rss`.
///
/// Feeds are fetched from public addresses only: one whose host, or a host that it redirects
/// to, is at a loopback, private, link-local or other special address is refused, unless
/// --allow-host or a line `allow-host NAME-OR-NETWORK` of the list allows it. Logs show the URL
/// of a feed without its query.
///
/// A feed that fails is tried again less and less often, up to once a day, and does not
/// hold up those that do not. While Roost is away, what is new waits in the state directory.
///
/// Ctrl-C or SIGTERM ends it, and exits with 0.
#[derive(Args, Clone, Debug)]
pub struct RssArgs {
    /// The list of feeds: `account URL` a line
    pub feeds: PathBuf,
    /// Where it is kept what was read and what waits; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "./roost-rss")]
    pub state: PathBuf,
    /// Poll every feed once, and exit with 1 if any could not be read or posted. A feed
    /// that has failed lately waits as long as it would otherwise, and counts as failed
    #[arg(long)]
    pub once: bool,
    /// How long to wait between two polls of a feed
    #[arg(long, value_name = "SECONDS", default_value_t = 900,
          value_parser = value_parser!(u64).range(1..=86_400))]
    pub interval: u64,
    /// Of what is in a feed that was never read before, post the newest N entries
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u16).range(0..=1_000))]
    pub first: u16,
    /// Of the entries of a feed that wait, post N at a poll, the oldest; the others wait for
    /// the next one
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = value_parser!(u16).range(1..=1_000))]
    pub entries_max: u16,
    /// How long a feed may take to arrive, with all its redirects
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = value_parser!(u64).range(1..=600))]
    pub fetch_timeout: u64,
    /// Let feeds be on this host or network though it is not public, as `localhost` or
    /// `10.0.0.0/8`; may be given several times, and with commas
    #[arg(
        long,
        value_name = "NAME-OR-NETWORK",
        env = "ROOST_RSS_ALLOW_HOST",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,
    /// Where to post.
    #[command(flatten)]
    pub target: Target,
}

impl RssArgs {
    /// Follows the feeds, logs a line for every poll, and says on stdout at the end what
    /// was done.
    ///
    /// # Errors
    /// If the list or the state cannot be used; with --once, if any feed failed.
    pub async fn run(self) -> Result<(), RssError> {
        let settings = self.settings()?;
        // It need not be there: what is new waits for it.
        let roost = Roost::new(self.target.connect_lazily()?);
        let interrupt = Interrupt::listen();
        let stop = interrupt.stop.clone();
        // Without a handler SIGTERM goes on killing the process, which loses nothing.
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            let stop = stop.clone();
            tokio::spawn(async move {
                terminate.recv().await;
                stop.cancel();
            });
        }
        let random = StdRng::from_rng(&mut rand::rng());
        let summary = run(settings, roost, system_clock(), random, stop).await?;
        writeln!(std::io::stdout().lock(), "{summary}").map_err(ClientError::from)?;
        match summary.failed_feeds {
            0 => Ok(()),
            failed => Err(RssError::FeedsFailed { failed, feeds: summary.feeds }),
        }
    }

    fn settings(&self) -> Result<Settings, RssError> {
        let mut allowed = AllowedHosts::default();
        // A variable that is set to nothing allows nothing.
        let hosts = self.allow_host.iter().map(|host| host.trim()).filter(|host| !host.is_empty());
        for host in hosts {
            allowed.allow(host).map_err(RssError::BadAllowedHost)?;
        }
        Ok(Settings {
            list: self.feeds.clone(),
            state_dir: self.state.clone(),
            once: self.once,
            interval_seconds: self.interval,
            fetch_timeout: Duration::from_secs(self.fetch_timeout),
            allowed,
            first_entries: self.first.into(),
            turn_entries_max: self.entries_max.into(),
        })
    }
}

fn system_clock() -> UnixSeconds {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Arc::new(now)
}
