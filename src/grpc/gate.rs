//! Answers before there is anything to answer from: while a Roost starts, health
//! says NOT_SERVING and every other call UNAVAILABLE, with how far the start has
//! come. The same health says NOT_SERVING again once it stops.
//!
//! Later on it can shut the reads alone: the methods of `METHOD_CLASS_READ`. Then the
//! process is not ready, and its health of timelines and notifications says NOT_SERVING,
//! while that of everything else goes on saying SERVING.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::{Router, extract::Request, response::Response};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceExt;

use super::methods::Methods;
use crate::{proto::v1::MethodClass, telemetry::Readiness};

/// The names that health knows; the empty one stands for the server as a whole.
const SERVICES: [&str; 7] = [
    "",
    "roost.v1.PostService",
    "roost.v1.GraphService",
    TIMELINES,
    NOTIFICATIONS,
    "roost.v1.MessageService",
    "roost.v1.StatusService",
];

const TIMELINES: &str = "roost.v1.TimelineService";
const NOTIFICATIONS: &str = "roost.v1.NotificationService";

/// The door of a server that may not be ready. Clones are handles of the same.
#[derive(Clone)]
pub struct Gate {
    health: HealthReporter,
    /// What health was told last of each service. Held while it is told, so that the
    /// last word is the newest.
    told: Arc<Mutex<[Option<ServingStatus>; SERVICES.len()]>>,
    ready: Arc<OnceLock<Router>>,
    /// Which calls read.
    methods: Arc<Methods>,
    readiness: Readiness,
    door: Door,
}

/// What is known of the gate behind it, where calls go on for long. Clones are handles of the
/// same.
#[derive(Clone, Debug)]
pub struct Door {
    state: Arc<RwLock<State>>,
    /// Once no new calls should come.
    closing: CancellationToken,
}

/// What is let through.
#[derive(Debug)]
struct State {
    phase: Phase,
    /// Why nothing may be read, if it may not.
    reads_shut: Option<String>,
}

#[derive(Debug)]
enum Phase {
    /// And how far it has come.
    Starting(String),
    Open,
    /// It works, and answers no calls.
    OpenToNobody,
    Stopping,
}

/// What a process without an API answers calls.
const NO_API: &str =
    "this process is a worker alone, and answers no calls: call one whose role is api";

impl State {
    /// Why the process is not ready, if it is not.
    fn unready(&self) -> Option<String> {
        match (&self.phase, &self.reads_shut) {
            (Phase::Stopping, _) => Some("it is stopping".to_owned()),
            (Phase::Starting(how_far), None) => Some(how_far.clone()),
            (Phase::Starting(how_far), Some(reason)) => Some(format!("{how_far}; {reason}")),
            (Phase::Open | Phase::OpenToNobody, Some(reason)) => Some(nothing_read(reason)),
            (Phase::Open | Phase::OpenToNobody, None) => None,
        }
    }

    fn health(&self, service: &str) -> ServingStatus {
        match self.phase {
            Phase::Open if is_of_reads(service) && self.reads_shut.is_some() => {
                ServingStatus::NotServing
            }
            Phase::Open => ServingStatus::Serving,
            // The process as a whole does what it is there for.
            Phase::OpenToNobody if service.is_empty() => ServingStatus::Serving,
            Phase::OpenToNobody | Phase::Starting(_) | Phase::Stopping => ServingStatus::NotServing,
        }
    }
}

impl Gate {
    /// A closed gate, and what to serve from the first moment on.
    pub async fn new() -> (Self, Routes) {
        let (health, service) = tonic_health::server::health_reporter();
        let how_far = "it opens its log and its store";
        let state = State { phase: Phase::Starting(how_far.to_owned()), reads_shut: None };
        let gate = Self {
            health,
            told: Arc::default(),
            ready: Arc::default(),
            methods: Arc::new(Methods::new()),
            readiness: Readiness::not_yet(how_far),
            door: Door { state: Arc::new(RwLock::new(state)), closing: CancellationToken::new() },
        };
        gate.tell_health().await;
        let behind = gate.clone();
        let router = Router::new().fallback(move |request| {
            let gate = behind.clone();
            async move { gate.answer(request).await }
        });
        (gate, Routes::from(router).add_service(service))
    }

    /// Takes note of how far the start has come. True: that is news.
    pub fn tell(&self, how_far: &str) -> bool {
        self.change(|state| match &mut state.phase {
            Phase::Starting(told) if told != how_far => {
                how_far.clone_into(told);
                true
            }
            _ => false,
        })
    }

    /// Lets calls through to these services from now on. `None`: the start is over, and
    /// there are none.
    pub async fn open(&self, routes: Option<Routes>) {
        let phase = if routes.is_some() { Phase::Open } else { Phase::OpenToNobody };
        if let Some(routes) = routes {
            // It is opened once; a second time would change nothing.
            let _ = self.ready.set(routes.prepare().into_axum_router());
        }
        self.change(|state| state.phase = phase);
        self.tell_health().await;
    }

    /// Says that no new calls should come; those that do are answered still.
    pub async fn close(&self) {
        self.change(|state| state.phase = Phase::Stopping);
        self.door.closing.cancel();
        self.tell_health().await;
    }

    /// What calls behind it may know of it. They have no gate: it holds them.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Whether it is open, for those who ask over HTTP.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Answers reads UNAVAILABLE from now on, and says why.
    pub async fn shut_reads(&self, reason: &str) {
        self.change(|state| state.reads_shut = Some(reason.to_owned()));
        self.tell_health().await;
    }

    /// Lets reads through again.
    pub async fn open_reads(&self) {
        self.change(|state| state.reads_shut = None);
        self.tell_health().await;
    }

    /// Why this may not be answered now.
    fn refusal(&self, request: &Request) -> Option<String> {
        match self.methods.class(request.uri().path()) {
            Some(MethodClass::Read) => self.door.reads_shut(),
            _ => None,
        }
    }

    /// Whoever asks over HTTP hears of a change at once.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // What it holds is whole even after a panic.
        let mut state = self.door.state.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        match state.unready() {
            Some(reason) => self.readiness.set_unready(reason),
            None => self.readiness.set_ready(),
        }
        result
    }

    async fn tell_health(&self) {
        let mut told = self.told.lock().await;
        let health = {
            let state = self.door.state.read().unwrap_or_else(PoisonError::into_inner);
            SERVICES.map(|service| state.health(service))
        };
        for ((service, now), told) in SERVICES.into_iter().zip(health).zip(&mut *told) {
            // Who watches hears of changes alone.
            if told.replace(now) != Some(now) {
                self.health.set_service_status(service, now).await;
            }
        }
    }

    /// Why no call is let through.
    fn not_open(&self) -> String {
        let state = self.door.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Phase::OpenToNobody = state.phase {
            return NO_API.to_owned();
        }
        let how_far = state.unready().unwrap_or_default();
        format!("this Roost is starting: {how_far}; try again in a moment")
    }

    async fn answer(&self, request: Request) -> Response {
        match self.ready.get() {
            Some(routes) => match self.refusal(&request) {
                Some(reason) => super::unavailable(reason).into_http(),
                // It cannot fail: its error has no values.
                None => routes.clone().oneshot(request).await.unwrap_or_else(|no| match no {}),
            },
            None => super::unavailable(self.not_open()).into_http(),
        }
    }
}

impl Door {
    /// Waits until no new calls should come: what would go on for ever is to end then.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Why nothing may be read now, if nothing may.
    pub(super) fn reads_shut(&self) -> Option<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.reads_shut.as_deref().map(nothing_read)
    }
}

/// What reads are answered while they are shut, and whoever asks whether it is ready.
fn nothing_read(reason: &str) -> String {
    format!("nothing can be read now: {reason}; try again")
}

/// Whether health of a service follows the reads: nearly all it does is read.
fn is_of_reads(service: &str) -> bool {
    [TIMELINES, NOTIFICATIONS].contains(&service)
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
    fn a_worker_alone_serves_as_a_whole_and_no_service() {
        let state = State { phase: Phase::OpenToNobody, reads_shut: None };
        assert_eq!(state.unready(), None);
        assert_eq!(state.health(""), ServingStatus::Serving);
        for service in &SERVICES[1..] {
            assert_eq!(state.health(service), ServingStatus::NotServing, "{service}");
        }
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

        assert!(gate.tell("7 events are left"));
        assert!(!gate.tell("7 events are left"), "that is no news");
        let (health, code, message) = look(&channel).await;
        assert_eq!((health, code), (NotServing as i32, Code::Unavailable));
        assert!(message.contains("7 events are left"), "{message}");

        let reflection = tonic_reflection::server::Builder::configure().build_v1();
        gate.open(Some(Routes::new(reflection.expect("a service")))).await;
        assert_eq!(look(&channel).await, (Serving as i32, Code::Ok, String::new()));

        gate.close().await;
        assert_eq!(look(&channel).await, (NotServing as i32, Code::Ok, String::new()));
        server.abort();
    }

    #[tokio::test]
    async fn it_is_not_ready_while_reads_are_shut_and_says_why() {
        let (gate, _routes) = Gate::new().await;
        let reason = || gate.readiness().reason();
        gate.tell("7 events are left");
        gate.shut_reads("the store does not answer").await;
        assert_eq!(
            reason().as_deref(),
            Some("7 events are left; the store does not answer"),
            "while it starts"
        );
        gate.open(Some(Routes::default())).await;
        let said = reason().expect("not ready");
        assert_eq!(said, "nothing can be read now: the store does not answer; try again");
        let read = Request::get("/roost.v1.TimelineService/ListHomeTimeline");
        let read = read.body(axum::body::Body::empty()).expect("a request");
        assert_eq!(gate.refusal(&read), Some(said), "reads say the same");
        gate.open_reads().await;
        assert_eq!(reason(), None);
        gate.shut_reads("again").await;
        gate.close().await;
        assert_eq!(reason().as_deref(), Some("it is stopping"));
        gate.open_reads().await;
        assert_eq!(reason().as_deref(), Some("it is stopping"));
    }

    #[test]
    fn health_of_timelines_goes_with_the_reads() {
        let open = State { phase: Phase::Open, reads_shut: None };
        assert!(SERVICES.iter().all(|service| open.health(service) == ServingStatus::Serving));
        let shut = State { reads_shut: Some("away".to_owned()), ..open };
        let shut: Vec<&str> = SERVICES
            .into_iter()
            .filter(|service| shut.health(service) == ServingStatus::NotServing)
            .collect();
        assert_eq!(shut, [TIMELINES, NOTIFICATIONS]);
    }
}
