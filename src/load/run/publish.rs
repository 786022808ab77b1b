//! Publishing, with the changes between the posts, while readers look.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::Load;
use crate::{
    client::progress::{REPORT_EVERY, Reporter},
    load::{
        LoadError, Report,
        churn::{self, Plan},
        delivery::DeliveryMeter,
        dispatch::Dispatcher,
        latency::Latencies,
        probe::{self, SIGHTINGS_AT_ONCE},
        publish::{self, Publishing},
    },
    proto::v1::GetStatusRequest,
};

/// Workers for all that is no post, each with one call under way.
const CHURN_WORKERS: usize = 32;
const CHURN_QUEUE_LENGTH: usize = 64;
/// How long the watchers of posts have after everything has been delivered.
const LAST_SIGHTINGS_WAIT: Duration = Duration::from_secs(10);
/// How long the streams and workers have after Ctrl-C, whatever they wait for.
const STOP_WAIT: Duration = Duration::from_secs(10);

impl Load {
    pub(super) async fn publish_and_probe(
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

    /// Every so many-th post is watched, so that the samples are spread over the
    /// whole load.
    fn sample_every(&self) -> u32 {
        match self.settings.probes_max {
            0 => 0,
            most => self.workload.post_count().div_ceil(most).max(1),
        }
    }
}
