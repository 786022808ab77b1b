//! Roost, a timeline fan-out engine.

#![deny(missing_docs)]

pub mod client;
pub mod domain;
pub mod event_log;
pub mod load;
pub mod proto;
