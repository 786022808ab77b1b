//! Compiles the protocol files without a system `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

const PROTO_ROOT: &str = "proto";
const PROTO_FILES: [&str; 8] = [
    "roost/v1/annotations.proto",
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
    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler.include_source_info(true).include_imports(true).open_files(PROTO_FILES)?;
    // gRPC reflection serves this file, and the server reads the options of the methods from it.
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .codec_path("crate::proto::codec::StrictCodec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
