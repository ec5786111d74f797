//! What `hydrant up` begins with: one form, and two consumers.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The files of the demo, as they come with the program.
const FILES: [(&str, &str); 2] = [
    ("demo.schema.json", include_str!("../demo/demo.schema.json")),
    ("submissions.toml", include_str!("../demo/submissions.toml")),
];

/// Writes the demo's form into `folder`, which is made when missing. A file that is there stays as it is.
/// Returns the path of `submissions.toml`, which [`FORMS`](crate::FORMS) takes.
///
/// # Errors
///
/// If the folder or a file can't be written.
pub fn install_demo(folder: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for (name, text) in FILES {
        match std::fs::File::create_new(folder.join(name)) {
            Ok(mut file) => file.write_all(text.as_bytes())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(folder.join("submissions.toml"))
}
