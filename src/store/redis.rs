//! The Redis store, standalone and Cluster. So far, its push path.
//!
//! ```text
//!  Pushes ──► push: by node, sorted ──► pool ──► node: one pipeline ──► Redis
//!                ▲      │ slots                    │ resp: pack, scan
//!                └──────┴── only what was refused ◄┘
//! ```

pub mod config;
pub mod error;
pub mod node;
pub mod pool;
pub mod push;
pub mod resp;
pub mod slots;
mod tls;
mod topology;
