//! Bytes in memory: those that were asked for last, up to a size. What several ask for at once is
//! fetched once.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hydrant_sdk::{Code, Error};

/// The most fetches that are under way.
const MAX_FLIGHTS: usize = 32;

/// What is kept, and what is on its way.
pub(super) struct Shelf {
    room: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    kept: HashMap<String, Kept>,
    /// The names by when they were asked for last.
    order: BTreeMap<u64, String>,
    turn: u64,
    size: usize,
    flights: HashMap<String, Flight>,
}

struct Kept {
    bytes: Bytes,
    asked: u64,
}

type Flight = Shared<BoxFuture<'static, Result<Bytes, Error>>>;

impl Shelf {
    /// Keeps up to so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            inner: Mutex::default(),
        }
    }

    /// The bytes of this name: kept ones, or what `fetch` finds. The fetch goes on when who asked
    /// does not wait any more: the next one will.
    ///
    /// # Errors
    ///
    /// What the fetch failed with; also when too many are under way.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        name: &str,
        fetch: impl FnOnce() -> F,
    ) -> Result<Bytes, Error>
    where
        F: Future<Output = Result<Bytes, Error>> + Send + 'static,
    {
        let flight = {
            let mut inner = self.lock();
            if let Some(bytes) = inner.find(name) {
                return Ok(bytes);
            }
            match inner.flights.get(name) {
                Some(flight) => flight.clone(),
                None if inner.flights.len() >= MAX_FLIGHTS => return Err(too_many()),
                None => self.begin(&mut inner, name, fetch()),
            }
        };
        flight.await
    }

    fn begin<F>(self: &Arc<Self>, inner: &mut Inner, name: &str, fetch: F) -> Flight
    where
        F: Future<Output = Result<Bytes, Error>> + Send + 'static,
    {
        let landing = Landing {
            shelf: Arc::clone(self),
            name: name.to_owned(),
        };
        let task = tokio::spawn(async move {
            let fetched = fetch.await;
            if let Ok(bytes) = &fetched {
                landing.shelf.keep(&landing.name, bytes);
            }
            drop(landing);
            fetched
        });
        let flight = task.map(|ended| ended.unwrap_or_else(|_| Err(failed())));
        let flight = flight.boxed().shared();
        inner.flights.insert(name.to_owned(), flight.clone());
        flight
    }

    fn keep(&self, name: &str, bytes: &Bytes) {
        self.lock().keep(name, bytes, self.room);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a fetch off the list, however it ends.
struct Landing {
    shelf: Arc<Shelf>,
    name: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shelf.lock().flights.remove(&self.name);
    }
}

impl Inner {
    fn find(&mut self, name: &str) -> Option<Bytes> {
        let kept = self.kept.get_mut(name)?;
        self.turn += 1;
        if let Some(name) = self.order.remove(&kept.asked) {
            self.order.insert(self.turn, name);
        }
        kept.asked = self.turn;
        Some(kept.bytes.clone())
    }

    fn keep(&mut self, name: &str, bytes: &Bytes, room: usize) {
        if bytes.len() > room || self.kept.contains_key(name) {
            return;
        }
        while self.size + bytes.len() > room
            && let Some((_, oldest)) = self.order.pop_first()
        {
            let removed = self.kept.remove(&oldest);
            self.size -= removed.map_or(0, |kept| kept.bytes.len());
        }
        self.turn += 1;
        self.size += bytes.len();
        self.order.insert(self.turn, name.to_owned());
        let kept = Kept {
            bytes: bytes.clone(),
            asked: self.turn,
        };
        self.kept.insert(name.to_owned(), kept);
    }
}

fn too_many() -> Error {
    let message = "too many images are being fetched";
    Error::new(Code::Unavailable, "busy", message)
}

fn failed() -> Error {
    Error::new(
        Code::Internal,
        "image_failed",
        "the image could not be fetched",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_cause_one_fetch() {
        let shelf = Arc::new(Shelf::new(100));
        let (fetches, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (shelf, fetches, gate) = (shelf.clone(), fetches.clone(), gate.clone());
            tokio::spawn(async move {
                let fetch = || async move {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.acquire().await;
                    Ok(Bytes::from_static(b"apple"))
                };
                shelf.get("a", fetch).await
            })
        };
        let asked: Vec<_> = (0..50).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        asked[0].abort();
        gate.add_permits(1);
        for one in asked.into_iter().skip(1) {
            assert_eq!(one.await.unwrap().unwrap(), "apple");
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        assert!(shelf.lock().flights.is_empty());
    }

    #[tokio::test]
    async fn a_fetch_that_fails_is_tried_again_by_the_next_who_asks() {
        let shelf = Arc::new(Shelf::new(100));
        assert!(shelf.get("a", || async { Err(failed()) }).await.is_err());
        assert!(
            shelf
                .get("a", || async { panic!("as a bug would") })
                .await
                .is_err()
        );
        let good = shelf
            .get("a", || async { Ok(Bytes::from_static(b"b")) })
            .await;
        assert_eq!(good.unwrap(), "b");
    }

    #[tokio::test]
    async fn fetches_under_way_are_bounded() {
        let shelf = Arc::new(Shelf::new(100));
        for name in 0..MAX_FLIGHTS {
            let (shelf, name) = (shelf.clone(), name.to_string());
            tokio::spawn(async move { shelf.get(&name, std::future::pending).await });
        }
        tokio::task::yield_now().await;
        let refused = shelf.get("more", std::future::pending).await.unwrap_err();
        assert_eq!(refused.http_status(), 503);
    }

    proptest! {
        #[test]
        fn what_was_asked_for_last_is_kept_within_the_room(
            asked in proptest::collection::vec((0usize..12, 1usize..40), 1..80),
        ) {
            let mut inner = Inner::default();
            let mut last: Vec<usize> = Vec::new();
            for (name, size) in asked {
                let size = size + name;
                if inner.find(&name.to_string()).is_none() {
                    inner.keep(&name.to_string(), &vec![0; size].into(), 100);
                }
                last.retain(|one| *one != name);
                last.push(name);
                let sizes: usize = inner.kept.values().map(|kept| kept.bytes.len()).sum();
                prop_assert_eq!(sizes, inner.size);
                prop_assert!(sizes <= 100);
                prop_assert_eq!(inner.order.len(), inner.kept.len());
                let kept: Vec<usize> = inner.order.values().map(|name| name.parse().unwrap()).collect();
                prop_assert_eq!(&last[last.len() - kept.len()..], &kept[..]);
            }
        }
    }
}
