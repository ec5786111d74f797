//! What the front refused, on record.

use hydrant_records::{RecordsError, transaction};
use hydrant_sdk::Error;
use serde_json::json;

use super::Desk;
use super::events::{self, Event};
use crate::proto::{Origin, RefuseRequest, RefuseResponse, Refused};

/// How many one request brings at most; the front never brings more.
const MOST: usize = 700;
/// As long as the columns are.
const SUBMISSION: usize = 36;
const FORM: usize = 63;
const ORIGIN: usize = 100;

/// Puts refusals on record.
///
/// # Errors
///
/// If the database does not answer.
pub(super) async fn put(desk: &Desk, request: &RefuseRequest) -> Result<RefuseResponse, Error> {
    let records = desk.tables.ready().await?;
    let now = desk.clock.unix_ms();
    let refused: Vec<_> = request.refused.iter().take(MOST).map(cut).collect();
    let events: Vec<_> = refused.iter().map(|one| event(one, now)).collect();
    let done: Result<_, RecordsError> = transaction!(records, |tx| events::put(tx, &events).await);
    done?;
    Ok(RefuseResponse::default())
}

/// What fits the table: a client must not be able to make the whole request fail.
fn cut(one: &Refused) -> Refused {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let origin = one.origin.as_option().cloned().unwrap_or_default();
    Refused {
        submission: cut(&one.submission, SUBMISSION),
        form: cut(&one.form, FORM),
        origin: Origin {
            store: cut(&origin.store, ORIGIN),
            user: cut(&origin.user, ORIGIN),
            session: cut(&origin.session, ORIGIN),
            ..Default::default()
        }
        .into(),
        reasons: one.reasons.clone(),
        ..Default::default()
    }
}

fn event(one: &Refused, now: i64) -> Event<'_> {
    let single = one.reasons.iter().next().filter(|(_, count)| **count == 1);
    let detail = match single.filter(|_| one.reasons.len() == 1) {
        Some((reason, _)) => json!({ "reason": reason }),
        None => {
            let count: u64 = one.reasons.values().sum();
            let reasons: std::collections::BTreeMap<_, _> = one.reasons.iter().collect();
            json!({ "count": count, "reasons": reasons })
        }
    };
    Event {
        at_ms: now,
        kind: "refused",
        outcome: "failed",
        submission: &one.submission,
        form: &one.form,
        origin: one.origin.as_option().unwrap_or(nobody()),
        detail: detail.to_string(),
    }
}

fn nobody() -> &'static Origin {
    static NOBODY: std::sync::LazyLock<Origin> = std::sync::LazyLock::new(Origin::default);
    &NOBODY
}
