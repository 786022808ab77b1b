//! `roost bench`: how fast Roost is on this machine, beside the machine's own limits
//! and beside the ways in which others write timelines, all in one run.
//!
//! ```text
//!  settings ─► town: posts and readers ─┬─► drain: log ─► workers ─► store
//!                                       ├─► rivals: the same deliveries, written as others do
//!                                       └─► ceiling: the same commands, packed beforehand
//!                                                  │
//!                          report (JSON, page) ◄───┘
//! ```
//!
//! What is measured beside each other is measured in the same process, one after the
//! other, on the same graph and the same posts. It sees both sides of the wire: the
//! engine's parts, and the load generator.

mod args;
mod audience;
mod ceiling;
mod closed_loop;
mod drain;
mod error;
mod html;
mod machine;
mod mixed;
mod publish;
mod read;
mod redis;
mod report;
mod rivals;
mod roost;
mod scenarios;
mod serving;
mod throughput;
mod town;

pub use self::{
    args::BenchArgs,
    error::BenchError,
    machine::Machine,
    report::{Figure, Goal, Ratio, Report, Row, Section},
    scenarios::{Scenario, Settings, run},
};
