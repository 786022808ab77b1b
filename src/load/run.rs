//! A load from beginning to end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, future};
use tokio::{
    sync::mpsc,
    task::{self, JoinSet},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    LoadError, Report, Settings,
    board::Board,
    churn::{self, ChurnCounts, Churning, Plan, SharedChanges},
    delivery::{DeliveryMeter, undelivered},
    dispatch::Dispatcher,
    graph::UserIndex,
    journal::Journal,
    latency::Latencies,
    messages::Messages,
    model::{ExpectedInboxes, Model},
    probe::{self, Reads, SIGHTINGS_AT_ONCE, Sightings, channel_of, is_active},
    publish::{self, Publishing},
    report::LatencyReport,
    retry::{Backoff, retried},
    verify::Verifier,
    workload::Workload,
};
use crate::{
    client::{
        ClientError, Target, graph_import,
        progress::{REPORT_EVERY, Reporter},
        text_file::{OnLine, with_progress},
    },
    domain::UserId,
    proto::v1::{
        GetStatusRequest, GetStatusResponse, ListHomeTimelineRequest, ListPulledAuthorsRequest,
        graph_service_client::GraphServiceClient, status_service_client::StatusServiceClient,
        timeline_service_client::TimelineServiceClient,
    },
};

/// First reads that are under way at once when readers wake.
const WAKES_AT_ONCE: usize = 128;
/// Workers for all that is no post, each with one call under way.
const CHURN_WORKERS: usize = 32;
const CHURN_QUEUE_LENGTH: usize = 64;
/// Between two looks at how far the fan-out has come.
const STATUS_EVERY: Duration = Duration::from_millis(50);
/// How long the watchers of posts have after everything has been delivered.
const LAST_SIGHTINGS_WAIT: Duration = Duration::from_secs(10);
/// How long the streams and workers have after Ctrl-C, whatever they wait for.
const STOP_WAIT: Duration = Duration::from_secs(10);

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

    async fn import_graph(&self, reporter: &mut impl Reporter) -> Result<u64, LoadError> {
        let graph = &self.workload.graph;
        let mut backoff = Backoff::new(self.settings.retry_for);
        reporter.begin("importing follows", Some(graph.follow_count_estimate()));
        let count = loop {
            // A broken import is repeated whole: importing twice changes nothing.
            let (channel, lists) = (self.channels[0].clone(), graph.follower_lists());
            match graph_import::import(channel, lists, reporter, self.stop.clone()).await {
                Ok(count) => break count,
                Err(ClientError::Refused(status)) => {
                    let wait = backoff.after(*status, Instant::now())?;
                    time::sleep(wait).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        reporter.end();
        if self.workload.skipped_follow_count > 0 {
            reporter.line(&format!(
                "left out of the graph: {} repeated follows or accounts following themselves",
                self.workload.skipped_follow_count
            ));
        }
        Ok(count)
    }

    /// Reads the home timelines of the active readers once, which makes them live.
    async fn wake_readers(&self, reporter: &mut impl Reporter) -> Result<u64, LoadError> {
        let (seed, percent) = (self.workload.seed(), self.settings.active_percent);
        let users = self.workload.graph.user_count();
        reporter.begin("waking readers", Some(u64::from(users) * u64::from(percent) / 100));
        let mut wakes = futures::stream::iter(0..users)
            .filter(|reader| std::future::ready(is_active(seed, percent, *reader)))
            .map(|reader| {
                let timelines = TimelineServiceClient::new(channel_of(&self.channels, reader));
                let request = ListHomeTimelineRequest {
                    user_id: self.workload.graph.id(reader).0,
                    page_size: 1,
                    ids_only: true,
                    ..ListHomeTimelineRequest::default()
                };
                retried(self.settings.retry_for, move || {
                    let (mut timelines, request) = (timelines.clone(), request.clone());
                    async move { timelines.list_home_timeline(request).await }
                })
            })
            .buffer_unordered(WAKES_AT_ONCE);
        let mut woken = 0;
        let mut told = Instant::now();
        while let Some(wake) = wakes.next().await {
            wake?;
            woken += 1;
            if told.elapsed() >= REPORT_EVERY {
                told = Instant::now();
                reporter.advance(woken);
            }
        }
        reporter.advance(woken);
        reporter.end();
        Ok(woken)
    }

    async fn publish_and_probe(
        &self,
        report: &mut Report,
        reporter: &mut impl Reporter,
    ) -> Result<(), LoadError> {
        let mut meter = DeliveryMeter::default();
        meter.look(&self.interruptible(self.look()).await?);

        let (sightings, watched) = mpsc::channel(SIGHTINGS_AT_ONCE);
        let delivered = CancellationToken::new();
        let watching = tokio::spawn(probe::watch(
            Arc::clone(&self.workload),
            self.changes.clone(),
            self.settings.active_percent,
            self.channels.clone(),
            Arc::clone(&self.sightings),
            watched,
            delivered.clone(),
        ));
        let published = CancellationToken::new();
        let reading = tokio::spawn(probe::read_steadily(
            Arc::clone(&self.workload.graph),
            self.workload.seed(),
            self.settings.active_percent,
            self.settings.reads_per_second,
            self.channels.clone(),
            Arc::clone(&self.reads),
            published.clone(),
        ));
        // Whatever happens below, no task outlives this function.
        let _cancel = (delivered.clone().drop_guard(), published.clone().drop_guard());

        let publishing = Arc::new(Publishing {
            workload: Arc::clone(&self.workload),
            board: Arc::clone(&self.board),
            latencies: Latencies::new(),
            sightings,
            sample_every: self.sample_every(),
            unwatched_count: AtomicU32::new(0),
            reconnect_count: AtomicU32::new(0),
            is_repeated: self.is_repeated,
            window: self.settings.window as usize,
            patience: self.settings.retry_for,
            stop: self.stop.clone(),
        });
        let begin = Instant::now();
        let done = self.publish(&publishing, &mut meter, reporter).await;
        report.publish_seconds = begin.elapsed().as_secs_f64();
        report.posts = self.board.acked_count().into();
        let done = match done {
            Ok(()) => self.interruptible(self.wait_delivered(&mut meter, reporter)).await,
            Err(error) => Err(error),
        };
        report.delivered_seconds = begin.elapsed().as_secs_f64();
        published.cancel();
        match done {
            Ok(()) => delivered.cancel(),
            // What is not delivered yet is not missed.
            Err(_) => watching.abort(),
        }

        report.latencies.publish = publishing.latencies.quantiles();
        report.unwatched_posts = publishing.unwatched_count.load(Ordering::Relaxed);
        report.reconnects = publishing.reconnect_count.load(Ordering::Relaxed);
        // The last sender of posts to be watched goes, and with it the watch.
        drop(publishing);
        let mut watching = watching;
        if time::timeout(LAST_SIGHTINGS_WAIT, &mut watching).await.is_err() {
            watching.abort();
        }
        reading.abort();
        self.fill_in(report, &meter);
        done
    }

    /// Publishes everything, with the churn between the posts.
    async fn publish(
        &self,
        publishing: &Arc<Publishing>,
        meter: &mut DeliveryMeter,
        reporter: &mut impl Reporter,
    ) -> Result<(), LoadError> {
        let mut tasks: JoinSet<Result<(), LoadError>> = JoinSet::new();
        let mut lanes = Vec::new();
        for channel in self.channels.iter().take(self.settings.streams.into()) {
            let (lane, queue) = mpsc::channel(self.settings.window as usize);
            tasks.spawn(publish::publish(Arc::clone(publishing), channel.clone(), queue));
            lanes.push(lane);
        }
        let mut churn_lanes = Vec::new();
        if self.settings.changes_percent() > 0 {
            for worker in 0..CHURN_WORKERS {
                let (lane, queue) = mpsc::channel(CHURN_QUEUE_LENGTH);
                let channel = self.channels[worker % self.channels.len()].clone();
                tasks.spawn(churn::work(Arc::clone(&self.churning), channel, queue));
                churn_lanes.push(lane);
            }
        }
        let dispatcher = Dispatcher {
            workload: Arc::clone(&self.workload),
            board: Arc::clone(&self.board),
            changes: self.changes.clone(),
            lanes,
            churn_lanes,
            plan: Plan::new(&self.settings, &self.workload),
            actions_per_second: self.settings.actions_per_second,
            stop: self.stop.clone(),
        };
        tasks.spawn(dispatcher.dispatch());

        reporter.begin("publishing", Some(self.workload.post_count().into()));
        let mut ticks = time::interval(REPORT_EVERY);
        let late = async {
            self.stop.cancelled().await;
            time::sleep(STOP_WAIT).await;
        };
        tokio::pin!(late);
        loop {
            tokio::select! {
                done = tasks.join_next() => match done {
                    Some(done) => done??,
                    None => break,
                },
                _ = ticks.tick() => {
                    reporter.advance(self.board.acked_count().into());
                    // Only to count over restarts: a server that is away is the
                    // publishers' business.
                    let mut status = self.status.clone();
                    if let Ok(Ok(now)) =
                        time::timeout(REPORT_EVERY, status.get_status(GetStatusRequest {})).await
                    {
                        meter.look(now.get_ref());
                    }
                }
                () = &mut late => break,
            }
        }
        reporter.advance(self.board.acked_count().into());
        reporter.end();
        if self.stop.is_cancelled() { Err(LoadError::Interrupted) } else { Ok(()) }
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
        reporter.begin("events left to deliver", Some(total));
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

    async fn verify(
        &self,
        cap: usize,
        reporter: &mut impl Reporter,
    ) -> Result<super::Verification, LoadError> {
        reporter.begin("computing the model", None);
        let pulled = self.pulled().await?;
        let messages = self.messages.all();
        let (model, inboxes) = task::spawn_blocking({
            let (workload, board) = (Arc::clone(&self.workload), Arc::clone(&self.board));
            let (changes, pulled) = (self.changes.clone(), pulled.clone());
            move || {
                let changes = changes.lock();
                let posts = (0..workload.post_count())
                    .filter(|number| !changes.is_deleted(*number))
                    .filter_map(|number| board.id(number).map(|id| (workload.author(number), id)));
                let repeated = (0..workload.post_count()).filter_map(|number| {
                    workload.repeats(number)?;
                    Some((board.id(number)?, workload.author(workload.meant(number)?)))
                });
                let model = Model::new(&workload.graph, &changes, posts, repeated, &pulled, cap);
                let inboxes = ExpectedInboxes::new(&workload, &board, &messages, &changes, cap);
                (model, inboxes)
            }
        })
        .await?;
        reporter.end();
        let kept_pulled = &self.churning.kept_pulled;
        let mut asked_for = self.changes.lock().pulled().clone();
        for author in kept_pulled.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            asked_for.remove(author);
        }
        let verifier = Verifier {
            workload: Arc::clone(&self.workload),
            board: Arc::clone(&self.board),
            model: Arc::new(model),
            inboxes: Arc::new(inboxes),
            pulled,
            asked_for,
            messages: self.messages.all().into_iter().map(|(number, id)| (id, number)).collect(),
            channels: self.channels.clone(),
            patience: self.settings.retry_for,
        };
        verifier.verify(reporter).await
    }

    /// The authors of the load who are pulled. Asked where everything is known to be
    /// delivered, since it is then known there who is pulled, too.
    async fn pulled(&self) -> Result<BTreeSet<UserIndex>, LoadError> {
        let client = GraphServiceClient::new(self.channels[0].clone());
        let listed = retried(self.settings.retry_for, || {
            let mut client = client.clone();
            async move { client.list_pulled_authors(ListPulledAuthorsRequest {}).await }
        });
        let ids = listed.await?.author_ids.into_iter();
        Ok(ids.filter_map(|id| self.workload.graph.index_of(UserId(id))).collect())
    }

    /// Every so many-th post is watched, so that the samples are spread over the
    /// whole load.
    fn sample_every(&self) -> u32 {
        match self.settings.probes_max {
            0 => 0,
            most => self.workload.post_count().div_ceil(most).max(1),
        }
    }

    fn fill_in(&self, report: &mut Report, meter: &DeliveryMeter) {
        let churned = &self.churning.counts;
        report.churn_follows = churned.follows.load(Ordering::Relaxed);
        report.churn_unfollows = churned.unfollows.load(Ordering::Relaxed);
        report.churn_deletions = churned.deletions.load(Ordering::Relaxed);
        report.switches = churned.switches.load(Ordering::Relaxed);
        report.hides = churned.hides.load(Ordering::Relaxed);
        report.messages = churned.messages.load(Ordering::Relaxed);
        report.message_deletions = churned.message_deletions.load(Ordering::Relaxed);
        report.deliveries = meter.deliveries();
        report.skipped_deliveries = meter.skipped();
        report.pushes = meter.pushes();
        report.server_restarts = meter.restart_count();
        report.latencies.delivery = self.sightings.latencies.quantiles();
        report.latencies.home_ids = self.reads.ids_only.quantiles();
        report.latencies.home_posts = self.reads.hydrated.quantiles();
        report.missed_posts = self.sightings.missed_count.load(Ordering::Relaxed);
        report.wrong_reads = self.reads.wrong_count.load(Ordering::Relaxed);
        report.failed_reads = self.reads.failed_count.load(Ordering::Relaxed);
    }

    fn empty_report(&self, status: &GetStatusResponse) -> Report {
        Report {
            settings: self.settings.clone(),
            server_version: status.version.clone(),
            run: self.workload.run.clone(),
            interrupted: false,
            users: self.workload.graph.user_count().into(),
            follows: 0,
            import_seconds: 0.0,
            woken_readers: 0,
            wake_seconds: 0.0,
            posts_planned: self.workload.post_count().into(),
            posts: 0,
            churn_follows: 0,
            churn_unfollows: 0,
            churn_deletions: 0,
            switches: 0,
            hides: 0,
            messages: 0,
            message_deletions: 0,
            publish_seconds: 0.0,
            delivered_seconds: 0.0,
            deliveries: 0,
            skipped_deliveries: 0,
            pushes: 0,
            reconnects: 0,
            server_restarts: 0,
            latencies: LatencyReport::default(),
            unwatched_posts: 0,
            missed_posts: 0,
            failed_reads: 0,
            wrong_reads: 0,
            verification: None,
        }
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
