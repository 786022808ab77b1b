//! Compiles the protocol files without a system `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTO_ROOT: &str = "proto";
const PROTO_FILES: [&str; 7] = [
    "roost/v1/posts.proto",
    "roost/v1/graph.proto",
    "roost/v1/timelines.proto",
    "roost/v1/notifications.proto",
    "roost/v1/messages.proto",
    "roost/v1/status.proto",
    "roost/log/v1/event.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_ROOT}");
    let descriptors = protox::compile(PROTO_FILES, [PROTO_ROOT])?;
    // gRPC reflection serves this file.
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
