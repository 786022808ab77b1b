//! The gRPC server, with a gate before the services, and beside it the HTTP server of
//! metrics, liveness and readiness, which answers from the first moment to the last.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::TryStreamExt;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::{AppError, Settings, cuttable::Cuttable};
use crate::{
    grpc::{Calls, Gate},
    telemetry::{self, Metrics},
};

/// How long a client may take to hear that its stream has ended.
const TAKE_END_MAX: Duration = Duration::from_secs(1);

/// Both servers.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) gate: Gate,
    calls: Calls,
    stop: CancellationToken,
    /// Ends all connections where they stand.
    cut: CancellationToken,
    /// `None` once `failed` has told how it ended.
    task: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
    /// `None` where it is not asked for, and once `failed` has told how it ended.
    metrics: Option<JoinHandle<Result<(), io::Error>>>,
}

impl Server {
    /// Listens, behind a closed gate.
    pub(super) async fn start(settings: &Settings, metrics: &Metrics) -> Result<Self, AppError> {
        let (listener, address) = listen(settings.listen, "--listen").await?;
        let metrics_listener = match settings.metrics_listen {
            Some(address) => Some(listen(address, "--metrics-listen").await?),
            None => None,
        };
        let (gate, routes) = Gate::new().await;
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let cuttable = {
            let cut = cut.clone();
            incoming.map_ok(move |connection| Cuttable::new(connection, cut.clone()))
        };
        let calls = Calls::new(Arc::clone(&metrics.calls));
        let server = transport()
            .add_routes(calls.clone().measure(routes))
            .serve_with_incoming_shutdown(cuttable, stop.clone().cancelled_owned());
        let metrics_address = metrics_listener.as_ref().map(|(_, address)| *address);
        let metrics = metrics_listener.map(|(listener, address)| {
            tracing::info!("metrics are at http://{address}/metrics");
            tokio::spawn(telemetry::serve(listener, metrics.registry(), gate.readiness()))
        });
        let task = Some(tokio::spawn(server));
        Ok(Self { address, metrics_address, gate, calls, stop, cut, task, metrics })
    }

    /// Waits until one of them has failed.
    pub(super) async fn failed(&mut self) -> AppError {
        tokio::select! {
            error = super::ended(&mut self.task) => error,
            error = super::ended(&mut self.metrics) => error,
        }
    }

    /// Takes no more calls, and finishes those under way as far as there is time. Calls that
    /// go on for ever have been told to end; those whose clients do not take that are cut.
    pub(super) async fn drain(&mut self, drain_max: Duration) {
        self.gate.close().await;
        self.stop.cancel();
        let Some(task) = &mut self.task else { return };
        let all_but_endless = async {
            self.calls.ended().await;
            tokio::time::sleep(TAKE_END_MAX).await;
            self.calls.ended().await;
        };
        let drained = async {
            tokio::select! {
                _ = &mut *task => true,
                () = all_but_endless => false,
            }
        };
        match tokio::time::timeout(drain_max, drained).await {
            Ok(true) => return,
            Ok(false) => tracing::info!("some clients do not take the end of their streams"),
            Err(_) if drain_max.is_zero() => {}
            Err(_) => {
                tracing::warn!("calls were still under way when the time to drain them was over");
            }
        }
        self.cut.cancel();
        if tokio::time::timeout(TAKE_END_MAX, &mut *task).await.is_err() {
            task.abort();
        }
    }

    /// Answers nothing any more.
    pub(super) async fn stop(self) {
        let Some(metrics) = self.metrics else { return };
        metrics.abort();
        // That it was aborted is what was asked for.
        let _ = metrics.await;
    }
}

/// How the API is spoken, whatever stands behind it.
pub(crate) fn transport() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_concurrent_streams(1_000)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
}

/// Listens on an address that `flag` sets, and says which it is.
async fn listen(
    address: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => AppError::AddressInUse { address, flag },
        _ => AppError::Listen { address, source },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
