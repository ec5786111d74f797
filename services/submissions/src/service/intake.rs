//! Submissions come in: many at a time share one transaction, and so one wait for the disk; and each is
//! answered only after that is durable.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use hydrant_records::{Dialect, RecordsError, Row, Transaction, Value, params, transaction};
use hydrant_sdk::{Code, Error, Fault};
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use super::events::{self, Event};
use super::{Desk, hops};
use crate::forms::MAX_FIELDS;
use crate::proto::{AcceptRequest, AcceptResponse, Hop, Origin, Receipt};
use crate::receipt;

/// How many may wait for their turn.
const WAITING: usize = 1024;
/// How many share one transaction.
const TOGETHER: usize = 64;
/// How many transactions are under way at a time, where the database takes several.
const WRITERS: usize = 4;
/// The longest texts that a client may say of itself, in bytes.
const MAX_ORIGIN: usize = 100;

const COLUMNS: [&str; 13] = [
    "id",
    "nonce",
    "form",
    "state",
    "version",
    "fingerprint",
    "fields",
    "store",
    "person",
    "session",
    "accepted_ms",
    "hops",
    "hop_hash",
];

/// Where submissions come in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Intake {
    desk: Desk,
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    one: New,
    answer: oneshot::Sender<Result<AcceptResponse, Error>>,
}

/// A submission that has come and is not kept yet.
struct New {
    id: String,
    /// Tells this attempt from others of the same id, also after a commit whose answer did not come.
    nonce: String,
    form: String,
    fields: String,
    fingerprint: String,
    origin: Origin,
    accepted_ms: i64,
    hop: Hop,
}

/// What is there under an id.
struct Kept {
    id: String,
    nonce: String,
    fingerprint: String,
    form: String,
    hop: Hop,
}

impl Intake {
    /// An intake, and the work behind it, which runs as long as the service does.
    pub(crate) fn new(desk: &Desk) -> (Self, BoxFuture<'static, Result<(), Error>>) {
        let (sender, queue) = mpsc::channel(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let writers = match desk.tables.dialect() {
            Some(Dialect::MariaDb) => WRITERS,
            _ => 1,
        };
        let writing = (0..writers).map(|_| write_again_and_again(desk.clone(), queue.clone()));
        let writing = join_all(writing);
        let work = Box::pin(async move {
            writing.await;
            Ok(())
        });
        let intake = Self {
            desk: desk.clone(),
            queue: sender,
        };
        (intake, work)
    }

    /// Keeps a submission; what this returns from is durable.
    ///
    /// # Errors
    ///
    /// If it is not one, another content is there under its id, too many wait, or the database does not answer.
    pub(crate) async fn accept(&self, request: AcceptRequest) -> Result<AcceptResponse, Error> {
        let one = New::checked(&self.desk, request)?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { one, answer };
        self.queue.try_send(waiting).map_err(|_| too_busy())?;
        answered.await.map_err(|_| stopping())?
    }
}

impl New {
    fn checked(desk: &Desk, request: AcceptRequest) -> Result<Self, Error> {
        let AcceptRequest {
            id, form, fields, ..
        } = request;
        let origin = request.origin.as_option().cloned().unwrap_or_default();
        if Uuid::try_parse(&id).is_ok_and(|uuid| uuid.to_string() == id) {
            check_sizes(&fields, &origin)?;
        } else {
            return Err(invalid("the id is no UUID in small letters with hyphens"));
        }
        if desk.forms.form(&form).is_none() {
            return Err(unknown_form(desk, &form));
        }
        let accepted_ms = desk.clock.unix_ms();
        let record = json!({
            "fieldsSha256": receipt::sha256_of(fields.as_bytes()),
            "form": form,
            "id": id,
            "store": origin.store,
        });
        let fingerprint = receipt::sha256_of(format!("{form}\n{fields}").as_bytes());
        Ok(Self {
            nonce: Uuid::new_v4().to_string(),
            hop: receipt::hop("", "accepted", accepted_ms, record.to_string()),
            id,
            form,
            fields,
            fingerprint,
            origin,
            accepted_ms,
        })
    }

    fn row(&self) -> [Value; 13] {
        params![
            &self.id,
            &self.nonce,
            &self.form,
            "open",
            1,
            &self.fingerprint,
            &self.fields,
            &self.origin.store,
            &self.origin.user,
            &self.origin.session,
            self.accepted_ms,
            1,
            &self.hop.hash,
        ]
    }

    fn event(&self) -> Event<'_> {
        Event {
            at_ms: self.accepted_ms,
            kind: "accepted",
            outcome: "ok",
            submission: &self.id,
            form: &self.form,
            origin: &self.origin,
            detail: "{}".into(),
        }
    }

    /// What is answered, by what is there under the id now.
    fn answer(&self, kept: Option<&Kept>) -> Result<AcceptResponse, Error> {
        match kept {
            Some(kept) if kept.fingerprint != self.fingerprint => Err(key_reused(&self.id)),
            Some(kept) => Ok(accepted(
                &self.id,
                &kept.form,
                &kept.hop,
                kept.nonce != self.nonce,
            )),
            None => Ok(accepted(&self.id, &self.form, &self.hop, false)),
        }
    }
}

fn accepted(id: &str, form: &str, hop: &Hop, replayed: bool) -> AcceptResponse {
    let receipt = Receipt {
        id: id.to_owned(),
        form: form.to_owned(),
        hops: vec![hop.clone()],
        ..Default::default()
    };
    AcceptResponse {
        replayed,
        accepted_unix_ms: hop.at_unix_ms,
        receipt: receipt.into(),
        ..Default::default()
    }
}

async fn write_again_and_again(desk: Desk, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while queue.lock().await.recv_many(&mut batch, TOGETHER).await > 0 {
        // Of two with the same id the second is judged by what the first left.
        while !batch.is_empty() {
            let (now, later) = apart(std::mem::take(&mut batch));
            write(&desk, now).await;
            batch = later;
        }
    }
}

/// The first of each id, and the others.
fn apart(batch: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
    let mut seen = HashSet::new();
    batch
        .into_iter()
        .partition(|waiting| seen.insert(waiting.one.id.clone()))
}

async fn write(desk: &Desk, batch: Vec<Waiting>) {
    let (ones, answers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|waiting| (waiting.one, waiting.answer))
        .unzip();
    let kept = keep(desk, &ones).await;
    for (one, answer) in ones.iter().zip(answers) {
        let told = match &kept {
            Ok(kept) => one.answer(kept.iter().find(|kept| kept.id == one.id)),
            Err(error) => Err(error.clone()),
        };
        // Who has gone asks again.
        let _ = answer.send(told);
    }
}

/// Keeps what is new; returns what is there under the ids, where something was there before.
async fn keep(desk: &Desk, ones: &[New]) -> Result<Vec<Kept>, Error> {
    let records = desk.tables.ready().await?;
    let kept = transaction!(records, |tx| insert(tx, ones).await);
    match kept {
        // It has happened or not: a second look tells, and writes what is missing.
        Err(error) if error.kind() == hydrant_records::Kind::Uncertain => {
            Ok(transaction!(records, |tx| insert(tx, ones).await)?)
        }
        kept => Ok(kept?),
    }
}

async fn insert(tx: &mut Transaction, ones: &[New]) -> Result<Vec<Kept>, RecordsError> {
    let rows: Vec<_> = ones.iter().map(New::row).collect();
    let new = tx.insert_new("submissions", &COLUMNS, &rows).await?;
    let kept = match new == ones.len() as u64 {
        true => Vec::new(),
        false => find(tx, ones).await?,
    };
    // Whose row has another nonce was here before; and who finds its own is here for the second time.
    let fresh: Vec<_> = match new {
        0 => Vec::new(),
        _ => ones.iter().filter(|one| is_fresh(one, &kept)).collect(),
    };
    let hops: Vec<_> = fresh
        .iter()
        .map(|one| hops::row(&one.id, 0, &one.hop))
        .collect();
    tx.insert_new("submission_hops", &hops::COLUMNS, &hops)
        .await?;
    let events: Vec<_> = fresh.iter().map(|one| one.event()).collect();
    events::put(tx, &events).await?;
    Ok(kept)
}

fn is_fresh(one: &New, kept: &[Kept]) -> bool {
    let known = kept.iter().find(|kept| kept.id == one.id);
    known.is_none_or(|known| known.nonce == one.nonce)
}

async fn find(tx: &mut Transaction, ones: &[New]) -> Result<Vec<Kept>, RecordsError> {
    let select = "SELECT s.id, s.nonce, s.fingerprint, s.form, h.kind, h.at_ms, h.record, h.hash \
                  FROM submissions s LEFT JOIN submission_hops h \
                  ON h.submission = s.id AND h.number = 0 WHERE s.id = ?";
    let mut kept = Vec::new();
    for one in ones {
        let rows = tx.query(select, &params![&one.id]).await?;
        if let Some(row) = rows.first() {
            kept.push(read_kept(row, one)?);
        }
    }
    Ok(kept)
}

fn read_kept(row: &Row, one: &New) -> Result<Kept, RecordsError> {
    let nonce: String = row.get(1)?;
    // The hop of what this transaction itself has just inserted is not there yet.
    let hop = match nonce == one.nonce {
        true => one.hop.clone(),
        false => Hop {
            kind: row.get(4)?,
            at_unix_ms: row.get(5)?,
            record: row.get(6)?,
            hash: row.get(7)?,
            ..Default::default()
        },
    };
    Ok(Kept {
        id: row.get(0)?,
        nonce,
        fingerprint: row.get(2)?,
        form: row.get(3)?,
        hop,
    })
}

/// What `api/submissions` has checked already, said again by who keeps it.
fn check_sizes(fields: &str, origin: &Origin) -> Result<(), Error> {
    if fields.len() as u64 > MAX_FIELDS.get() {
        return Err(invalid("the fields are too large"));
    }
    let texts = [&origin.store, &origin.user, &origin.session];
    match texts.iter().all(|text| text.len() <= MAX_ORIGIN) {
        true => Ok(()),
        false => Err(invalid("store, user or session is too long")),
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Code::InvalidArgument, "invalid_submission", message)
}

fn unknown_form(desk: &Desk, form: &str) -> Error {
    let form: String = form.chars().take(100).collect();
    let message = format!(
        "service/submissions knows no form `{}`",
        form.escape_debug()
    );
    Error::new(Code::InvalidArgument, "unknown_form", message)
        .mend(format!("one of: {}", desk.forms.names()))
}

fn key_reused(id: &str) -> Error {
    let message = format!("another submission with other content has the Correlation-Id {id}");
    Error::new(Code::AlreadyExists, "key_reused", message)
        .mend("make a new UUID for each submission, and send the same content when you repeat one")
}

fn too_busy() -> Error {
    let message = "too many submissions come in at the same time";
    Error::new(Code::Unavailable, "too_busy", message)
        .fault(Fault::Ours)
        .mend("send it again under the same Correlation-Id")
}

fn stopping() -> Error {
    let message = "the service is stopping; whether this submission is kept can't be told";
    Error::new(Code::Unavailable, "stopping", message)
        .fault(Fault::Ours)
        .mend("send it again under the same Correlation-Id")
}
