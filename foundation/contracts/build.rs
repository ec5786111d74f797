//! Compiles the .proto files to Rust without `protoc`, which is not on users' machines.

use std::path::PathBuf;

use prost::Message as _;

const FILES: &[&str] = &[
    "hydrant/v1/election.proto",
    "hydrant/v1/error.proto",
    "hydrant/v1/kept.proto",
    "hydrant/v1/lease.proto",
    "hydrant/v1/lock.proto",
    "hydrant/v1/node.proto",
    "hydrant/v1/registry.proto",
    "hydrant/v1/rules.proto",
    "hydrant/v1/state.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("hydrant.binpb");
    std::fs::write(&descriptors, compiler.file_descriptor_set().encode_to_vec())?;
    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(FILES)
        .include_file("_connectrpc.rs")
        // It would name the descriptors, which are written anew by each run: every build would be a whole one.
        .emit_rerun_directives(false)
        .compile()?;
    Ok(())
}
