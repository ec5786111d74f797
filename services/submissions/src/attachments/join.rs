//! Parts that came side by side become one attachment. Their pieces change hands, and nothing is copied; the
//! hash of the whole is taken by reading them once.

use std::collections::HashSet;

use hydrant_records::{Transaction, read, transaction};

use super::create::known;
use super::digest::Running;
use super::refusal::{Refusal, cannot_join, too_large};
use super::rows::{self, State, Upload};
use super::{Attachments, receive};

/// How many pieces are looked up at a time.
const PAGE: i64 = 256;

impl Attachments {
    /// The attachment that these parts make; tells whether it is new.
    ///
    /// # Errors
    ///
    /// If one of them is no whole part of the submission, together they are too large, or a store does not
    /// give them.
    pub(super) async fn join(
        &self,
        mut whole: Upload,
        ids: &[String],
    ) -> Result<(Upload, bool), Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let found = read!(records, |tx| {
            let known = known(tx, &whole).await?;
            match known {
                Some(known) => Ok::<_, Refusal>(Err(known)),
                None => Ok(Ok(parts(tx, &whole.submission, ids).await?)),
            }
        })?;
        let parts = match found {
            Ok(parts) => parts,
            Err(known) => return Ok((known, false)),
        };
        whole.length = Some(parts.iter().map(|part| part.received).sum());
        self.check_size(&whole).await?;
        for part in &parts {
            self.hash(part, &mut whole.running).await?;
        }
        let joined = transaction!(records, |tx| self.hand_over(tx, &whole, &parts).await)?;
        self.0.desk.changes.tell(&whole.submission);
        Ok((joined, true))
    }

    /// Before all is read.
    async fn check_size(&self, whole: &Upload) -> Result<(), Refusal> {
        let most = self.max_size(&whole.submission).await?.unwrap_or(u64::MAX);
        match whole.length.is_some_and(|length| length > most) {
            true => Err(too_large(most)),
            false => Ok(()),
        }
    }

    async fn hash(&self, part: &Upload, running: &mut Running) -> Result<(), Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let mut number = 0;
        loop {
            let pieces = read!(records, |tx| rows::pieces(tx, &part.id, number, PAGE).await)?;
            for piece in &pieces {
                let _room = self.0.room.wait(piece.seal.size as usize).await?;
                running.update(&self.fetch(piece).await?);
            }
            number += pieces.len() as i64;
            if pieces.is_empty() {
                return Ok(());
            }
        }
    }

    async fn hand_over(
        &self,
        tx: &mut Transaction,
        whole: &Upload,
        parts: &[Upload],
    ) -> Result<Upload, Refusal> {
        let now = self.now();
        let around = rows::lock_submission(tx, &whole.submission).await?;
        self.check(tx, &around, whole).await?;
        let mut joined = whole.clone();
        rows::insert(tx, &joined, now).await?;
        for part in parts {
            let mut kept = rows::lock_of(tx, &whole.submission, &part.id).await?;
            if kept.state != State::Part {
                return Err(cannot_join(
                    "one of them was taken away, or joined, meanwhile",
                ));
            }
            rows::hand_over(tx, &kept, &joined).await?;
            joined.pieces += kept.pieces;
            joined.received += kept.received;
            joined.places.extend(kept.places.iter().cloned());
            kept.state = State::Joined;
            rows::save(tx, &kept).await?;
        }
        joined.become_whole();
        rows::save(tx, &joined).await?;
        receive::tell(tx, &around, &joined, now).await?;
        Ok(joined)
    }
}

/// The parts, each whole and each once.
async fn parts(
    tx: &mut Transaction,
    submission: &str,
    ids: &[String],
) -> Result<Vec<Upload>, Refusal> {
    let distinct: HashSet<_> = ids.iter().collect();
    if distinct.len() != ids.len() {
        return Err(cannot_join("one of them stands there twice"));
    }
    let mut parts = Vec::with_capacity(ids.len());
    for id in ids {
        let part = rows::find(tx, id).await?;
        let part = part.filter(|part| part.submission == submission);
        match part.map(|part| (part.state, part)) {
            Some((State::Part, part)) => parts.push(part),
            Some((State::Open, _)) => return Err(cannot_join("one of them is not whole")),
            Some(_) => return Err(cannot_join("one of them is no part, or no more")),
            None => return Err(cannot_join("one of them is not known")),
        }
    }
    Ok(parts)
}
