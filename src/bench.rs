//! `roost bench`: how fast Roost is on this machine, beside the machine's own limits
//! and beside the ways in which others write timelines, all in one run.
//!
//! ```text
//!  settings ─► ground: Redis, logs, town (posts and readers)
//!                │
//!                ├─► drain     a backlog ─► workers ─► store
//!                ├─► ceiling   the same commands, packed beforehand
//!                ├─► naive     the same deliveries, written as others do (rivals)
//!                ├─► sustain   posts at a rate ─► writes ─► log ─► workers ─► store: seen?
//!                ├─► celebrity, sleepers, scale
//!                ├─► read, mixed: callers ─► gRPC ─► store, beside a bare service
//!                ├─► overload  calls at a rate ─► gRPC ─► answered or shed
//!                ├─► streams   posts ─► streams over gRPC ─► readers, who check what comes
//!                ├─► publish   streams ─► gRPC ─► Kafka, beside a bare producer
//!                ▼
//!          report: JSON, page (html, plot)
//! ```
//!
//! What is measured beside each other is measured in the same process, one after the
//! other, on the same graph and the same posts. It sees both sides of the wire: the
//! engine's parts, and the load generator.

mod args;
mod audience;
mod ceiling;
mod celebrity;
mod child;
mod closed_loop;
mod cost;
mod drain;
mod error;
mod ground;
mod html;
mod kafka;
mod latencies;
mod log;
mod machine;
mod mixed;
mod naive;
mod open_loop;
mod overload;
mod plot;
mod publish;
mod read;
mod redis;
mod report;
mod rivals;
mod roost;
mod scale;
mod scenarios;
mod schedule;
mod serving;
mod sleepers;
mod streams;
mod sustain;
mod town;
mod workspace;

pub use self::{
    args::BenchArgs,
    error::BenchError,
    machine::Machine,
    report::{Axis, Figure, Goal, Plot, Ratio, Report, Row, Scale, Section, Series},
    scenarios::{LogPlace, Scenario, Settings, run},
    workspace::Workspace,
};
