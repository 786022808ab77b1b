//! A load from beginning to end.

mod begin;
mod publish;
mod report;
mod verify;

use std::{
    sync::{Arc, Mutex, atomic::AtomicU32},
    time::{Duration, Instant},
};

use futures::future;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    LoadError, Report, Settings,
    board::Board,
    churn::{ChurnCounts, Churning, SharedChanges},
    delivery::{DeliveryMeter, undelivered},
    journal::Journal,
    latency::Latencies,
    messages::Messages,
    probe::{Reads, Sightings},
    retry::retried,
    workload::Workload,
};
use crate::{
    client::{
        ClientError, Target,
        progress::Reporter,
        text_file::{OnLine, with_progress},
    },
    proto::v1::{GetStatusRequest, GetStatusResponse, status_service_client::StatusServiceClient},
};

/// Between two looks at how far the fan-out has come.
const STATUS_EVERY: Duration = Duration::from_millis(50);

/// Runs a load: imports the graph, wakes the readers, publishes while probing,
/// waits until everything is delivered, and compares every timeline with the model
/// if that is asked for.
///
/// Cancelling `stop` ends publishing and returns a report of what was done, with
/// `interrupted` set; before anything is sent there is nothing to report, which is
/// [`LoadError::Interrupted`]. A timeline that differs from the model is no error; the
/// report's `verification` says so.
///
/// # Errors
/// If the settings or the input file are wrong, in which case nothing was sent; if
/// the server refuses something or stays away for longer than the settings allow,
/// in which case the same load can be run again and goes on where this one
/// stopped.
pub async fn run(
    settings: Settings,
    reporter: &mut impl Reporter,
    stop: CancellationToken,
) -> Result<Report, LoadError> {
    settings.check()?;
    let targets: Vec<Target> = settings.targets.iter().map(Target::new).collect();
    let getting_ready = async {
        // A server that is not there is told before long work begins.
        let connected = future::try_join_all(targets.iter().map(Target::connect)).await?;
        let status = StatusServiceClient::new(connected[0].clone());
        let first = get_status(&status, settings.retry_for).await?;
        let verified_cap = settings.verify.then(|| cap_of(&first)).transpose()?;
        let workload = plan(&settings, first.post_text_limit as usize, reporter).await?;
        Ok((status, first, verified_cap, Arc::new(workload)))
    };
    let (status, first, verified_cap, workload) = interruptible(&stop, getting_ready).await?;
    // At least one for each server, so that those without a stream are read from.
    let channel_count = targets.len().max(settings.streams.into());
    let channels = (targets.iter().cycle().take(channel_count))
        .map(Target::connect_lazily)
        .collect::<Result<Vec<Channel>, ClientError>>()?;
    let board = Arc::new(Board::new(workload.post_count()));
    let journal = match &settings.journal {
        Some(path) => Journal::read(path, &workload.run, workload.post_count()).await?,
        None => Journal::default(),
    };
    for (number, id) in &journal.acked {
        board.ack(*number, *id);
    }
    let messages = Arc::new(Messages::default());
    for (number, id) in &journal.messages {
        messages.ack(*number, *id);
    }
    let mut load = Load {
        is_repeated: journal.imported,
        journal,
        churning: Arc::new(Churning {
            workload: Arc::clone(&workload),
            board: Arc::clone(&board),
            messages: Arc::clone(&messages),
            counts: ChurnCounts::default(),
            kept_pulled: Mutex::default(),
            patience: settings.retry_for,
            stop: stop.clone(),
        }),
        board,
        messages,
        workload,
        changes: SharedChanges::default(),
        sightings: Arc::new(Sightings {
            latencies: Latencies::new(),
            missed_count: AtomicU32::new(0),
        }),
        reads: Arc::new(Reads {
            ids_only: Latencies::new(),
            hydrated: Latencies::new(),
            failed_count: AtomicU32::new(0),
            wrong_count: AtomicU32::new(0),
        }),
        status,
        channels,
        settings,
        stop,
    };
    let mut report = load.empty_report(&first);
    let measured = load.measure(&mut report, reporter).await;
    if let Some(path) = &load.settings.journal {
        load.journal.write(path, &load.board, &load.messages).await?;
    }
    match measured {
        Ok(()) => {}
        Err(LoadError::Interrupted) => report.interrupted = true,
        Err(error) => return Err(error),
    }
    if let Some(cap) = verified_cap
        && !report.interrupted
    {
        match load.interruptible(load.verify(cap, reporter)).await {
            Ok(verification) => report.verification = Some(verification),
            Err(LoadError::Interrupted) => report.interrupted = true,
            Err(error) => return Err(error),
        }
    }
    reporter.end();
    Ok(report)
}

/// Everything that the phases of a load share.
struct Load {
    settings: Settings,
    journal: Journal,
    /// Whether the journal is that of an earlier run.
    is_repeated: bool,
    workload: Arc<Workload>,
    board: Arc<Board>,
    messages: Arc<Messages>,
    changes: SharedChanges,
    churning: Arc<Churning>,
    sightings: Arc<Sightings>,
    reads: Arc<Reads>,
    status: StatusServiceClient<Channel>,
    channels: Vec<Channel>,
    stop: CancellationToken,
}

impl Load {
    async fn measure(
        &mut self,
        report: &mut Report,
        reporter: &mut impl Reporter,
    ) -> Result<(), LoadError> {
        let begin = Instant::now();
        if !self.journal.imported {
            report.follows = self.interruptible(self.import_graph(reporter)).await?;
            self.journal.imported = true;
        }
        self.interruptible(self.wait_delivered(&mut DeliveryMeter::default(), reporter)).await?;
        report.import_seconds = begin.elapsed().as_secs_f64();

        let begin = Instant::now();
        report.woken_readers = self.interruptible(self.wake_readers(reporter)).await?;
        report.wake_seconds = begin.elapsed().as_secs_f64();

        self.publish_and_probe(report, reporter).await
    }

    async fn interruptible<T>(
        &self,
        phase: impl Future<Output = Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        interruptible(&self.stop, phase).await
    }

    /// Waits until everything acknowledged before the call has been delivered.
    async fn wait_delivered(
        &self,
        meter: &mut DeliveryMeter,
        reporter: &mut impl Reporter,
    ) -> Result<(), LoadError> {
        let mut now = self.look().await?;
        meter.look(&now);
        let ends = now.partitions.clone();
        let total = undelivered(&ends, &now.partitions);
        if total == 0 {
            return Ok(());
        }
        reporter.begin("delivering what is left", Some(total));
        loop {
            let left = undelivered(&ends, &now.partitions);
            reporter.advance(total.saturating_sub(left));
            if left == 0 {
                reporter.end();
                return Ok(());
            }
            time::sleep(STATUS_EVERY).await;
            now = self.look().await?;
            meter.look(&now);
        }
    }

    async fn look(&self) -> Result<GetStatusResponse, LoadError> {
        get_status(&self.status, self.settings.retry_for).await
    }
}

async fn interruptible<T>(
    stop: &CancellationToken,
    phase: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    stop.run_until_cancelled(phase).await.unwrap_or(Err(LoadError::Interrupted))
}

async fn get_status(
    status: &StatusServiceClient<Channel>,
    patience: Duration,
) -> Result<GetStatusResponse, LoadError> {
    retried(patience, || {
        let mut status = status.clone();
        async move { status.get_status(GetStatusRequest {}).await }
    })
    .await
}

/// How many posts of a home timeline are held ready, at the most.
fn cap_of(status: &GetStatusResponse) -> Result<usize, LoadError> {
    match status.home_timeline_cap {
        0 => Err(LoadError::NothingHeldReady),
        cap => Ok(cap as usize),
    }
}

async fn plan(
    settings: &Settings,
    text_chars_max: usize,
    reporter: &mut impl Reporter,
) -> Result<Workload, LoadError> {
    let settings = settings.clone();
    let planning = move |on_line: &mut OnLine| Workload::plan(&settings, text_chars_max, on_line);
    with_progress("planning the load", reporter, planning).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_holds_nothing_ready_is_not_verified() {
        let status = |home_timeline_cap| GetStatusResponse {
            home_timeline_cap,
            ..GetStatusResponse::default()
        };
        assert!(matches!(cap_of(&status(800)), Ok(800)));
        assert!(matches!(cap_of(&status(0)), Err(LoadError::NothingHeldReady)));
    }
}
