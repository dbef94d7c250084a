//! Compiles the protocol files with protox, which is pure Rust: nobody who builds this project needs protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 7] = [
    "avtomatika/v1/job.proto",
    "avtomatika/v1/explain.proto",
    "avtomatika/v1/webhook.proto",
    "avtomatika/v1/migrate.proto",
    "avtomatika/v1/graph.proto",
    "avtomatika/v1/worker.proto",
    "avtomatika/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For server reflection, so that grpcurl can list and call without having the files.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().codec_path("crate::codec::SmallBuffersCodec").compile_fds(descriptors)?;
    Ok(())
}
