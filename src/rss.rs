//! `roost rss`: polls feeds, and posts what is new in them.
//!
//! ```text
//!  list ──► poll ──► fetch ──► parse ──► state: what is new? ──► outbox ──► publish ──► Roost
//!           ▲  (HTTP, bounded)              (pure)               │            │
//!           └── schedule: when again?                   state_dir, before    and after
//! ```
//!
//! What is new is written down in the outbox of its feed before any of it is posted, and
//! leaves it once Roost has acknowledged it. So nothing is lost while Roost is away, and
//! what has left the feed meanwhile is posted all the same. Whoever dies between the two
//! sends it again under the same request id, which follows from the feed and the entry
//! alone: Roost makes one post of it, for ever, so that the state may be old or gone too.
//!
//! Decisions have no I/O: `destination`, `exchange`, `shown_url`, `body`, `parse` with the readers
//! behind it, `entry`, `text`, `state`, `schedule`. Only `fetch` and `connect` see hyper, and only
//! `publish` tonic.

mod args;
mod body;
mod connect;
mod date;
mod decode;
mod destination;
mod entry;
mod error;
mod exchange;
mod fetch;
mod json_feed;
mod list;
mod markup;
mod parse;
mod poll;
mod publish;
mod run;
mod schedule;
mod settings;
mod shown_url;
mod slots;
mod state;
mod state_dir;
mod text;
mod vocabulary;
mod xml_entry;
mod xml_feed;

pub use args::RssArgs;
pub use error::RssError;
