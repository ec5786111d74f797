//! How much memory all uploads of a process take together: room is given out in parts, and who gets none
//! writes what it has.

use std::sync::Arc;
use std::time::Duration;

use hydrant_sdk::{Code, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// One part, in bytes.
const PART: usize = 64 * 1024;
/// How long somebody waits for a part.
const PATIENCE: Duration = Duration::from_secs(30);

/// The room of a process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

/// The bytes of a piece that is coming, within its room.
pub(super) struct Basin {
    room: Room,
    bytes: Vec<u8>,
    /// As many parts as the bytes may take.
    permit: Option<OwnedSemaphorePermit>,
    most: usize,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(PART))))
    }

    /// Room for so many bytes, as soon as there is some.
    ///
    /// # Errors
    ///
    /// If there is none for too long.
    pub(super) async fn wait(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let parts = bytes.div_ceil(PART).max(1) as u32;
        let permit = timeout(PATIENCE, self.0.clone().acquire_many_owned(parts)).await;
        permit.ok().and_then(Result::ok).ok_or_else(busy)
    }

    fn try_take(&self, parts: usize) -> Option<OwnedSemaphorePermit> {
        let parts = u32::try_from(parts).ok()?;
        self.0.clone().try_acquire_many_owned(parts).ok()
    }
}

impl Basin {
    /// An empty one, for at most so many bytes.
    pub(super) fn new(room: Room, most: usize) -> Self {
        Self {
            room,
            bytes: Vec::new(),
            permit: None,
            most,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes from the front of `chunk` what there is room for, and tells how many bytes that is. None means:
    /// empty it first. An empty one waits for room.
    ///
    /// # Errors
    ///
    /// If there is no room for too long.
    pub(super) async fn fill(&mut self, chunk: &[u8]) -> Result<usize, Error> {
        let wanted = chunk.len().min(self.most - self.bytes.len());
        if self.bytes.len() + wanted > self.bytes.capacity() {
            self.grow(wanted).await?;
        }
        let taken = wanted.min(self.bytes.capacity() - self.bytes.len());
        self.bytes.extend_from_slice(&chunk[..taken]);
        Ok(taken)
    }

    /// Grows by doubling, so that a slow upload takes little; not at all when there is no room.
    async fn grow(&mut self, by: usize) -> Result<(), Error> {
        let needed = (self.bytes.len() + by).div_ceil(PART);
        let wanted = needed.max(self.parts() * 2).min(self.most.div_ceil(PART));
        let mut permit = match self.permit.take() {
            Some(permit) => permit,
            None => self.room.wait(PART).await?,
        };
        if let Some(more) = self.room.try_take(wanted - permit.num_permits()) {
            permit.merge(more);
        }
        self.permit = Some(permit);
        let capacity = (self.parts() * PART).min(self.most);
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    fn parts(&self) -> usize {
        self.permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// What is in it, with its room; it is empty then.
    pub(super) fn take(&mut self) -> (Vec<u8>, Option<OwnedSemaphorePermit>) {
        (std::mem::take(&mut self.bytes), self.permit.take())
    }
}

pub(super) fn busy() -> Error {
    let message = "too many uploads are under way here";
    let mut error = Error::new(Code::Unavailable, "too_busy", message)
        .mend("go on with the upload in a moment");
    error.retryable = true;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pour(basin: &mut Basin, bytes: usize) -> usize {
        basin.fill(&vec![7; bytes]).await.unwrap()
    }

    #[tokio::test]
    async fn a_basin_takes_up_to_its_most_and_gives_its_room_back() {
        let room = Room::new(4 * PART);
        let mut basin = Basin::new(room.clone(), 3 * PART);
        assert_eq!(pour(&mut basin, 10).await, 10);
        assert_eq!(room.0.available_permits(), 3);
        assert_eq!(pour(&mut basin, 4 * PART).await, 3 * PART - 10);
        assert_eq!(pour(&mut basin, 1).await, 0, "full");
        let (bytes, permit) = basin.take();
        assert_eq!(bytes.len(), 3 * PART);
        assert_eq!(room.0.available_permits(), 1);
        drop(permit);
        assert_eq!(room.0.available_permits(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_more_room_is_told_to_empty_and_who_has_none_waits() {
        let room = Room::new(2 * PART);
        let [mut one, mut other] = [(); 2].map(|()| Basin::new(room.clone(), 8 * PART));
        assert_eq!(pour(&mut one, PART).await, PART);
        assert_eq!(pour(&mut other, 10).await, 10);
        assert_eq!(pour(&mut one, PART).await, 0);
        drop(one.take());
        assert_eq!(pour(&mut other, PART).await, PART);
        let refused = one.fill(&[1]).await.unwrap_err();
        assert_eq!(refused.reason, "too_busy");
    }
}
