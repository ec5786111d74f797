//! The data folder: where it is, who holds it, and what the command line finds in it.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hydrant_contracts::{Code, Error, ServerName, ZoneName};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result, system, wrong};

/// Where the running node is: `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningNode {
    pub(crate) pid: u32,
    pub(crate) public: SocketAddr,
    /// Where the outside comes in by TLS, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) local: SocketAddr,
    /// Where the nodes of other servers come in, where there are others.
    #[serde(default)]
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) server: ServerName,
    pub(crate) zone: ZoneName,
    /// How often a new process could not take its place, and why not the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_restarted: Option<NotRestarted>,
}

/// What became of the wish for a new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotRestarted {
    pub(crate) times: u32,
    pub(crate) why: String,
}

/// The folder that is named, else that of the environment, else the usual one.
pub(crate) fn folder(named: Option<&Path>) -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let under = |base: std::ffi::OsString, rest: &str| PathBuf::from(base).join(rest);
    named
        .map(Path::to_owned)
        .or_else(|| variable("HYDRANT_DATA").map(PathBuf::from))
        .or_else(|| variable("XDG_DATA_HOME").map(|base| under(base, "hydrant")))
        .or_else(|| variable("HOME").map(|home| under(home, ".local/share/hydrant")))
        .ok_or_else(|| {
            wrong(
                "no_data_folder",
                "there is no HOME to keep the data folder in",
                "name one with --data DIR",
            )
        })
}

/// The node that runs on the folder, or ran there and was killed; `None` when there was none.
pub(crate) fn running_node(data: &Path) -> Result<Option<RunningNode>> {
    let path = data.join("node.json");
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        wrong(
            "broken_file",
            format!("{} is broken: {error}", path.display()),
            "delete it and start the node again",
        )
    })
}

/// The operator's token; `None` when no node was ever started on the folder.
pub(crate) fn operator_token(data: &Path) -> Result<Option<String>> {
    let text = read(&data.join("operator.token"))?;
    Ok(text.map(|token| token.trim().to_owned()))
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("you may not read {}", path.display());
            let mend = "run as the user who started the node, or name another folder with --data";
            Err(Error::new(Code::PermissionDenied, "not_yours", message)
                .mend(mend)
                .into())
        }
        Err(error) => Err(system(
            format!("cannot read {}", path.display()),
            &error,
            "check the data folder",
        )),
    }
}

/// Whether a living node has taken the folder.
pub(crate) fn is_held(data: &Path) -> bool {
    let lock = File::options().write(true).open(data.join("lock"));
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// The folder as this process's own: no other node can start on it while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    data: PathBuf,
    _lock: File,
    /// What stands in node.json is of this process.
    is_announced: AtomicBool,
}

impl Held {
    /// Makes the folder if there is none, readable by its owner only, and takes it.
    pub(crate) fn take(data: &Path) -> Result<Self> {
        make(data)?;
        // Absolute, so that it means the same to processes with another working folder.
        let data = data
            .canonicalize()
            .map_err(|error| unusable(data, &error))?;
        let path = data.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| unusable(&data, &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                data,
                _lock: lock,
                is_announced: AtomicBool::new(false),
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(&data)),
            Err(error) => Err(unusable(&data, &error.into())),
        }
    }

    /// The folder, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.data
    }

    /// Leaves the folder to another process, which announces itself when it serves.
    pub(crate) fn leave(self) {
        self.is_announced.store(false, Ordering::Relaxed);
    }

    /// Tells the command line where the node is.
    pub(crate) fn announce(&self, node: &RunningNode) -> Result<()> {
        let (path, new) = (self.data.join("node.json"), self.data.join("node.json.new"));
        let text = format!("{}\n", serde_json::to_string(node).unwrap_or_default());
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|error| unusable(&self.data, &error))?;
        self.is_announced.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_announced.load(Ordering::Relaxed) {
            return;
        }
        // Nobody is left to be told when this fails; a stale file says `not running` all the same.
        let _ = std::fs::remove_file(self.data.join("node.json"));
    }
}

fn make(data: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|error| unusable(data, &error))
}

fn in_use(data: &Path) -> Failure {
    let owner = running_node(data).ok().flatten();
    let owner = owner.map_or(String::new(), |node| format!(" (process {})", node.pid));
    wrong(
        "data_in_use",
        format!(
            "the data folder {} is in use by another node{owner}",
            data.display()
        ),
        "stop that one, or name another folder with --data DIR",
    )
}

fn unusable(data: &Path, error: &io::Error) -> Failure {
    wrong(
        "data_unusable",
        format!("the data folder {} can't be used: {error}", data.display()),
        "make it writable, or name another with --data DIR",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_node() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("new/folder");
        let held = Held::take(&data).unwrap();
        let node = RunningNode {
            pid: 7,
            public: "127.0.0.1:1".parse().unwrap(),
            tls: None,
            local: "127.0.0.1:2".parse().unwrap(),
            peer: None,
            server: "one".parse().unwrap(),
            zone: ZoneName::default(),
            not_restarted: None,
        };
        held.announce(&node).unwrap();
        assert_eq!(running_node(&data).unwrap(), Some(node));
        let Err(Failure::Error(error)) = Held::take(&data) else {
            panic!("taken twice");
        };
        assert_eq!(error.exit_code(), 2);
        assert!(error.message.contains("in use by another node (process 7)"));
        assert!(is_held(&data));
        drop(held);
        assert!(!is_held(&data));
        assert_eq!(running_node(&data).unwrap(), None);
        Held::take(&data).unwrap();
    }

    #[test]
    fn a_broken_announcement_says_how_to_mend_it() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("node.json"), "{").unwrap();
        let Err(Failure::Error(error)) = running_node(temp.path()) else {
            panic!("read");
        };
        assert!(error.mend.contains("delete it"));
    }
}
