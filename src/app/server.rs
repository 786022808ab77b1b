//! The gRPC server, with a gate before the services.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::{AppError, Settings};
use crate::grpc::Gate;

/// The gRPC server, with a gate before the services.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) gate: Gate,
    stop: CancellationToken,
    /// `None` once `failed` has told how it ended.
    task: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
}

impl Server {
    /// Listens, behind a closed gate.
    pub(super) async fn start(settings: &Settings) -> Result<Self, AppError> {
        let listener = listen(settings.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|source| AppError::Listen { address: settings.listen, source })?;
        let (gate, routes) = Gate::new().await;
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .max_concurrent_streams(1_000)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stop.clone().cancelled_owned(),
            );
        Ok(Self { address, gate, stop, task: Some(tokio::spawn(server)) })
    }

    /// Waits until it has failed.
    pub(super) async fn failed(&mut self) -> AppError {
        super::ended(&mut self.task).await
    }

    /// Takes no more calls, and finishes those under way as far as there is time.
    pub(super) async fn stop(mut self, drain_max: Duration) {
        self.gate.close().await;
        self.stop.cancel();
        let Some(task) = &mut self.task else { return };
        if tokio::time::timeout(drain_max, &mut *task).await.is_err() {
            if !drain_max.is_zero() {
                tracing::warn!("calls were still under way when the time to drain them was over");
            }
            task.abort();
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => AppError::AddressInUse { address },
        _ => AppError::Listen { address, source },
    })
}
