//! A server of SFTP.

mod connection;
mod pool;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use russh_sftp::client::error::Error;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};

use super::{Content, Depot, Meter, Pieces, next};
use crate::delivery::outcome::Failure;
pub(in crate::delivery) use connection::Connection;
pub(in crate::delivery) use pool::SftpPool;

/// How much goes in one packet, and how many are under way at a time: servers take packets of 34,000 bytes.
const PACKET: usize = 32 * 1024;
const UNDER_WAY: usize = 32;

impl Depot for Connection {
    async fn make_folder(&mut self, path: &str) -> Result<(), Failure> {
        let path = self.path(path);
        let ends = path.match_indices('/').map(|(end, _)| end);
        let ends: Vec<_> = ends.filter(|end| *end > 0).chain([path.len()]).collect();
        // Mostly it is there; else what is missing is made from the outside in.
        if self.stat(&path).await?.is_some() {
            return Ok(());
        }
        for end in ends {
            let made = self.sftp.mkdir(&path[..end], FileAttributes::empty()).await;
            match made {
                // That it is there is told as any other failure.
                Err(Error::Status(_)) if self.stat(&path[..end]).await?.is_some() => {}
                made => drop(made.map_err(told)?),
            }
        }
        Ok(())
    }

    async fn names(&mut self, path: &str) -> Result<Vec<String>, Failure> {
        let folder = self.sftp.opendir(self.path(path)).await.map_err(told)?;
        let mut names = Vec::new();
        loop {
            match self.sftp.readdir(&folder.handle).await {
                Ok(found) => names.extend(found.files.into_iter().map(|file| file.filename)),
                Err(Error::Status(status)) if status.status_code == StatusCode::Eof => break,
                Err(error) => return Err(told(error)),
            }
        }
        self.sftp.close(folder.handle).await.map_err(told)?;
        Ok(names)
    }

    async fn size(&mut self, path: &str) -> Result<Option<u64>, Failure> {
        let attributes = self.stat(&self.path(path)).await?;
        Ok(attributes.map(|attributes| attributes.size.unwrap_or_default()))
    }

    async fn read(&mut self, path: &str) -> Result<Content, Failure> {
        let size = self.size(path).await?.unwrap_or_default();
        let file = self
            .sftp
            .open(self.path(path), OpenFlags::READ, FileAttributes::empty());
        let handle = file.await.map_err(told)?.handle;
        let starts = stream::iter((0..size).step_by(PACKET));
        let pieces = starts.map(|start| {
            let length = (size - start).min(PACKET as u64) as usize;
            self.read_piece(&handle, start, length)
        });
        let mut meter = Meter::default();
        let mut pieces = pieces.buffered(UNDER_WAY);
        while let Some(piece) = pieces.try_next().await? {
            meter.see(&piece);
        }
        drop(pieces);
        self.sftp.close(handle).await.map_err(told)?;
        Ok(meter.content())
    }

    async fn write(&mut self, path: &str, mut pieces: Pieces<'_>) -> Result<Content, Failure> {
        let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
        let file = self
            .sftp
            .open(self.path(path), flags, FileAttributes::empty());
        let handle = file.await.map_err(told)?.handle;
        let mut meter = Meter::default();
        let mut writes = FuturesUnordered::new();
        while let Some(mut piece) = next(&mut pieces).await? {
            while !piece.is_empty() {
                let part: Bytes = piece.split_to(piece.len().min(PACKET));
                let start = meter.size;
                meter.see(&part);
                writes.push(self.sftp.write(&handle, start, part.into()));
                if writes.len() >= UNDER_WAY {
                    writes.try_next().await.map_err(told)?;
                }
            }
        }
        while writes.try_next().await.map_err(told)?.is_some() {}
        drop(writes);
        if self.has_fsync {
            self.sftp.fsync(&handle).await.map_err(told)?;
        }
        self.sftp.close(handle).await.map_err(told)?;
        Ok(meter.content())
    }

    async fn rename(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        let (from, to) = (self.path(from), self.path(to));
        match self.has_posix_rename {
            true => self.posix_rename(&from, &to).await,
            false => self.sftp.rename(from, to).await.map(drop).map_err(told),
        }
    }

    async fn remove(&mut self, path: &str) -> Result<(), Failure> {
        match self.sftp.remove(self.path(path)).await {
            Err(error) if !is_missing(&error) => Err(told(error)),
            _ => Ok(()),
        }
    }
}

impl Connection {
    async fn stat(&self, path: &str) -> Result<Option<FileAttributes>, Failure> {
        match self.sftp.stat(path).await {
            Ok(found) => Ok(Some(found.attrs)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(told(error)),
        }
    }

    /// A server may give less than was asked for.
    async fn read_piece(
        &self,
        handle: &str,
        start: u64,
        length: usize,
    ) -> Result<Vec<u8>, Failure> {
        let mut piece = Vec::with_capacity(length);
        while piece.len() < length {
            let (start, left) = (start + piece.len() as u64, length - piece.len());
            let found = self
                .sftp
                .read(handle, start, left as u32)
                .await
                .map_err(told)?;
            if found.data.is_empty() || found.data.len() > left {
                return Err(Failure::failing("the server's file ends before its end"));
            }
            piece.extend_from_slice(&found.data);
        }
        Ok(piece)
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Status(status) if status.status_code == StatusCode::NoSuchFile)
}

/// What a server writes itself is not told: it may name files.
fn told(error: Error) -> Failure {
    match error {
        Error::Status(status) => match status.status_code {
            StatusCode::PermissionDenied => Failure::failing("the server denies permission"),
            StatusCode::Failure => {
                Failure::failing("the server failed: there may be no space left, or no permission")
            }
            code => Failure::failing(format!("the server said: {code}")),
        },
        Error::Timeout => Failure::away("the server did not answer in time"),
        _ => Failure::away("the connection to the server broke"),
    }
}
