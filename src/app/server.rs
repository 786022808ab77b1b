//! The gRPC server, with a gate before the services, and beside it the HTTP server of
//! metrics, liveness and readiness, which answers from the first moment to the last.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{AppError, ConnectionLimits, Settings};
use crate::{
    grpc::{Admission, Calls, Gate, Transport},
    listener::{self, ConnectionSlots, ConnectionTimes, Descriptors},
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
    task: Option<JoinHandle<Result<(), io::Error>>>,
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
        let slots = Slots::of(settings.connections, metrics);
        let times = settings.connections.times;
        let (gate, routes) = Gate::new().await;
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let calls = Calls::new(Arc::clone(&metrics.calls));
        let routes = calls.clone().measure(Admission::new(&metrics.calls).guard(routes));
        let transport = Transport::new(routes, times, &metrics.calls);
        let task = serve_grpc(listener, slots.api, transport, stop.clone(), cut.clone());
        let task = Some(tokio::spawn(async move {
            task.await;
            Ok(())
        }));
        let metrics_address = metrics_listener.as_ref().map(|(_, address)| *address);
        let metrics = metrics_listener.map(|(listener, address)| {
            tracing::info!("metrics are at http://{address}/metrics");
            let router = telemetry::router(metrics.registry(), gate.readiness());
            tokio::spawn(serve_metrics(listener, slots.metrics, router, times))
        });
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

/// Room for the connections of both listeners.
struct Slots {
    api: ConnectionSlots,
    metrics: ConnectionSlots,
}

impl Slots {
    /// What the settings say, and the descriptors of the process where they do not.
    fn of(limits: ConnectionLimits, metrics: &Metrics) -> Self {
        let descriptors = listener::raise_descriptor_limit();
        let most = descriptors.connections_max();
        let api_max = limits.max.unwrap_or(most).min(most);
        if limits.max.is_some_and(|max| max > most) || descriptors.is_low() {
            warn_of_descriptors(descriptors, api_max);
        }
        let peer_max = limits.peer_max.unwrap_or(api_max.div_ceil(2)).min(api_max);
        let metrics_max = descriptors.metrics_connections_max();
        let slots = |listener, max, peer_max| {
            ConnectionSlots::new(listener, max, peer_max, Arc::clone(&metrics.connections))
        };
        Self {
            api: slots("grpc", api_max, peer_max),
            metrics: slots("metrics", metrics_max, metrics_max.div_ceil(2)),
        }
    }
}

fn warn_of_descriptors(descriptors: Descriptors, connections_max: usize) {
    tracing::warn!(
        open_files = descriptors.limit,
        connections_max,
        "the process may open few files, so that it takes few connections; raise the limit \
         (ulimit -n, LimitNOFILE=)"
    );
}

/// Serves gRPC until `stop`, then waits for the calls under way; `cut` ends all connections
/// where they stand.
pub(crate) fn serve_grpc(
    listener: TcpListener,
    slots: ConnectionSlots,
    transport: Transport,
    stop: CancellationToken,
    cut: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let stopping = stop.clone();
    listener::accept(listener, slots, stop, move |socket, slot| {
        transport.clone().serve(socket, slot, stopping.clone(), cut.clone())
    })
}

/// Answers metrics and health over HTTP/1 until it is dropped.
async fn serve_metrics(
    listener: TcpListener,
    slots: ConnectionSlots,
    router: axum::Router,
    times: ConnectionTimes,
) -> io::Result<()> {
    // The accept loop is dropped with this, and tells the connections.
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let ending = stop.clone();
    listener::accept(listener, slots, stop, move |socket, slot| {
        listener::serve_http1(socket, slot, router.clone(), times, ending.clone())
    })
    .await;
    Ok(())
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
