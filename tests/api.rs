//! The gRPC API as its documentation in `proto/` promises it: a whole Roost in
//! this process, on a free port and a temporary directory, or, with
//! `ROOST_TEST_BACKEND=redis` or `cluster`, on Kafka and Redis.

#[path = "api/audit.rs"]
mod audit;
#[path = "api/bad_input.rs"]
mod bad_input;
#[path = "api/big_answers.rs"]
mod big_answers;
#[path = "api/clock.rs"]
mod clock;
#[path = "api/disk.rs"]
mod disk;
#[path = "api/edge_ids.rs"]
mod edge_ids;
#[path = "services/mod.rs"]
mod external;
#[path = "api/hidden_matrix.rs"]
mod hidden_matrix;
#[path = "api/hide.rs"]
mod hide;
#[path = "api/idempotency.rs"]
mod idempotency;
#[path = "api/messages.rs"]
mod messages;
#[path = "api/metrics.rs"]
mod metrics;
#[path = "api/notifications.rs"]
mod notifications;
#[path = "api/paging.rs"]
mod paging;
#[path = "api/pull.rs"]
mod pull;
#[path = "api/raw_requests.rs"]
mod raw_requests;
#[path = "api/reading.rs"]
mod reading;
#[path = "api/rebuild.rs"]
mod rebuild;
#[path = "api/reposts.rs"]
mod reposts;
#[path = "api/server.rs"]
mod server;
#[path = "api/services.rs"]
mod services;
#[path = "api/stream.rs"]
mod stream;
#[path = "api/threads.rs"]
mod threads;
#[path = "api/timelines.rs"]
mod timelines;
