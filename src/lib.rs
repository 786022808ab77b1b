//! Roost, a timeline fan-out engine.

#![deny(missing_docs)]

pub mod data_dir;
pub mod domain;
mod durable_file;
pub mod event_log;
pub mod proto;
