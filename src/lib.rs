//! Roost, a timeline fan-out engine.

#![deny(missing_docs)]

pub mod app;
pub mod cli;
pub mod client;
pub mod data_dir;
pub mod domain;
mod durable_file;
pub mod event_log;
pub mod fanout;
pub mod grpc;
pub mod home_timeline;
pub mod load;
pub mod post_id;
pub mod proto;
pub mod store;
pub mod writes;
