//! Files of keys and certificates: written whole, keys readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use hydrant_contracts::{Code, Error};

use crate::failure::{Failure, Result, system, wrong};

/// The largest file that is read: far more than any chain of certificates has.
const MAX_FILE: u64 = 1 << 20;

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    Owner,
    All,
}

/// Makes a folder that only its owner can look into, when there is none.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|error| cannot("make the folder", path, &error))
}

/// Writes a file whole or not at all; over one that is there.
pub(super) fn write(path: &Path, content: &[u8], readers: Readers) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    let written = || -> io::Result<()> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(match readers {
                Readers::Owner => 0o600,
                Readers::All => 0o644,
            })
            .open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    written().map_err(|error| cannot("write", path, &error))
}

/// Reads a file that anybody may read. `mend` says how to come by it when it is not there.
pub(super) fn read(path: &Path, mend: &str) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(wrong(
            "file_missing",
            format!("there is no {}", path.display()),
            mend,
        )),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

/// Reads a file that nobody but its owner may read, and fails when others may.
pub(super) fn read_secret(path: &Path, mend: &str) -> Result<Vec<u8>> {
    let content = read(path, mend)?;
    let mode = fs::metadata(path)
        .map_err(|error| cannot("read", path, &error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(wrong(
            "key_is_open",
            format!(
                "other users of this machine may read the key {} (mode {:03o})",
                path.display(),
                mode & 0o777
            ),
            format!("close it with `chmod 600 {}`", path.display()),
        ));
    }
    Ok(content)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot {what} {}", path.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        let error = Error::new(
            Code::PermissionDenied,
            "not_yours",
            format!("{what}: {error}"),
        );
        return error.mend("run as the user to whom it belongs").into();
    }
    system(what, error, "check the folder and its disk")
}
