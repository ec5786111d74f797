//! `GET /ofrep/v1/events`: server-sent events that tell a client to ask for its flags again, when what
//! it may see has changed.
//!
//! A stream holds no queue: it looks at the newest revision whenever its client can take bytes. So a
//! slow client costs a seat and no memory, and hears of the newest revision alone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hydrant_runtime::Shutdown;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::changes::{Heard, News};
use super::failure::{Failure, code};
use super::seats::{Full, Seat, Whose};
use super::{Answers, REVISION};
use crate::api::gate::Admitted;
use crate::keys::Caller;

/// How often a silent stream says that it lives.
const BEAT: Duration = Duration::from_secs(15);
/// How long a stream lives, at least and at most: then its client opens another one, perhaps elsewhere.
const LIFE: (u64, u64) = (1800, 2400);
/// When a client comes back whose stream ended, in milliseconds, at least and at most.
const BACK: (u64, u64) = (1000, 3000);
/// How many clients are told of a change in one millisecond: their requests follow.
const TOLD_PER_MS: u64 = 10;
/// The longest wait until the last client is told.
const MAX_SPREAD: u64 = 2000;
/// When a client may ask again for which there was no seat, in seconds.
const FULL: u64 = 30;

/// The query of a request for a stream.
#[derive(Deserialize)]
pub(super) struct Asked {
    /// Stands for a key.
    ticket: Option<String>,
}

pub(super) async fn events(
    State(answers): State<Arc<Answers>>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let ticket = match asked {
        Ok(Query(asked)) => asked.ticket,
        Err(error) => {
            let status = StatusCode::BAD_REQUEST;
            return Failure::new(status, code::PARSE_ERROR, error.body_text()).answer(None);
        }
    };
    let stream = open(&answers, ticket.as_deref(), &headers);
    stream.unwrap_or_else(|failure| failure.answer(None))
}

fn open(answers: &Answers, ticket: Option<&str>, headers: &HeaderMap) -> Result<Response, Failure> {
    let admitted = match ticket {
        Some(ticket) => answers.gate.admit_ticket(headers, ticket)?,
        None => answers.gate.admit(headers)?,
    };
    let whose = Whose::of(&admitted);
    let seat = answers
        .seats
        .take(whose, &admitted.compiled.settings.streams);
    let seat = seat.map_err(no_seat)?;
    let last = headers.get("last-event-id");
    let mut stream = Stream::open(answers.heard.clone(), admitted.caller.clone(), seat, last);
    stream.leaving = answers.leaving.clone();
    let body = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    Ok(answer(Body::from_stream(body), &admitted))
}

fn answer(body: Body, admitted: &Admitted) -> Response {
    let mut answer = body.into_response();
    let headers = answer.headers_mut();
    let mut insert = |name, value| headers.insert(name, HeaderValue::from_static(value));
    insert(header::CONTENT_TYPE.as_str(), "text/event-stream");
    insert(header::CACHE_CONTROL.as_str(), "no-store");
    // nginx would gather the events otherwise.
    insert("x-accel-buffering", "no");
    headers.insert(REVISION, admitted.compiled.revision.into());
    answer
}

fn no_seat(full: Full) -> Failure {
    let (status, details) = match full {
        Full::Process => (
            StatusCode::SERVICE_UNAVAILABLE,
            "this instance holds as many streams as it may; poll meanwhile",
        ),
        Full::Own => (
            StatusCode::TOO_MANY_REQUESTS,
            "this key, or this address, has as many streams as it may; poll meanwhile",
        ),
    };
    Failure::new(status, code::GENERAL, details).with("retry-after", FULL.into())
}

/// One open stream.
struct Stream {
    heard: Heard,
    caller: Caller,
    seat: Seat,
    /// What is sent next, before anything else.
    first: Option<Bytes>,
    /// The tag of what the client knows of.
    told: String,
    /// When a change is told that was heard of.
    due: Option<Instant>,
    beat: Instant,
    end: Instant,
    /// Begins when this instance is drained.
    leaving: Shutdown,
}

impl Stream {
    fn open(mut heard: Heard, caller: Caller, seat: Seat, last: Option<&HeaderValue>) -> Self {
        let now = Instant::now();
        let news = heard.borrow_and_update().clone();
        let mut first = format!("retry: {}\n", fastrand::u64(BACK.0..BACK.1));
        let mut told = String::new();
        if let Some(news) = &news {
            let tag = news.tag(&caller);
            let is_behind = match last {
                Some(last) => !last.as_bytes().ends_with(tag.as_bytes()),
                None => news.is_fresh(&caller),
            };
            first += &match is_behind {
                true => event(news, tag),
                false => format!("id: {}\n\n", id(news, tag)),
            };
            tag.clone_into(&mut told);
        } else {
            first.push('\n');
        }
        Self {
            first: Some(first.into()),
            told,
            due: None,
            beat: now + BEAT,
            end: now + Duration::from_secs(fastrand::u64(LIFE.0..LIFE.1)),
            leaving: Shutdown::new(),
            heard,
            caller,
            seat,
        }
    }

    /// The next bytes; `None` when the stream ends: at its age, when its key is gone, when the instance is
    /// drained, and when the service stops.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            tokio::select! {
                () = sleep_until(self.end) => return None,
                () = self.leaving.begun() => return None,
                heard = self.heard.changed() => {
                    heard.ok()?;
                    self.hear()?;
                }
                () = sleep_until(self.due.unwrap_or(self.end)), if self.due.is_some() => {
                    if let Some(event) = self.tell() {
                        return Some(event);
                    }
                }
                () = sleep_until(self.beat) => {
                    self.beat = Instant::now() + BEAT;
                    return Some(Bytes::from_static(b":\n\n"));
                }
            }
        }
    }

    /// A revision came. Clients are told one after the other, so that they do not all ask at once.
    fn hear(&mut self) -> Option<()> {
        let news = self.heard.borrow_and_update().clone()?;
        if let Caller::Holder(key) = &self.caller {
            news.compiled.keys.by_ticket(&key.ticket)?;
        }
        if self.due.is_none() && news.tag(&self.caller) != self.told {
            let spread = (self.seat.count() as u64 / TOLD_PER_MS).min(MAX_SPREAD);
            let wait = Duration::from_millis(fastrand::u64(0..=spread));
            self.due = Some(Instant::now() + wait);
        }
        Some(())
    }

    /// The event of what is newest now; `None` when that is what the client knows, again.
    fn tell(&mut self) -> Option<Bytes> {
        self.due = None;
        let news = self.heard.borrow().clone()?;
        let tag = news.tag(&self.caller);
        if tag == self.told {
            return None;
        }
        tag.clone_into(&mut self.told);
        self.beat = Instant::now() + BEAT;
        Some(event(&news, tag).into())
    }
}

/// `id`, `event` and `data`, as the specification has them.
fn event(news: &News, tag: &str) -> String {
    let data = json!({
        "type": "refetchEvaluation",
        "etag": tag,
        "lastModified": news.compiled.views.at_unix_ms.div_euclid(1000),
    });
    format!("id: {}\nevent: message\ndata: {data}\n\n", id(news, tag))
}

/// The revision, and the tag, which says on every instance whether there is something new.
fn id(news: &News, tag: &str) -> String {
    format!("{}-{tag}", news.compiled.revision)
}
