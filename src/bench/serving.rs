//! Roost's API over gRPC on loopback, as `roost serve` answers it; and beside it a bare
//! service of the same messages that answers every call with the same bytes: what gRPC
//! itself costs.
//!
//! ```text
//!  callers ──► connections ─┬─► gate ─► measured ─► API ─► store
//!                           └─► constant answers
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes, transport::Channel};

use super::BenchError;
use crate::{
    app,
    client::Target,
    event_log::EventLog,
    grpc::{self, Admission, Api, Calls, Gate, Transport},
    listener::{ConnectionSlots, ConnectionTimes},
    proto::v1::{
        GetUnreadRequest, ListAuthorTimelineRequest, ListAuthorTimelineResponse,
        ListCatchUpRequest, ListCatchUpResponse, ListHomeTimelineRequest, ListHomeTimelineResponse,
        MoveReadMarkerRequest, MoveReadMarkerResponse, StreamHomeTimelineRequest,
        StreamHomeTimelineResponse, Unread,
        timeline_service_server::{TimelineService, TimelineServiceServer},
    },
    store::Store,
    telemetry::CallMetrics,
};

/// Connections of the clients: more than cores, so that none waits for another's bytes.
const CONNECTIONS: usize = 8;

/// A gRPC server on loopback. Dropping it ends it where it stands.
pub(super) struct Serving {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Roost, with all that stands before its services.
    pub(super) async fn roost<L: EventLog, S: Store>(api: Api<L, S>) -> Result<Self, BenchError> {
        let (gate, routes) = Gate::new().await;
        gate.open(Some(grpc::routes(api).map_err(app::AppError::from)?)).await;
        let metrics = Arc::new(CallMetrics::default());
        let routes = Admission::new(&metrics).guard(routes);
        Self::start(Calls::new(metrics).measure(routes)).await
    }

    /// A service that answers every read of a home timeline with `page`.
    pub(super) async fn bare(page: ListHomeTimelineResponse) -> Result<Self, BenchError> {
        Self::start(Routes::new(TimelineServiceServer::new(Bare { page }))).await
    }

    async fn start(routes: Routes) -> Result<Self, BenchError> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(BenchError::Listen)?;
        let address = listener.local_addr().map_err(BenchError::Listen)?;
        let stop = CancellationToken::new();
        let metrics = Arc::new(CallMetrics::default());
        let transport = Transport::new(routes, ConnectionTimes::default(), &metrics);
        let slots = ConnectionSlots::new("grpc", usize::MAX, usize::MAX, Default::default());
        let server =
            app::serve_grpc(listener, slots, transport, stop.clone(), CancellationToken::new());
        Ok(Self { address, stop, task: tokio::spawn(server) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections to it, those of Roost's own clients.
    pub(super) async fn connect(&self) -> Result<Vec<Channel>, BenchError> {
        let target = Target::new(format!("http://{}", self.address));
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(target.connect().await?);
        }
        Ok(channels)
    }

    /// Ends it. Nobody may be calling any more, or be connected.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        self.stop.cancel();
        self.task.await.map_err(|_| BenchError::Panicked)
    }
}

/// Answers without looking at anything.
struct Bare {
    page: ListHomeTimelineResponse,
}

#[tonic::async_trait]
impl TimelineService for Bare {
    async fn list_home_timeline(
        &self,
        _: Request<ListHomeTimelineRequest>,
    ) -> Result<Response<ListHomeTimelineResponse>, Status> {
        Ok(Response::new(self.page.clone()))
    }

    async fn list_author_timeline(
        &self,
        _: Request<ListAuthorTimelineRequest>,
    ) -> Result<Response<ListAuthorTimelineResponse>, Status> {
        Err(Status::unimplemented("the bare service has home timelines only"))
    }

    type StreamHomeTimelineStream =
        futures::stream::Empty<Result<StreamHomeTimelineResponse, Status>>;

    async fn stream_home_timeline(
        &self,
        _: Request<StreamHomeTimelineRequest>,
    ) -> Result<Response<Self::StreamHomeTimelineStream>, Status> {
        Err(Status::unimplemented("the bare service has no streams"))
    }

    async fn move_read_marker(
        &self,
        _: Request<MoveReadMarkerRequest>,
    ) -> Result<Response<MoveReadMarkerResponse>, Status> {
        Err(Status::unimplemented("the bare service has no read markers"))
    }

    async fn get_unread(&self, _: Request<GetUnreadRequest>) -> Result<Response<Unread>, Status> {
        Err(Status::unimplemented("the bare service has no read markers"))
    }

    async fn list_catch_up(
        &self,
        _: Request<ListCatchUpRequest>,
    ) -> Result<Response<ListCatchUpResponse>, Status> {
        Err(Status::unimplemented("the bare service has no read markers"))
    }
}
