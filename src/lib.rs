//! Roost, a timeline fan-out engine for a large microblog.
//!
//! home(u) = the posts among those written or reposted by u and by the accounts u follows
//! now, newest first, without the deleted, the muted and the blocked. All that follows is
//! a way to make that cheap.
//!
//! ```text
//!  grpc ──► writes ──► event_log ──► fanout ──► store ◄── home_timeline ◄── grpc
//! ```
//!
//! In reading order:
//!
//! 1. [`domain`]: accounts, posts, events. [`proto`]: the same on the wire.
//! 2. [`event_log`]: the truth, a partitioned log; [`post_id`]: ids that only grow.
//! 3. [`store`]: everything derived from the log, and the two rules that keep
//!    timelines exact while everything runs at once.
//! 4. [`fanout`]: the worker, from events to timelines; [`audit`]: what looks whether these are
//!    what they should be.
//! 5. [`home_timeline`]: the read; [`home_stream`]: the same as it grows; [`inbox`]: what an
//!    account is told of; [`thread`]: what answers a post; [`reading`]: what has come since a
//!    reader last looked; [`post_counts`]: what has become of a post. [`writes`]: the write.
//! 6. [`grpc`], [`app`], [`cli`], [`data_dir`], [`free_space`]: how it is offered, joined and run.
//! 7. [`listener`]: the connections of clients, and how many there are. [`telemetry`]: what an
//!    operator sees.
//! 8. [`client`], [`load`] and [`rss`]: the other side of the wire.
//! 9. [`mod@bench`]: how fast all of it is; it sees both sides.
//!
//! # Invariants
//!
//! - Arrows point one way: `cli → app → {grpc, fanout, audit, home_stream, home_timeline, inbox,
//!   post_counts, reading, thread, writes} → {event_log, store} → domain`. Only `app` names the
//!   backends, and `cli` where it reads their settings; only
//!   `store::embedded` sees fjall, only `store::redis` the redis crate, and only
//!   `event_log::kafka` rdkafka, only `telemetry` prometheus-client; tonic is seen by `grpc`, `client`,
//!   `load`, `rss` and, to start the server, by `app`. `bench` sees whatever it measures Roost beside.
//! - The API writes to the log and to nothing else; the worker of a partition is
//!   the only one that applies its events.
//! - Decisions have no I/O: `fanout::{plan, combine, queue, pull_rule}`,
//!   `home_timeline::{catch_up, filter, merge, once, pull}`, `home_stream::position`,
//!   `writes::draft`, the frames of the log, `store::hides`, the lists and sets of the store.
//! - Nothing waits for a disk on an async thread, and what queues has a bound,
//!   beside which stands what happens when it is full; the list of bounds, and of
//!   what has none, is in `ARCHITECTURE.md`.
//! - Whoever counts has a handle of [`telemetry`] that it was given; it depends on
//!   nothing else here, and there are no globals.
//! - `client`, `load` and `rss` share no code with the engine beside `domain` and
//!   `proto`, so that what they verify is verified by another; `rss` keeps its state
//!   with the same `durable_file`.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod bench;
pub mod cli;
pub mod client;
pub mod data_dir;
pub mod domain;
mod durable_file;
pub mod event_log;
pub mod fanout;
pub mod free_space;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod grpc;
pub mod home_stream;
pub mod home_timeline;
pub mod inbox;
mod input;
pub mod listener;
pub mod load;
pub mod post_counts;
pub mod post_id;
pub mod proto;
pub mod reading;
pub mod rss;
pub mod store;
pub mod telemetry;
pub mod thread;
mod vital_thread;
pub mod writes;
