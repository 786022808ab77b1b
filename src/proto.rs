//! The code generated from `proto/`: what stands on the wire and in the log.

// Generated code answers to its generator, not to this crate's lints.
#![allow(clippy::all, clippy::pedantic, missing_docs)]

pub mod codec;

/// The public gRPC API, `roost.v1`.
pub mod v1 {
    tonic::include_proto!("roost.v1");
}

/// The entries of the event log, `roost.log.v1`.
pub mod log_v1 {
    tonic::include_proto!("roost.log.v1");
}

/// The descriptors of all of it, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
