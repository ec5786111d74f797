//! The bytes of an upload come in: into a piece, into a store, and into a row, one after another.

use std::fmt;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use hydrant_records::{Transaction, read, transaction};
use hydrant_sdk::{Code, Error};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::Attachments;
use super::checksum::Checksum;
use super::digest::Running;
use super::refusal::{
    Refusal, beyond_length, broken_off, checksum_mismatch, is_final, stopping, swept, taken_over,
    too_large, too_many_pieces, too_slow, wrong_offset,
};
use super::room::Basin;
use super::rows::{self, Around, Piece, State, Upload};
use super::stores::{self, Seal};
use super::{copies, headers, loose};
use crate::service::events::{self, Event};

/// How many pieces an upload may have beside one for each megabyte: enough for a bad line, and not for
/// somebody who sends byte by byte.
const PIECES: i64 = 10_000;
const MEGABYTE: u64 = 1024 * 1024;

/// What somebody who sends bytes says of them.
pub(super) struct Sent {
    pub(super) offset: u64,
    /// Of the whole upload, when it was not said before.
    pub(super) length: Option<u64>,
    /// Of the body, when it is known.
    pub(super) announced: Option<u64>,
    pub(super) checksum: Option<Checksum>,
}

/// A request that goes on with an upload.
struct Receiver {
    desk: Attachments,
    /// As it is kept.
    upload: Upload,
    /// Of this request.
    epoch: i64,
    /// The most that it may have, in bytes.
    most: u64,
    /// Where what is in the basin begins. Another request may have brought it already.
    at: u64,
    basin: Basin,
    /// Pieces that are written, and count when the checksum fits; and the hash with them.
    held: Vec<Piece>,
    running: Running,
    checksum: Option<Checksum>,
    begun: Instant,
    /// When the last bytes came.
    heard: Instant,
    /// When the basin began to fill.
    filling: Option<Instant>,
}

/// What comes next.
enum Next {
    Bytes(Bytes),
    End,
    /// What is in the basin has waited long enough.
    Linger,
    /// No more will come, and why.
    Broken(Refusal),
}

impl Attachments {
    /// Goes on with an upload, and tells how it stands afterwards. Of two requests for one upload the newer
    /// takes over: the older one ends with what it has so far. That counts too, and the newer one leaves out
    /// what is there already: a client that goes on sooner than the cut is noticed here would else never get
    /// any further.
    ///
    /// # Errors
    ///
    /// If it can't go on there, or breaks off; then what came before is kept, unless a checksum was to hold.
    pub(super) async fn receive<E: fmt::Display>(
        &self,
        submission: &str,
        id: &str,
        sent: Sent,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Upload, Refusal> {
        let (upload, most) = self.take_over(submission, id, &sent).await?;
        if sent
            .announced
            .is_some_and(|more| upload.received + more > most)
        {
            return Err(match upload.length {
                Some(length) => beyond_length(length),
                None => too_large(most),
            });
        }
        let now = Instant::now();
        let receiver = Receiver {
            basin: Basin::new(self.0.room.clone(), self.0.limits.piece),
            at: upload.received,
            epoch: upload.epoch,
            running: upload.running.clone(),
            held: Vec::new(),
            desk: self.clone(),
            upload,
            most,
            checksum: sent.checksum,
            begun: now,
            heard: now,
            filling: None,
        };
        receiver.run(body).await
    }

    /// Raises the epoch of an upload, so that nobody else goes on with it; tells how many bytes it may have.
    async fn take_over(
        &self,
        submission: &str,
        id: &str,
        sent: &Sent,
    ) -> Result<(Upload, u64), Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let largest = self.largest(submission).await?;
        let (now, expiry) = (self.now(), self.expiry());
        transaction!(records, |tx| {
            let mut upload = rows::lock_of(tx, submission, id).await?;
            upload.check_living(now)?;
            if upload.concat.is_some() && !upload.is_partial() {
                return Err(is_final());
            }
            if sent.offset != upload.received {
                return Err(wrong_offset(upload.received));
            }
            if upload.state == State::Open {
                say_length(&mut upload, sent.length, largest)?;
                upload.epoch += 1;
                upload.expires_ms = expiry;
                rows::save(tx, &upload).await?;
            }
            let most = upload.length.unwrap_or(largest);
            Ok((upload, most))
        })
    }

    /// The most bytes that an attachment of a submission may have.
    async fn largest(&self, submission: &str) -> Result<u64, Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let around = read!(records, |tx| rows::lock_submission(tx, submission).await)?;
        let form = self.0.desk.forms.form(&around.form);
        let attachments = form.and_then(|form| form.attachments.as_ref());
        Ok(attachments.map_or(0, |attachments| attachments.max_size))
    }

    /// Puts bytes into a store: the near one, or the other when that is away.
    async fn keep(&self, bytes: Bytes, seal: Seal) -> Result<Piece, Error> {
        let records = self.0.desk.tables.ready().await?;
        for store in self.0.stores.to_write()? {
            let (object, now) = (stores::new_object(), self.now());
            transaction!(records, |tx| {
                loose::announce(tx, &object, store.name(), now).await
            })?;
            if store.write(&object, bytes.clone(), &seal).await {
                return Ok(Piece {
                    object,
                    place: store.name().to_owned(),
                    seal,
                });
            }
        }
        Err(stores::unavailable())
    }

    /// Makes pieces count, and tells how the upload stands. Repeats a commit of which nobody knows whether it
    /// has happened.
    async fn commit(
        &self,
        before: &Upload,
        after: &Upload,
        pieces: &[Piece],
    ) -> Result<Upload, Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let now = self.now();
        let twice = self.0.stores.are_two();
        let committed = transaction!(records, |tx| put(tx, before, after, pieces, (twice, now))
            .await);
        let committed = match committed {
            Err(refusal) if refusal.error.reason == "records_uncertain" => {
                transaction!(records, |tx| put(tx, before, after, pieces, (twice, now))
                    .await)
            }
            committed => committed,
        };
        if committed.is_ok() && after.state == State::Whole {
            self.0.desk.changes.tell(&after.submission);
        }
        committed
    }
}

/// The length of an upload is said once.
fn say_length(upload: &mut Upload, length: Option<u64>, largest: u64) -> Result<(), Refusal> {
    let Some(length) = length else {
        return Ok(());
    };
    let said = upload.length.unwrap_or(length);
    if said != length || length < upload.received {
        return Err(headers::another_length(said.max(upload.received)));
    }
    if length > largest {
        return Err(too_large(largest));
    }
    upload.length = Some(length);
    Ok(())
}

/// Pieces count from the end of this transaction on, unless others have come in between: then the upload is
/// returned as these left it.
async fn put(
    tx: &mut Transaction,
    before: &Upload,
    after: &Upload,
    pieces: &[Piece],
    (twice, now): (bool, i64),
) -> Result<Upload, Refusal> {
    let around = match after.state {
        State::Whole => Some(rows::lock_submission(tx, &before.submission).await?),
        _ => None,
    };
    let kept = rows::lock_of(tx, &before.submission, &before.id).await?;
    kept.check_living(now)?;
    if kept.received != before.received || kept.state != State::Open {
        return Ok(kept);
    }
    let mut end = before.clone();
    for piece in pieces {
        if !loose::adopt(tx, &piece.object).await? {
            return Err(swept());
        }
        rows::add_piece(tx, &end, piece).await?;
        if twice {
            copies::wish(tx, &piece.object, now).await?;
        }
        end.pieces += 1;
        end.received += piece.seal.size;
    }
    let after = Upload {
        epoch: kept.epoch,
        ..after.clone()
    };
    rows::save(tx, &after).await?;
    if let Some(around) = around {
        tell(tx, &around, &after, now).await?;
    }
    Ok(after)
}

/// An attachment is whole: a change of its submission, and an event.
pub(super) async fn tell(
    tx: &mut Transaction,
    around: &Around,
    upload: &Upload,
    now: i64,
) -> Result<(), Refusal> {
    rows::touch_submission(tx, &upload.submission).await?;
    let detail = json!({
        "attachment": upload.id,
        "sha256": upload.sha256,
        "size": upload.received,
        "stored": upload.places,
    });
    let event = Event {
        at_ms: now,
        kind: "attached",
        outcome: "ok",
        submission: &upload.submission,
        form: &around.form,
        origin: &around.origin,
        detail: detail.to_string(),
    };
    events::put(tx, &[event]).await?;
    Ok(())
}

impl Receiver {
    async fn run<E: fmt::Display>(
        mut self,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Upload, Refusal> {
        let mut body = pin!(body);
        loop {
            match self.next(&mut body).await {
                Next::Bytes(chunk) => self.take(&chunk).await?,
                Next::Linger => self.flush().await?,
                Next::End => return self.end().await,
                Next::Broken(refusal) => {
                    if self.checksum.is_none() {
                        self.flush().await?;
                    }
                    return Err(refusal);
                }
            }
        }
    }

    async fn next<E: fmt::Display>(
        &self,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Next {
        let limits = &self.desk.0.limits;
        let silent = self.heard + limits.silence;
        let linger = self.filling.map(|since| since + limits.linger);
        let until = linger.unwrap_or(silent).min(silent);
        let mut stopping_soon = self.desk.0.stopping.clone();
        let next = tokio::select! {
            biased;
            next = timeout_at(until, body.next()) => next,
            _ = stopping_soon.changed() => return Next::Broken(stopping()),
        };
        let is_late = self.checksum.is_some() && self.begun.elapsed() > limits.checked;
        match next {
            _ if is_late => Next::Broken(too_slow()),
            Ok(Some(Ok(chunk))) => Next::Bytes(chunk),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, upload = self.upload.id, "an upload broke off");
                Next::Broken(broken_off())
            }
            Ok(None) => Next::End,
            Err(_) if until < silent => Next::Linger,
            Err(_) => Next::Broken(too_slow()),
        }
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.heard = Instant::now();
        if self.come() + chunk.len() as u64 > self.most {
            if self.checksum.is_none() {
                self.flush().await?;
            }
            return Err(match self.upload.length {
                Some(length) => beyond_length(length),
                None => too_large(self.most),
            });
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = self.basin.fill(rest).await?;
            self.filling.get_or_insert_with(Instant::now);
            let (now, later) = rest.split_at(taken);
            if let Some(checksum) = &mut self.checksum {
                checksum.update(now);
            }
            rest = later;
            let has_waited = self
                .filling
                .is_some_and(|since| since.elapsed() > self.desk.0.limits.linger);
            if taken == 0 || has_waited || self.basin.len() == self.desk.0.limits.piece {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// How many bytes the upload would have, with those that are under way.
    fn come(&self) -> u64 {
        self.at + self.basin.len() as u64
    }

    /// What is in the basin becomes a piece, and counts, unless a checksum has to fit first.
    async fn flush(&mut self) -> Result<(), Refusal> {
        self.filling = None;
        if self.basin.is_empty() {
            return Ok(());
        }
        let most = PIECES + (self.most / MEGABYTE) as i64;
        if self.upload.pieces + self.held.len() as i64 >= most {
            return Err(too_many_pieces());
        }
        // The room is given back when the bytes are in a store.
        let (bytes, _room) = self.basin.take();
        match self.checksum {
            Some(_) => self.hold(bytes.into()).await?,
            None => self.add(bytes.into()).await?,
        }
        // While this was under way nobody listened: that was no silence.
        self.heard = Instant::now();
        Ok(())
    }

    async fn hold(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        self.at += bytes.len() as u64;
        let (seal, running) = hashed(self.running.clone(), &bytes).await?;
        self.running = running;
        self.held.push(self.desk.keep(bytes, seal).await?);
        Ok(())
    }

    /// Adds bytes to the upload, but for those that others have added in the meantime.
    async fn add(&mut self, mut bytes: Bytes) -> Result<(), Refusal> {
        loop {
            let known = self.upload.received.saturating_sub(self.at);
            let known = bytes.split_to(known.min(bytes.len() as u64) as usize).len();
            self.at += known as u64;
            if bytes.is_empty() {
                break;
            }
            let (seal, running) = hashed(self.upload.running.clone(), &bytes).await?;
            let piece = self.desk.keep(bytes.clone(), seal).await?;
            self.commit(vec![piece], running).await?;
        }
        match self.upload.epoch == self.epoch {
            true => Ok(()),
            false => Err(taken_over()),
        }
    }

    /// Makes pieces count that begin where the upload ends.
    async fn commit(&mut self, pieces: Vec<Piece>, running: Running) -> Result<(), Refusal> {
        let size: u64 = pieces.iter().map(|piece| piece.seal.size).sum();
        let mut after = Upload {
            received: self.upload.received + size,
            pieces: self.upload.pieces + pieces.len() as i64,
            running,
            expires_ms: self.desk.expiry(),
            ..self.upload.clone()
        };
        let places = pieces.iter().map(|piece| piece.place.clone());
        after.places.extend(places);
        if after.has_all() {
            after.become_whole();
        }
        self.upload = self.desk.commit(&self.upload, &after, &pieces).await?;
        Ok(())
    }

    async fn end(mut self) -> Result<Upload, Refusal> {
        match self.checksum.take() {
            None => self.flush().await?,
            Some(checksum) if !checksum.fits() => return Err(checksum_mismatch()),
            Some(_) if self.basin.is_empty() => {}
            Some(_) => {
                let (bytes, _room) = self.basin.take();
                self.hold(bytes.into()).await?;
            }
        }
        let is_unfinished = self.upload.state == State::Open && self.upload.has_all();
        if is_unfinished || !self.held.is_empty() {
            let pieces = std::mem::take(&mut self.held);
            self.commit(pieces, self.running.clone()).await?;
        }
        match self.upload.received < self.at {
            true => Err(taken_over()),
            false => Ok(self.upload),
        }
    }
}

/// The seal of bytes, and the hash of the whole with them. Hashing takes a while, and so has a thread.
async fn hashed(mut running: Running, bytes: &Bytes) -> Result<(Seal, Running), Refusal> {
    let bytes = bytes.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        running.update(&bytes);
        (stores::seal(&bytes), running)
    });
    hashed.await.map_err(|_| task_failed())
}

impl Upload {
    /// Everything has come.
    pub(super) fn become_whole(&mut self) {
        self.state = match self.is_partial() {
            true => State::Part,
            false => State::Whole,
        };
        self.sha256 = Some(self.running.clone().finish());
    }
}

/// The task that received did not end well.
pub(super) fn task_failed() -> Refusal {
    let message = "the upload could not be taken";
    Error::new(Code::Internal, "upload_failed", message).into()
}
