//! The way to one consumer, of whatever kind.

use std::sync::Arc;

use hydrant_sdk::{Code, Error};

use super::files::{FolderDepot, SftpPool, deliver_files};
use super::lease::Held;
use super::outcome::{Done, Failure};
use super::rest::RestCourier;
use super::source::Source;
use crate::forms::{Consumer, Place};
use crate::proto::Task;

pub(super) struct Courier {
    consumer: Arc<Consumer>,
    source: Source,
    way: Way,
}

enum Way {
    Rest(RestCourier),
    Sftp(SftpPool),
    Folder,
}

impl Courier {
    pub(super) fn new(
        name: &str,
        consumer: &Arc<Consumer>,
        source: &Source,
    ) -> Result<Self, Error> {
        let refused = |why: String| {
            let message = format!("the consumer `{name}`: {why}");
            Error::new(Code::InvalidArgument, "bad_configuration", message)
        };
        let way = match &consumer.place {
            Place::Rest(rest) => Way::Rest(RestCourier::new(rest).map_err(refused)?),
            Place::Sftp(_) => Way::Sftp(SftpPool::default()),
            Place::Folder(_) => Way::Folder,
        };
        Ok(Self {
            consumer: Arc::clone(consumer),
            source: source.clone(),
            way,
        })
    }

    /// Brings a submission there.
    pub(super) async fn deliver(&self, task: &Task, held: &Held) -> Result<Done, Failure> {
        match (&self.consumer.place, &self.way) {
            (Place::Rest(rest), Way::Rest(courier)) => courier.deliver(rest, task).await,
            (Place::Sftp(sftp), Way::Sftp(pool)) => {
                let mut connection = pool.take(sftp).await?;
                let done =
                    deliver_files(&mut connection, &sftp.name, task, &self.source, held).await?;
                pool.give_back(connection);
                Ok(done)
            }
            (Place::Folder(folder), _) => {
                let mut depot = FolderDepot::new(&folder.path);
                deliver_files(&mut depot, &folder.name, task, &self.source, held).await
            }
            _ => Err(Failure::ours("the way to this consumer is not known")),
        }
    }
}
