//! Compiles the `.proto` files of a service, for its build script. Needs no `protoc`.
//!
//! ```no_run
//! // build.rs
//! fn main() -> hydrant_build::Result {
//!     hydrant_build::compile("proto", &["greeter.proto"])
//! }
//! ```
//!
//! The service then has its messages, traits and clients by
//!
//! ```text
//! mod proto {
//!     connectrpc::include_generated!();
//! }
//! ```
//!
//! and needs the crates `buffa`, `connectrpc` (with the feature `client`) and `serde`, which the
//! generated code names.

use std::path::{Path, PathBuf};

use prost::Message as _;

/// What a build script's `main` returns.
pub type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// Compiles `files`, whose paths are written relative to the folder `root`, as imports in them
/// are. The build script runs again when anything below `root` changes.
///
/// # Errors
///
/// If a file can't be read or compiled, with its place, or if this is not a build script.
pub fn compile(root: impl AsRef<Path>, files: &[&str]) -> Result {
    let root = root.as_ref();
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.binpb");
    std::fs::write(&descriptors, describe(root, files)?)?;
    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(files)
        .include_file("_connectrpc.rs")
        // It would name the descriptors, which are written anew by each run: every build would be a whole one.
        .emit_rerun_directives(false)
        .compile()?;
    Ok(())
}

/// The encoded descriptors of the files and of all that they import.
fn describe(root: &Path, files: &[&str]) -> std::result::Result<Vec<u8>, protox::Error> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(files)?;
    Ok(compiler.file_descriptor_set().encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_a_file_is_an_error_with_its_place() {
        let root = std::env::temp_dir().join(format!("hydrant-build-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("good.proto"), "syntax = \"proto3\"; message A {}").unwrap();
        std::fs::write(root.join("bad.proto"), "syntax = \"proto3\"; message {}").unwrap();
        assert!(!describe(&root, &["good.proto"]).unwrap().is_empty());
        let error = describe(&root, &["bad.proto"]).unwrap_err();
        assert_eq!(error.file(), Some("bad.proto"), "{error}");
        assert!(describe(&root, &["missing.proto"]).is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
