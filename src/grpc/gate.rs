//! Answers before there is anything to answer from: while a Roost starts, health
//! says NOT_SERVING and every other call UNAVAILABLE, with how far the start has
//! come. The same health says NOT_SERVING again once it stops.
//!
//! Later on it can shut the reads alone: the methods that get and list.

use std::{
    mem,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard},
};

use axum::{Router, extract::Request, response::Response};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceExt;

use crate::telemetry::Readiness;

/// The names that health knows; the empty one stands for the server as a whole.
const SERVICES: [&str; 5] = [
    "",
    "roost.v1.PostService",
    "roost.v1.GraphService",
    "roost.v1.TimelineService",
    "roost.v1.StatusService",
];

const TIMELINES: &str = "roost.v1.TimelineService";

/// The door of a server that may not be ready. Clones are handles of the same.
#[derive(Clone)]
pub struct Gate {
    health: HealthReporter,
    ready: Arc<OnceLock<Router>>,
    readiness: Readiness,
    /// Why nothing may be read, if it may not.
    reads_shut: Arc<RwLock<Option<String>>>,
}

impl Gate {
    /// A closed gate, and what to serve from the first moment on.
    pub async fn new() -> (Self, Routes) {
        let (health, service) = tonic_health::server::health_reporter();
        let readiness = Readiness::not_yet("it opens its log and its store");
        let gate = Self { health, ready: Arc::default(), readiness, reads_shut: Arc::default() };
        gate.set_health(ServingStatus::NotServing).await;
        let behind = gate.clone();
        let router = Router::new().fallback(move |request| {
            let gate = behind.clone();
            async move { gate.answer(request).await }
        });
        (gate, Routes::from(router).add_service(service))
    }

    /// Says how far the start has come.
    pub fn tell(&self, state: String) {
        tracing::info!("starting: {state}");
        self.readiness.set_unready(state);
    }

    /// Lets calls through to these services from now on.
    pub async fn open(&self, routes: Routes) {
        // It is opened once; a second time would change nothing.
        let _ = self.ready.set(routes.prepare().into_axum_router());
        self.readiness.set_ready();
        self.set_health(ServingStatus::Serving).await;
    }

    /// Says that no new calls should come; those that do are answered still.
    pub async fn close(&self) {
        self.readiness.set_unready("it is stopping".to_owned());
        self.set_health(ServingStatus::NotServing).await;
    }

    /// Whether it is open, for those who ask over HTTP.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Answers reads UNAVAILABLE from now on, and says why.
    pub async fn shut_reads(&self, reason: &str) {
        let reason = Some(reason.to_owned());
        let before = mem::replace(&mut *write(&self.reads_shut), reason);
        if before.is_none() && self.ready.get().is_some() {
            self.health.set_service_status(TIMELINES, ServingStatus::NotServing).await;
        }
    }

    /// Lets reads through again.
    pub async fn open_reads(&self) {
        let before = write(&self.reads_shut).take();
        if before.is_some() && self.ready.get().is_some() {
            self.health.set_service_status(TIMELINES, ServingStatus::Serving).await;
        }
    }

    /// Why this may not be answered now.
    fn refusal(&self, request: &Request) -> Option<String> {
        if !is_read(request.uri().path()) {
            return None;
        }
        let shut = self.reads_shut.read().unwrap_or_else(PoisonError::into_inner);
        shut.as_ref().map(|reason| format!("nothing can be read now: {reason}; try again"))
    }

    async fn set_health(&self, status: ServingStatus) {
        for service in SERVICES {
            self.health.set_service_status(service, status).await;
        }
    }

    async fn answer(&self, request: Request) -> Response {
        match self.ready.get() {
            Some(routes) => match self.refusal(&request) {
                Some(reason) => super::unavailable(reason).into_http(),
                // It cannot fail: its error has no values.
                None => routes.clone().oneshot(request).await.unwrap_or_else(|no| match no {}),
            },
            None => {
                let state = self.readiness.reason().unwrap_or_default();
                super::unavailable(format!(
                    "this Roost is starting: {state}; try again in a moment"
                ))
                .into_http()
            }
        }
    }
}

/// Whether a call only reads what the store holds, by the name of its method.
fn is_read(path: &str) -> bool {
    let is_of_store = !path.contains("Status") && path.starts_with("/roost.");
    let method = path.rsplit('/').next().unwrap_or_default();
    is_of_store && ["Get", "List", "BatchGet"].iter().any(|verb| method.starts_with(verb))
}

/// What it holds is whole even after a panic.
fn write(shut: &RwLock<Option<String>>) -> RwLockWriteGuard<'_, Option<String>> {
    shut.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tonic::{Code, transport::Endpoint};
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus::*, health_client::HealthClient,
    };

    use super::*;

    /// What health says, and how another call is answered.
    async fn look(channel: &tonic::transport::Channel) -> (i32, Code, String) {
        let request = HealthCheckRequest { service: "roost.v1.PostService".to_owned() };
        let health = HealthClient::new(channel.clone()).check(request).await.expect("an answer");
        // A service of its own: what it says does not matter, that it does, does.
        let mut other =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
                channel.clone(),
            );
        let call = other.server_reflection_info(futures::stream::empty()).await;
        let (code, message) = match call {
            Ok(_) => (Code::Ok, String::new()),
            Err(status) => (status.code(), status.message().to_owned()),
        };
        (health.into_inner().status, code, message)
    }

    #[test]
    fn reads_are_known_by_their_methods() {
        for read in ["TimelineService/ListHomeTimeline", "PostService/BatchGetPosts"] {
            assert!(is_read(&format!("/roost.v1.{read}")), "{read}");
        }
        for other in ["PostService/PublishPost", "GraphService/Follow", "StatusService/GetStatus"] {
            assert!(!is_read(&format!("/roost.v1.{other}")), "{other}");
        }
        assert!(!is_read("/grpc.health.v1.Health/List"));
    }

    #[tokio::test]
    async fn it_is_closed_then_open_then_closing() {
        let (gate, routes) = Gate::new().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let server = tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
        let server = tokio::spawn(server);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.expect("connected");

        gate.tell("7 events are left".to_owned());
        let (health, code, message) = look(&channel).await;
        assert_eq!((health, code), (NotServing as i32, Code::Unavailable));
        assert!(message.contains("7 events are left"), "{message}");

        let reflection = tonic_reflection::server::Builder::configure().build_v1();
        gate.open(Routes::new(reflection.expect("a service"))).await;
        assert_eq!(look(&channel).await, (Serving as i32, Code::Ok, String::new()));

        gate.close().await;
        assert_eq!(look(&channel).await, (NotServing as i32, Code::Ok, String::new()));
        server.abort();
    }
}
