//! New uploads, and uploads that are taken away.

use std::collections::BTreeSet;

use hydrant_records::{Transaction, transaction};
use hydrant_sdk::Error;
use uuid::Uuid;

use super::digest::Running;
use super::headers::Concat;
use super::metadata::Metadata;
use super::refusal::{
    Refusal, cannot_join, key_reused, takes_none, too_large, too_many, type_not_taken,
};
use super::rows::{self, Around, State, Upload};
use super::{Attachments, loose, receive};
use crate::forms::Attachments as Allowed;

/// How many parts of uploads a submission has at a time.
const MAX_PARTS: i64 = 64;

/// What a client says of a new upload.
pub(super) struct New {
    /// Its id, when the client has made one.
    pub(super) key: Option<String>,
    pub(super) meta: Metadata,
    pub(super) length: Option<u64>,
    pub(super) concat: Option<Concat>,
}

impl Attachments {
    /// A new upload; the same one again when its client has made the id and repeats itself. Tells whether it
    /// is new.
    ///
    /// # Errors
    ///
    /// If the submission is not open, its form does not take it, or the database does not answer.
    pub(super) async fn create(
        &self,
        submission: &str,
        new: New,
    ) -> Result<(Upload, bool), Refusal> {
        let upload = self.begun(submission, &new);
        if let Some(Concat::Final(_, ids)) = &new.concat {
            return self.join(upload, ids).await;
        }
        let records = self.0.desk.tables.ready().await?;
        let now = self.now();
        let created = transaction!(records, |tx| {
            let around = rows::lock_submission(tx, submission).await?;
            if let Some(known) = known(tx, &upload).await? {
                return Ok((known, false));
            }
            self.check(tx, &around, &upload).await?;
            rows::insert(tx, &upload, now).await?;
            rows::save(tx, &upload).await?;
            match upload.state {
                State::Whole => receive::tell(tx, &around, &upload, now).await?,
                _ => rows::touch_submission(tx, submission).await?,
            }
            Ok((upload.clone(), true))
        });
        self.0.desk.changes.tell(submission);
        created
    }

    fn begun(&self, submission: &str, new: &New) -> Upload {
        let concat = new.concat.as_ref().map(|concat| match concat {
            Concat::Partial => "partial".to_owned(),
            Concat::Final(text, _) => text.clone(),
        });
        // A client's key names one attachment, and not each part of it.
        let key = new.key.clone();
        let key = key.filter(|_| new.concat != Some(Concat::Partial));
        let mut upload = Upload {
            id: key.unwrap_or_else(|| Uuid::new_v4().to_string()),
            submission: submission.to_owned(),
            state: State::Open,
            meta: new.meta.clone(),
            concat,
            length: new.length,
            received: 0,
            pieces: 0,
            sha256: None,
            epoch: 0,
            expires_ms: self.expiry(),
            running: Running::default(),
            places: BTreeSet::new(),
        };
        if upload.has_all() {
            upload.become_whole();
        }
        upload
    }

    /// Whether the form of a submission takes one more of these.
    pub(super) async fn check(
        &self,
        tx: &mut Transaction,
        around: &Around,
        upload: &Upload,
    ) -> Result<(), Refusal> {
        let form = self.0.desk.forms.form(&around.form);
        let allowed = form.and_then(|form| form.attachments.as_ref());
        let allowed = allowed.ok_or_else(|| takes_none(&around.form))?;
        if upload
            .length
            .is_some_and(|length| length > allowed.max_size)
        {
            return Err(too_large(allowed.max_size));
        }
        let [attachments, parts] = rows::count(tx, &upload.submission).await?;
        if upload.is_partial() {
            return match parts < MAX_PARTS {
                true => Ok(()),
                false => Err(cannot_join("there are too many parts already")),
            };
        }
        check_type(allowed, &upload.meta.media)?;
        match attachments < i64::from(allowed.max_count) {
            true => Ok(()),
            false => Err(too_many(allowed.max_count)),
        }
    }

    /// Takes an upload away. Its objects are removed later.
    ///
    /// # Errors
    ///
    /// If there is none, its submission is not open, or the database does not answer.
    pub(super) async fn delete(&self, submission: &str, id: &str) -> Result<(), Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let now = self.now();
        transaction!(records, |tx| {
            rows::lock_submission(tx, submission).await?;
            let mut upload = rows::lock_of(tx, submission, id).await?;
            upload.check_living(now)?;
            end(tx, &mut upload, State::Deleted, now).await?;
            Ok::<_, Refusal>(rows::touch_submission(tx, submission).await?)
        })?;
        self.0.desk.changes.tell(submission);
        Ok(())
    }

    /// How an upload stands.
    ///
    /// # Errors
    ///
    /// If there is none, or none any more, or the database does not answer.
    pub(super) async fn look(&self, submission: &str, id: &str) -> Result<Upload, Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let upload = hydrant_records::read!(records, |tx| rows::find(tx, id).await)?;
        let upload = upload.filter(|upload| upload.submission == submission);
        let upload = upload.ok_or_else(super::refusal::unknown_upload)?;
        upload.check_living(self.now())?;
        Ok(upload)
    }

    /// How large attachments of a submission may be; none when that is not known.
    pub(super) async fn max_size(&self, submission: &str) -> Result<Option<u64>, Error> {
        let records = self.0.desk.tables.ready().await?;
        let around = hydrant_records::read!(records, |tx| {
            rows::lock_submission(tx, submission).await
        });
        let form = around
            .ok()
            .and_then(|around| self.0.desk.forms.form(&around.form).cloned());
        Ok(form.and_then(|form| Some(form.attachments.as_ref()?.max_size)))
    }
}

/// An upload that the client has begun before, under the same id.
pub(super) async fn known(
    tx: &mut Transaction,
    upload: &Upload,
) -> Result<Option<Upload>, Refusal> {
    let Some(known) = rows::find(tx, &upload.id).await? else {
        return Ok(None);
    };
    let is_same = known.submission == upload.submission
        && known.meta.text == upload.meta.text
        && known.concat == upload.concat
        && (upload.length.is_none() || known.length == upload.length);
    match is_same {
        true => Ok(Some(known)),
        false => Err(key_reused()),
    }
}

/// An upload ends before it was delivered; what was received of it goes.
pub(super) async fn end(
    tx: &mut Transaction,
    upload: &mut Upload,
    state: State,
    now: i64,
) -> Result<(), Refusal> {
    upload.state = state;
    upload.epoch += 1;
    loose::release(tx, &upload.id, now).await?;
    rows::save(tx, upload).await?;
    Ok(())
}

fn check_type(allowed: &Allowed, media: &str) -> Result<(), Refusal> {
    let is_taken = allowed.types.is_empty() || allowed.types.iter().any(|range| range.has(media));
    match is_taken {
        true => Ok(()),
        false => {
            let taken: Vec<_> = allowed.types.iter().map(ToString::to_string).collect();
            Err(type_not_taken(media, &taken.join(", ")))
        }
    }
}
