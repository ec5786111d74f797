//! Programs that nobody of this project wrote, out of npm and PyPI: installed once per target
//! folder.

use std::path::{Path, PathBuf};

use hydrant_harness::foreign;

const TARGET: &str = env!("CARGO_TARGET_TMPDIR");

/// The folder with the scripts for Node and the packages that they need. When they can't be had,
/// that is said aloud.
pub fn npm() -> Option<PathBuf> {
    foreign::npm(Path::new(TARGET))
}

/// The same for Python: to be put into `PYTHONPATH`.
pub fn pypi() -> Option<PathBuf> {
    foreign::pypi(Path::new(TARGET))
}

/// Carbon with what it needs: to be put into `PYTHONPATH`.
pub fn graphite() -> Option<PathBuf> {
    foreign::graphite(Path::new(TARGET))
}
