//! The push path against real servers.
//!
//! ```text
//! ROOST_TEST_REDIS=redis://127.0.0.1:6379                      one standalone server
//! ROOST_TEST_REDIS_CLUSTER=redis://127.0.0.1:7001,redis://…    primaries of a Cluster
//! ROOST_TEST_REQUIRE_SERVICES=1                                a missing one is a failure
//! ```
//!
//! Every test has readers of its own, whose ids nobody else has, and takes their
//! lists away at the end.

#[path = "services/mod.rs"]
mod external;
#[path = "redis_push/faults.rs"]
mod faults;
#[path = "redis_push/migration.rs"]
mod migration;
#[path = "redis_push/model.rs"]
mod model;
#[path = "redis_push/proxy.rs"]
mod proxy;
#[path = "redis_push/services.rs"]
mod services;
#[path = "redis_push/start.rs"]
mod start;
#[path = "redis_push/tls.rs"]
mod tls;
