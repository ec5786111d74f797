//! The methods of the service `Content`.
#![expect(
    refining_impl_trait,
    reason = "the messages are named where the generated trait leaves their encoding open"
)]

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult};
use hydrant_flags::Context;
use hydrant_sdk::{Code, Error};
use serde_json::{Map, Value, json};

use super::ContentDesk;
use crate::content::document::{Entry, Form};
use crate::content::preview::token::{Claims, Invalid};
use crate::content::schedule::{Phase, show_time};
use crate::content::{Content, Explained, Image};
use crate::documents::{DocumentId, Kind};
use crate::proto;
use crate::service::{Edit, Refused};

/// For how long a link to a preview may be good, in milliseconds: a minute to 30 days.
const VALID: std::ops::RangeInclusive<u64> = 60_000..=30 * 24 * 3_600_000;

impl proto::Content for ContentDesk {
    async fn create_preview(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::CreatePreviewRequest>,
    ) -> ServiceResult<proto::CreatePreviewResponse> {
        Response::ok(self.create(&request.to_owned_message()).await?)
    }

    async fn revoke_previews(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::RevokePreviewsRequest>,
    ) -> ServiceResult<proto::RevokePreviewsResponse> {
        let entry = request.entry.to_owned();
        self.content(None, &entry).await?;
        let revoked = self.vault().await?.revoke(&entry, self.now()).await;
        revoked.map_err(Error::from)?;
        Response::ok(proto::RevokePreviewsResponse::default())
    }

    async fn explain_slot(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::ExplainSlotRequest>,
    ) -> ServiceResult<proto::ExplainSlotResponse> {
        let current = self.0.desk.current().await?;
        let request = request.to_owned_message();
        let now = request.at_unix_ms.unwrap_or_else(|| self.now());
        Response::ok(explain(&current.content, &request, now)?)
    }

    async fn list_entries(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::ListEntriesRequest>,
    ) -> ServiceResult<proto::ListEntriesResponse> {
        let current = self.0.desk.current().await?;
        let now = self.now();
        let entries = current.content.entries();
        Response::ok(proto::ListEntriesResponse {
            entries: entries.iter().map(|one| summary(one, now)).collect(),
            revision: current.revision,
            ..Default::default()
        })
    }

    async fn list_images(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::ListImagesRequest>,
    ) -> ServiceResult<proto::ListImagesResponse> {
        let current = self.0.desk.current().await?;
        let images = current.content.images().into_iter();
        let images = images.map(|(sha256, image)| listed(sha256, image, &current.content));
        Response::ok(proto::ListImagesResponse {
            images: images.collect(),
            revision: current.revision,
            ..Default::default()
        })
    }

    async fn remove_image(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::RemoveImageRequest>,
    ) -> ServiceResult<proto::RemoveImageResponse> {
        Response::ok(self.remove(&request.to_owned_message()).await?)
    }

    async fn read_preview(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::ReadPreviewRequest>,
    ) -> ServiceResult<proto::ReadPreviewResponse> {
        let preview = self.read(request.token).await?.to_string();
        Response::ok(proto::ReadPreviewResponse {
            preview,
            ..Default::default()
        })
    }
}

impl ContentDesk {
    async fn remove(
        &self,
        request: &proto::RemoveImageRequest,
    ) -> Result<proto::RemoveImageResponse, Refused> {
        let current = self.0.desk.current().await?;
        if current.content.image(&request.sha256).is_none() {
            return Err(no_image(&request.sha256).into());
        }
        let users = users(&request.sha256, &current.content);
        if !users.is_empty() {
            return Err(in_use(&users).into());
        }
        let edit = Edit {
            id: DocumentId::new(Kind::Image, &request.sha256).map_err(|_| no_image(""))?,
            body: None,
        };
        let (author, reason) = (&request.author, &request.reason);
        let revision = self.0.desk.apply(author, reason, vec![edit]).await?;
        Ok(proto::RemoveImageResponse {
            revision,
            ..Default::default()
        })
    }

    async fn create(
        &self,
        request: &proto::CreatePreviewRequest,
    ) -> Result<proto::CreatePreviewResponse, Error> {
        if !VALID.contains(&request.valid_ms) {
            let message = "a link to a preview is good for a minute to 30 days";
            return Err(Error::new(Code::InvalidArgument, "bad_time", message)
                .mend("give another time, as --for 24h"));
        }
        self.content(request.revision, &request.entry).await?;
        let made = self.now();
        let expires = made.saturating_add_unsigned(request.valid_ms);
        let token = self.vault().await?.signer().await?.sign(&Claims {
            entry: request.entry.clone(),
            revision: request.revision,
            made,
            expires,
        });
        Ok(proto::CreatePreviewResponse {
            url: format!("{}/api/mobile/v1/preview?token={token}", self.0.public_url),
            expires_unix_ms: expires,
            ..Default::default()
        })
    }

    /// What a link leads to, as JSON for programs and for the page.
    async fn read(&self, token: &str) -> Result<Value, Error> {
        let vault = self.vault().await?;
        let claims = vault.signer().await?.open(token, self.now());
        let claims = claims.map_err(invalid)?;
        if vault.is_revoked(&claims.entry, claims.made).await? {
            return Err(revoked());
        }
        let content = self.content(claims.revision, &claims.entry).await?;
        let entry = content
            .entry(&claims.entry)
            .ok_or_else(|| no_entry(&claims.entry))?;
        Ok(preview(entry, &claims))
    }

    /// The content of a revision, or of the newest, which has this entry.
    async fn content(&self, revision: Option<u64>, entry: &str) -> Result<Content, Error> {
        let bundle = self.0.desk.bundle(revision).await?;
        let content = Content::compile(&bundle).map_err(|mistakes| {
            let message = format!(
                "the content of that revision can't be shown: {}",
                mistakes[0]
            );
            Error::new(Code::FailedPrecondition, "does_not_compile", message)
        })?;
        match content.entry(entry) {
            Some(_) => Ok(content),
            None => Err(no_entry(entry)),
        }
    }
}

fn summary(entry: &Entry, now: i64) -> proto::EntrySummary {
    let form = entry.published.as_ref();
    let schedule = form.map(|form| form.schedule);
    let locales = form.into_iter().flat_map(|form| &form.locales);
    proto::EntrySummary {
        entry: entry.name.to_string(),
        r#type: entry.kind.to_string(),
        slot: entry.slot.to_string(),
        priority: entry.priority,
        schedule: phase(schedule.map(|schedule| schedule.phase(now))).into(),
        from_unix_ms: schedule.and_then(|schedule| schedule.from),
        until_unix_ms: schedule.and_then(|schedule| schedule.until),
        locales: locales.map(|one| one.locale.to_string()).collect(),
        draft: entry.draft.is_some(),
        audience: entry.when.is_some(),
        ..Default::default()
    }
}

fn listed(sha256: &str, image: &Image, content: &Content) -> proto::ImageSummary {
    let variants = image.variants.iter().map(|one| proto::ImageVariant {
        width: one.width,
        height: one.height,
        bytes: one.bytes,
        path: one.url(sha256),
        ..Default::default()
    });
    proto::ImageSummary {
        sha256: sha256.into(),
        r#type: image.media_type.clone(),
        bytes: image.bytes,
        width: image.width,
        height: image.height,
        alt: image.alt.clone(),
        variants: variants.collect(),
        used_by: users(sha256, content),
        ..Default::default()
    }
}

/// The entries that refer to an image.
fn users(sha256: &str, content: &Content) -> Vec<String> {
    let entries = content.entries().into_iter();
    let users = entries.filter(|entry| entry.shows(sha256));
    users.map(|entry| entry.name.to_string()).collect()
}

fn preview(entry: &Entry, claims: &Claims) -> Value {
    let (form, what) = match (&entry.draft, &entry.published) {
        (Some(draft), _) => (Some(draft), "Draft, not published"),
        (None, published) => (published.as_ref(), "No draft: the published form"),
    };
    let note = match claims.revision {
        Some(revision) => format!("{what}, as of revision {revision}"),
        None => what.to_owned(),
    };
    let schedule = form.map(|form| form.schedule).unwrap_or_default();
    json!({
        "entry": entry.name,
        "type": entry.kind,
        "slot": entry.slot,
        "note": note,
        "draft": entry.draft.is_some(),
        "revision": claims.revision,
        "from": schedule.from.map(show_time),
        "until": schedule.until.map(show_time),
        "expires": show_time(claims.expires),
        "locales": form.map(locales),
    })
}

fn locales(form: &Form) -> Vec<Value> {
    let localized = form.locales.iter();
    localized
        .map(|one| {
            let shown: Value = serde_json::from_str(&one.json).unwrap_or_default();
            json!({ "locale": one.locale, "fields": shown["fields"] })
        })
        .collect()
}

fn explain(
    content: &Content,
    request: &proto::ExplainSlotRequest,
    now: i64,
) -> Result<proto::ExplainSlotResponse, Error> {
    let attributes = attributes(&request.attributes)?;
    let context = Context {
        targeting_key: attributes.get("targetingKey").and_then(Value::as_str),
        attributes: &attributes,
        now_unix: now / 1000,
    };
    let entries = content.explain(&request.slot, &context, &request.locale, now);
    let valid_until = content
        .entry_for(&request.slot, &context, &request.locale, now)
        .valid_until;
    let mut slots: Vec<String> = content.slots().map(str::to_owned).collect();
    slots.sort_unstable();
    Ok(proto::ExplainSlotResponse {
        entries: entries.iter().map(explained).collect(),
        valid_until_unix_ms: valid_until,
        slots: if entries.is_empty() {
            slots
        } else {
            Vec::new()
        },
        ..Default::default()
    })
}

fn attributes(text: &str) -> Result<Map<String, Value>, Error> {
    match text {
        "" => Ok(Map::new()),
        text => serde_json::from_str(text).map_err(|error| {
            let message = format!("the attributes are not a JSON object: {error}");
            Error::new(Code::InvalidArgument, "bad_attributes", message)
        }),
    }
}

fn explained(entry: &Explained<'_>) -> proto::ExplainedEntry {
    let schedule = entry.schedule.map(|(schedule, _)| schedule);
    proto::ExplainedEntry {
        entry: entry.name.into(),
        priority: entry.priority,
        schedule: phase(entry.schedule.map(|(_, phase)| phase)).into(),
        from_unix_ms: schedule.and_then(|schedule| schedule.from),
        until_unix_ms: schedule.and_then(|schedule| schedule.until),
        audience: entry.audience,
        shown: entry.shown,
        locale: entry.locale.map_or("", |(locale, _)| locale).into(),
        locale_reason: entry.locale.map_or("", |(_, step)| step.as_str()).into(),
        ..Default::default()
    }
}

fn phase(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "never published",
        Some(Phase::Before) => "not yet",
        Some(Phase::Now) => "now",
        Some(Phase::After) => "over",
    }
}

/// The reasons `preview_expired` and `preview_revoked` become the status 410.
fn invalid(invalid: Invalid) -> Error {
    match invalid {
        Invalid::Forged => {
            let message = "this is not a link to a preview that was made here";
            Error::new(Code::PermissionDenied, "preview_forged", message)
                .mend("copy the whole link, or ask for a new one")
        }
        Invalid::Expired => {
            let message = "the time of this link to a preview is over";
            Error::new(Code::FailedPrecondition, "preview_expired", message)
                .mend("make a new one: `hydrant mobile content preview NAME --for 24h`")
        }
    }
}

fn revoked() -> Error {
    let message = "this link to a preview was revoked";
    Error::new(Code::FailedPrecondition, "preview_revoked", message).mend("ask for a new one")
}

fn no_image(sha256: &str) -> Error {
    let message = format!("there is no image `{}`", sha256.escape_debug());
    Error::new(Code::NotFound, "no_such_image", message)
        .mend("see which there are: `hydrant mobile image list`")
}

fn in_use(users: &[String]) -> Error {
    let message = format!("the image is used by: {}", users.join(", "));
    Error::new(Code::FailedPrecondition, "image_in_use", message)
        .mend("change these entries first, their drafts too")
}

fn no_entry(name: &str) -> Error {
    let message = format!("there is no entry `{}`", name.escape_debug());
    Error::new(Code::NotFound, "no_such_entry", message)
        .mend("see which there are: `hydrant mobile content list`")
}
