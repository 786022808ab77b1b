//! The load generator: drives any Roost over gRPC, measures it, and compares what
//! it shows with a model that shares no code with it.
//!
//! ```text
//!  settings ─► workload ─► dispatch ─┬─► publish × streams ─► Roost
//!              (pure)      (paced)   └─► churn × workers   ─►   │
//!                             board: ids of what is acked ◄─────┤
//!              probes: visible yet? reads how fast? ◄───────────┤
//!              model ─► verify: every home timeline ◄───────────┘
//! ```
//!
//! Every request follows from the settings and the input alone, request ids
//! included. So the same load can be run again after a crash of either side: what
//! was published is not published twice, and the model still holds.
//!
//! Every queue is bounded. When the server is slower than the load, the dispatcher
//! waits, and latencies go on counting from when a post was due.

mod args;
mod board;
mod churn;
mod delivery;
mod difference;
mod dispatch;
mod error;
mod floor;
mod graph;
mod journal;
mod latency;
mod messages;
mod model;
mod population;
mod probe;
mod publish;
mod random;
mod report;
mod retry;
mod run;
mod settings;
mod trace;
mod verify;
mod workload;

pub use args::LoadArgs;
pub use difference::{Difference, DifferenceKind, compare};
pub use error::LoadError;
pub use graph::{Graph, ListedGraph, TooManyAccounts, UserIndex};
pub use latency::Quantiles;
pub use population::Population;
pub use report::{LatencyReport, Report};
pub use run::run;
pub use settings::{Settings, Source};
pub use trace::TraceError;
pub use verify::Verification;
pub use workload::Workload;
