use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hydrant_contracts::{InstanceId, ServiceId, Version};
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// What the next node must know of a process to take it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) service: ServiceId,
    pub(super) version: Version,
    pub(super) slot: u32,
    pub(super) instance: InstanceId,
    /// What it was started from: another one means that it is out of date.
    pub(super) fingerprint: String,
    pub(super) restarts: u32,
    /// `None` is an intent: it may have been started, as whichever process carries the instance
    /// in its environment.
    pub(super) process: Option<ProcessId>,
}

/// The records, a small file for each instance.
///
/// They need no flush to the disk: they outlive the node, and no process outlives the machine.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Writes a record whole or not at all.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.instance);
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec(record)?)?;
        fs::rename(&partial, &path)
    }

    pub(super) fn remove(&self, instance: &InstanceId) {
        let path = self.path(instance);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove a record");
        }
    }

    /// Every record of earlier nodes. One that can't be read is told and left out.
    pub(super) fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.extend(read(&path));
            }
        }
        records.sort_by(|a: &Record, b| (a.slot, &a.instance).cmp(&(b.slot, &b.instance)));
        Ok(records)
    }

    fn path(&self, instance: &InstanceId) -> PathBuf {
        self.folder.join(format!("{instance}.json"))
    }
}

fn read(path: &Path) -> Option<Record> {
    let record = fs::read(path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    record
        .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "unreadable record"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_broken_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path().join("supervisor")).unwrap();
        let mut record = Record {
            service: "api/a".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            slot: 1,
            instance: "a-1".parse().unwrap(),
            fingerprint: "f".into(),
            restarts: 2,
            process: None,
        };
        records.save(&record).unwrap();
        record.process = ProcessId::of(std::process::id());
        records.save(&record).unwrap();
        fs::write(folder.path().join("supervisor/b-1.json"), "{").unwrap();
        fs::write(folder.path().join("supervisor/c-1.partial"), "{").unwrap();
        assert_eq!(records.load().unwrap(), [record.clone()]);
        records.remove(&record.instance);
        records.remove(&record.instance);
        assert_eq!(records.load().unwrap(), []);
    }
}
