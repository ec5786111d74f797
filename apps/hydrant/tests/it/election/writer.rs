//! Writes and reads of a process that holds a seat, or believes so, each told before and after.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hydrant_contracts::proto::{PutRequest, StateClient, Under, under};
use hydrant_sdk::{Error, Hydrant, Transport};

use super::history::{Event, Line, Manner, Outcome, Read, name_of, now};

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// Writes under the epochs of one seat.
#[derive(Clone)]
pub struct Writer {
    hydrant: Hydrant,
    /// Knows nothing of leases and clocks: it sends what it is given.
    raw: StateClient<Transport>,
    seat: under::Holder,
    pub voice: Voice,
}

impl Writer {
    pub fn new(hydrant: &Hydrant, seat: under::Holder, voice: Voice) -> Result<Self, Error> {
        Ok(Self {
            hydrant: hydrant.clone(),
            raw: hydrant.client("service/node", StateClient::new)?,
            seat,
            voice,
        })
    }

    /// Writes under an epoch, whatever any clock says.
    pub async fn write_raw(&self, epoch: u64, key: &str, manner: Manner) -> Outcome {
        let put = |name: String| async move {
            let under = Under {
                holder: Some(self.seat.clone()),
                epoch,
                ..Default::default()
            };
            let request = PutRequest {
                key: key.into(),
                value: name.into(),
                under: Some(under).into(),
                ..Default::default()
            };
            let answer = self.raw.put(request).await;
            let answer = answer.map_err(|error| Error::from_connect(&error))?;
            Ok(answer.into_owned().revision)
        };
        self.write(epoch, key, manner, put).await
    }

    /// Tells of a write before and after it is made.
    pub async fn write<Put, Answer>(
        &self,
        epoch: u64,
        key: &str,
        manner: Manner,
        put: Put,
    ) -> Outcome
    where
        Put: FnOnce(String) -> Answer,
        Answer: Future<Output = Result<u64, Error>>,
    {
        let sending = self.voice.say(Event::Sending {
            epoch,
            key: key.into(),
            at: now(),
            manner,
        });
        let answer = put(name_of(&self.voice.who, sending));
        let outcome = match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(revision)) => Outcome::Accepted { revision },
            Ok(Err(error)) => outcome_of(&error),
            Err(_) => Outcome::Unknown {
                why: "no answer in time".into(),
            },
        };
        self.voice.say(Event::Answered {
            sending,
            at: now(),
            outcome: outcome.clone(),
        });
        outcome
    }

    /// Reads a key and tells what stood there.
    pub async fn read(&self, key: &str) {
        let began = now();
        let state = self.hydrant.state();
        let Ok(Ok(found)) = tokio::time::timeout(ANSWER, state.get(key)).await else {
            return;
        };
        let (revision, value) = found.map_or((0, Vec::new()), |one| (one.revision, one.value));
        self.voice.say(Event::Read(Read {
            key: key.into(),
            began,
            at: now(),
            revision,
            value: String::from_utf8_lossy(&value).into_owned(),
        }));
    }
}

fn outcome_of(error: &Error) -> Outcome {
    match &*error.reason {
        "superseded" => Outcome::Refused,
        "seat_lost" => Outcome::Withheld,
        _ => Outcome::Unknown {
            why: error.to_string(),
        },
    }
}

/// Tells lines, each whole and with its number.
#[derive(Clone)]
pub struct Voice {
    pub who: String,
    next: Arc<Mutex<u64>>,
}

impl Voice {
    pub fn new(who: String) -> Self {
        let next = Arc::default();
        Self { who, next }
    }

    /// Tells an event and gives the number of its line.
    pub fn say(&self, event: Event) -> u64 {
        let mut next = self.next.lock().expect("nobody panics with it");
        let line = Line {
            who: self.who.clone(),
            number: *next,
            event,
        };
        let mut text = serde_json::to_string(&line).expect("a line is JSON");
        text.push('\n');
        // One call: the kernel takes a line of this length whole, or not at all.
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .expect("somebody listens");
        *next += 1;
        line.number
    }
}
