//! From many requests of apps to few calls of the service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_runtime::Backoff;
use hydrant_sdk::{Code, Error, Hydrant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::AGAIN;
use crate::experiments::MAX_ITEMS;
use crate::proto::{
    ExposeRequest, Exposure, MeasureRequest, Measurement, ObservedResponse, Refusal,
};

/// How many requests wait for their turn.
const WAITING: usize = 512;

/// What waits to be handed to the service. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Reports {
    pub(super) exposures: Queue<Exposure>,
    pub(super) metrics: Queue<Measurement>,
}

impl Reports {
    /// Hands on what comes, for as long as the service runs.
    pub(crate) async fn forward(self, hydrant: Hydrant) -> Result<(), Error> {
        let to = hydrant.clone();
        let expose = move |exposures| {
            let request = ExposeRequest {
                exposures,
                ..Default::default()
            };
            call(to.clone(), "Expose", request)
        };
        let measure = move |measurements| {
            let request = MeasureRequest {
                measurements,
                ..Default::default()
            };
            call(hydrant.clone(), "Measure", request)
        };
        tokio::join!(
            self.exposures.serve(expose, AGAIN),
            self.metrics.serve(measure, AGAIN)
        );
        Ok(())
    }
}

/// What calls the service with items.
type Answered = BoxFuture<'static, Result<ObservedResponse, Error>>;

fn call<Req>(hydrant: Hydrant, method: &'static str, request: Req) -> Answered
where
    Req: buffa::Message + connectrpc::JsonSerialize + Send + Sync + 'static,
{
    let endpoint = format!("/service/mobile/hydrant.mobile.v1.Observations/{method}");
    Box::pin(async move { hydrant.call(&endpoint, request).await })
}

/// The items of one request, on their way.
struct Load<T> {
    items: Vec<T>,
    answer: oneshot::Sender<Result<Vec<Refusal>, Error>>,
}

/// Requests in line.
pub(super) struct Queue<T> {
    entry: mpsc::Sender<Load<T>>,
    exit: Arc<Mutex<Option<mpsc::Receiver<Load<T>>>>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            entry: self.entry.clone(),
            exit: Arc::clone(&self.exit),
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let (entry, exit) = mpsc::channel(WAITING);
        Self {
            entry,
            exit: Arc::new(Mutex::new(Some(exit))),
        }
    }
}

impl<T: Clone> Queue<T> {
    /// Hands items over, and waits until they are durable. The refusals have the places that came with
    /// the items.
    pub(super) async fn hand_over(
        &self,
        items: Vec<(u32, T)>,
        patience: Duration,
    ) -> Result<Vec<Refusal>, Error> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let (places, items): (Vec<u32>, Vec<T>) = items.into_iter().unzip();
        let (answer, answered) = oneshot::channel();
        let load = Load { items, answer };
        self.entry.try_send(load).map_err(|_| too_many())?;
        let answered = tokio::time::timeout(patience, answered).await;
        let told = answered.map_err(|_| not_in_time())?;
        let mut told = told.map_err(|_| not_in_time())??;
        for refusal in &mut told {
            let place = places.get(refusal.index as usize);
            refusal.index = place.copied().unwrap_or(refusal.index);
        }
        Ok(told)
    }

    /// Takes what waits, as much as fits into one call, and calls, `again` for so long if that fails.
    pub(super) async fn serve(&self, call: impl Fn(Vec<T>) -> Answered, again: Duration) {
        let exit = self
            .exit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut exit) = exit else {
            return;
        };
        let mut left = None;
        loop {
            let first = match left.take() {
                Some(load) => load,
                None => match exit.recv().await {
                    Some(load) => load,
                    None => return,
                },
            };
            let mut loads = vec![first];
            let mut number = loads[0].items.len();
            while let Ok(load) = exit.try_recv() {
                number += load.items.len();
                if number > MAX_ITEMS {
                    left = Some(load);
                    break;
                }
                loads.push(load);
            }
            deliver(loads, &call, again).await;
        }
    }
}

/// Calls with the items of all loads, and gives each load its part of the answer.
async fn deliver<T: Clone>(
    loads: Vec<Load<T>>,
    call: &impl Fn(Vec<T>) -> Answered,
    again: Duration,
) {
    let (mut items, mut waiting) = (Vec::new(), Vec::new());
    for load in loads {
        let first = items.len() as u32;
        items.extend(load.items);
        waiting.push((first..items.len() as u32, load.answer));
    }
    let answered = call_until_kept(items, call, again)
        .await
        .map_err(undelivered);
    for (places, answer) in waiting {
        let part = answered.as_ref().map(|all| {
            let own = all.refused.iter().filter(|one| places.contains(&one.index));
            own.map(|one| Refusal {
                index: one.index - places.start,
                ..one.clone()
            })
            .collect()
        });
        // Who has gone does not wait for it any more.
        let _ = answer.send(part.map_err(Clone::clone));
    }
}

/// A leader that dies and a database that restarts are over soon, and each item counts once however
/// often it comes: so an app does not notice.
async fn call_until_kept<T: Clone>(
    items: Vec<T>,
    call: &impl Fn(Vec<T>) -> Answered,
    again: Duration,
) -> Result<ObservedResponse, Error> {
    let end = Instant::now() + again;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let answered = call(items.clone()).await;
        let wait = backoff.next_wait();
        if answered.is_ok() || Instant::now() + wait >= end {
            return answered;
        }
        tokio::time::sleep(wait).await;
    }
}

/// What stops the service is not the app's fault, and passes.
fn undelivered(error: Error) -> Error {
    tracing::debug!(%error, "reports of apps can't be handed on");
    let message = format!("nothing is kept: {}", error.message);
    Error::new(Code::Unavailable, "not_kept", message).mend("send it again later: each counts once")
}

fn too_many() -> Error {
    let message = "too many reports wait to be kept";
    Error::new(Code::Unavailable, "too_many_reports", message)
        .mend("send it again later: each counts once")
}

fn not_in_time() -> Error {
    let message = "it is not known in time whether it is kept";
    Error::new(Code::Unavailable, "not_in_time", message)
        .mend("send it again later: each counts once")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses what is odd.
    fn refuse_odd(items: Vec<u32>) -> Answered {
        assert!(items.len() <= MAX_ITEMS);
        let odd = items.iter().zip(0..).filter(|(item, _)| *item % 2 == 1);
        let refusal = |(item, index): (&u32, u32)| Refusal {
            index,
            reason: item.to_string(),
            ..Default::default()
        };
        let refused = odd.map(refusal).collect();
        Box::pin(std::future::ready(Ok(ObservedResponse {
            refused,
            ..Default::default()
        })))
    }

    const PATIENCE: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn each_request_gets_its_own_part_of_the_answer() {
        let queue = Queue::<u32>::default();
        let requests = (0..100u32).map(|request| {
            let items: Vec<(u32, u32)> = (0..50).map(|at| (at * 3, request * 50 + at)).collect();
            let queue = queue.clone();
            async move { (request, queue.hand_over(items, PATIENCE).await.unwrap()) }
        });
        let all = futures::future::join_all(requests);
        let answers = tokio::select! {
            answers = all => answers,
            () = queue.serve(refuse_odd, PATIENCE) => unreachable!(),
        };
        for (request, refused) in answers {
            assert_eq!(refused.len(), 25);
            for refusal in refused {
                let item: u32 = refusal.reason.parse().unwrap();
                assert_eq!(item, request * 50 + refusal.index / 3);
            }
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_long() {
        let queue = Queue::<u32>::default();
        let hand_over = || queue.hand_over(vec![(0, 1)], Duration::from_millis(20));
        assert_eq!(hand_over().await.unwrap_err().reason, "not_in_time");
        futures::future::join_all((1..WAITING).map(|_| hand_over())).await;
        assert_eq!(hand_over().await.unwrap_err().reason, "too_many_reports");
    }

    #[tokio::test]
    async fn a_service_that_comes_back_in_time_is_noticed_by_nobody() {
        let queue = Queue::<u32>::default();
        let began = Instant::now();
        let away = |items| -> Answered {
            match began.elapsed() < SHORT {
                true => Box::pin(std::future::ready(Err(too_many()))),
                false => refuse_odd(items),
            }
        };
        let answered = tokio::select! {
            answered = queue.hand_over(vec![(0, 2), (1, 3)], PATIENCE) => answered,
            () = queue.serve(away, PATIENCE) => unreachable!(),
        };
        assert_eq!(answered.unwrap()[0].index, 1);
    }

    #[tokio::test]
    async fn what_the_service_says_for_long_is_the_apps_to_repeat() {
        let queue = Queue::<u32>::default();
        let down = |_| -> Answered {
            let error = Error::new(Code::FailedPrecondition, "no_records", "none");
            Box::pin(std::future::ready(Err(error)))
        };
        let answered = tokio::select! {
            answered = queue.hand_over(vec![(0, 1)], PATIENCE) => answered,
            () = queue.serve(down, SHORT) => unreachable!(),
        };
        let error = answered.unwrap_err();
        assert_eq!((error.code, error.retryable), (Code::Unavailable, true));
    }
}
