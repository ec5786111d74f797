//! A folder of this server.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Content, Depot, Meter, Pieces, next};
use crate::delivery::outcome::Failure;

/// How much is read at a time.
const PIECE: usize = 256 * 1024;

pub(in crate::delivery) struct FolderDepot {
    path: PathBuf,
}

impl FolderDepot {
    pub(in crate::delivery) fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// What happens in a folder is on disk when the folder is.
    async fn sync_folder_of(&self, path: &str) -> Result<(), Failure> {
        let path = self.path.join(path);
        let folder = path.parent().unwrap_or(&self.path);
        let folder = File::open(folder).await.map_err(told)?;
        folder.sync_all().await.map_err(told)
    }
}

impl Depot for FolderDepot {
    async fn make_folder(&mut self, path: &str) -> Result<(), Failure> {
        fs::create_dir_all(self.path.join(path))
            .await
            .map_err(told)?;
        let mut made = path;
        loop {
            self.sync_folder_of(made).await?;
            match made.rsplit_once('/') {
                Some((around, _)) => made = around,
                None => return Ok(()),
            }
        }
    }

    async fn names(&mut self, path: &str) -> Result<Vec<String>, Failure> {
        let mut entries = fs::read_dir(self.path.join(path)).await.map_err(told)?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(told)? {
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    async fn size(&mut self, path: &str) -> Result<Option<u64>, Failure> {
        match fs::metadata(self.path.join(path)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(error)),
        }
    }

    async fn read(&mut self, path: &str) -> Result<Content, Failure> {
        let mut file = File::open(self.path.join(path)).await.map_err(told)?;
        let (mut meter, mut piece) = (Meter::default(), vec![0; PIECE]);
        loop {
            match file.read(&mut piece).await.map_err(told)? {
                0 => return Ok(meter.content()),
                count => meter.see(&piece[..count]),
            }
        }
    }

    async fn write(&mut self, path: &str, mut pieces: Pieces<'_>) -> Result<Content, Failure> {
        let mut file = File::create(self.path.join(path)).await.map_err(told)?;
        let mut meter = Meter::default();
        while let Some(piece) = next(&mut pieces).await? {
            meter.see(&piece);
            file.write_all(&piece).await.map_err(told)?;
        }
        file.flush().await.map_err(told)?;
        file.sync_all().await.map_err(told)?;
        Ok(meter.content())
    }

    async fn rename(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        let (from, last) = (self.path.join(from), self.path.join(to));
        fs::rename(from, last).await.map_err(told)?;
        self.sync_folder_of(to).await
    }

    async fn remove(&mut self, path: &str) -> Result<(), Failure> {
        match fs::remove_file(self.path.join(path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(error)),
            _ => Ok(()),
        }
    }
}

/// The kind of an error of this system has no path and no content in it.
fn told(error: io::Error) -> Failure {
    Failure::failing(format!("the folder can't be used: {}", error.kind()))
}
