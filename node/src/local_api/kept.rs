//! What a service keeps in coordination: few values, and small ones.

use bytes::Bytes;
use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult};
use hydrant_contracts::proto;
use hydrant_contracts::{Error, ServiceId};
use hydrant_ports::{Expect, InvalidKey, Key};

use super::LocalApi;
use crate::identity::{Access, invalid};

/// Under what all of it stands in coordination.
const KEPT: &str = "kept/";
/// The largest value, in bytes.
const MAX_VALUE: usize = 16 * 1024;
/// The most keys of one service.
const MAX_KEYS: usize = 64;

impl proto::Kept for LocalApi {
    async fn read_kept(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ReadKeptRequest>,
    ) -> ServiceResult<proto::ReadKeptResponse> {
        let who = self.identify(&context)?;
        let space = self
            .authority
            .namespace(&who, request.namespace, Access::Read)?;
        let key = key(&space, request.key)?;
        let found = self.coordination.get(&key).await.map_err(Error::from)?;
        Response::ok(proto::ReadKeptResponse {
            revision: found.as_ref().map_or(0, |found| found.revision),
            value: found.map(|found| found.value.to_vec()),
            ..Default::default()
        })
    }

    async fn write_kept(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::WriteKeptRequest>,
    ) -> ServiceResult<proto::WriteKeptResponse> {
        let who = self.identify(&context)?;
        let space = self
            .authority
            .namespace(&who, request.namespace, Access::Write)?;
        let key = key(&space, request.key)?;
        if request.value.len() > MAX_VALUE {
            let message = format!("what is kept has at most {MAX_VALUE} bytes");
            return Err(invalid("too_large", message).into());
        }
        let expect = match request.expected_revision {
            0 => Expect::Absent,
            revision => Expect::Revision(revision),
        };
        if expect == Expect::Absent {
            self.check_room(&space).await?;
        }
        let value = Bytes::copy_from_slice(request.value);
        let written = self.coordination.put(&key, value, expect).await;
        Response::ok(proto::WriteKeptResponse {
            revision: written.map_err(Error::from)?,
            ..Default::default()
        })
    }
}

impl LocalApi {
    /// Whether one more key fits. Two that ask at the same time may both pass: the limit is against those that make
    /// ever more.
    async fn check_room(&self, space: &ServiceId) -> Result<(), Error> {
        let prefix = format!("{KEPT}{space}/").parse().map_err(invalid_key)?;
        let keys = self.coordination.list(&prefix).await.map_err(Error::from)?;
        match keys.len() < MAX_KEYS {
            true => Ok(()),
            false => {
                let message = format!("{space} keeps {MAX_KEYS} values already");
                Err(invalid("too_many", message).mend("keep what is many as state"))
            }
        }
    }
}

fn key(space: &ServiceId, name: &str) -> Result<Key, Error> {
    format!("{KEPT}{space}/{name}").parse().map_err(invalid_key)
}

fn invalid_key(error: InvalidKey) -> Error {
    invalid("invalid_key", error.to_string())
}
