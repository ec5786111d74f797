//! Whether the record is whole: each seal is computed again from its event, and each receipt from its hops.

use hydrant_records::{RecordsError, Row, params, read};
use hydrant_sdk::Error;

use super::page;
use super::seal::{SITE, seal};
use crate::proto::{
    Finding, VerifyReceiptsRequest, VerifyReceiptsResponse, VerifySealsRequest, VerifySealsResponse,
};
use crate::receipt;
use crate::sites::Tables;

/// The most findings that one answer tells.
const FINDINGS: usize = 100;

/// Follows the seals behind the one that is named.
///
/// # Errors
///
/// If the database does not answer.
pub(super) async fn seals(
    tables: &Tables,
    request: &VerifySealsRequest,
) -> Result<VerifySealsResponse, Error> {
    let records = tables.ready().await?;
    let limit = page(request.limit, 1000, 5000);
    let select = "SELECT s.number, s.event, s.hash, e.id, e.at_ms, e.kind, e.outcome, e.submission, \
                  e.form, e.store, e.person, e.session, e.detail FROM audit_seals s \
                  LEFT JOIN audit_events e ON e.id = s.event \
                  WHERE s.site = ? AND s.number > ? ORDER BY s.number LIMIT ?";
    let unsealed = "SELECT COUNT(*) FROM audit_events e LEFT JOIN audit_seals s ON s.event = e.id \
                    WHERE s.event IS NULL";
    let after = request.after_number as i64;
    let (rows, unsealed) = read!(records, |tx| {
        let rows = tx.query(select, &params![SITE, after, limit]).await?;
        let unsealed = match (rows.len() as i64) < limit {
            true => tx.query(unsealed, &[]).await?[0].get::<i64>(0)?,
            false => 0,
        };
        Ok::<_, RecordsError>((rows, unsealed))
    })?;
    let mut following = Following {
        number: request.after_number,
        hash: request.after_hash.clone(),
        answer: VerifySealsResponse {
            done: (rows.len() as i64) < limit,
            unsealed: unsealed as u64,
            ..Default::default()
        },
    };
    for row in &rows {
        following.check(row)?;
    }
    Ok(following.ended())
}

/// The chain, as far as it was followed.
struct Following {
    number: u64,
    hash: String,
    answer: VerifySealsResponse,
}

impl Following {
    /// Columns: number, event, hash of the seal; then those of the event, which may be missing.
    fn check(&mut self, row: &Row) -> Result<(), RecordsError> {
        let number = row.get::<i64>(0)? as u64;
        let (event, hash): (i64, String) = (row.get(1)?, row.get(2)?);
        let is_next = number == self.number + 1;
        if !is_next {
            self.find("missing_seal", self.number + 1, 0);
        }
        if row.get::<Option<i64>>(3)?.is_none() {
            self.find("missing_event", number, event);
        } else if seal(&self.hash, number as i64, row, 3)? == hash {
            self.answer.good += 1;
        } else if is_next {
            // Behind a seal that is missing, the next can't be checked: that one is told.
            self.find("changed_event", number, event);
        }
        // The chain goes on from what stands there, so that one change is one finding.
        (self.number, self.hash) = (number, hash);
        Ok(())
    }

    fn find(&mut self, kind: &str, number: u64, event: i64) {
        if self.answer.findings.len() < FINDINGS {
            self.answer.findings.push(Finding {
                kind: kind.to_owned(),
                number,
                event,
                ..Default::default()
            });
        }
    }

    fn ended(self) -> VerifySealsResponse {
        VerifySealsResponse {
            number: self.number,
            hash: self.hash,
            ..self.answer
        }
    }
}

/// Follows the hops of the submissions behind the one that is named.
///
/// # Errors
///
/// If the database does not answer.
pub(crate) async fn receipts(
    tables: &Tables,
    request: &VerifyReceiptsRequest,
) -> Result<VerifyReceiptsResponse, Error> {
    let records = tables.ready().await?;
    let limit = page(request.limit, 200, 1000);
    let select = "SELECT s.id, s.hops, s.hop_hash, h.number, h.kind, h.at_ms, h.record, h.hash \
                  FROM (SELECT id, hops, hop_hash FROM submissions WHERE id > ? ORDER BY id LIMIT ?) \
                  AS s LEFT JOIN submission_hops h ON h.submission = s.id ORDER BY s.id, h.number";
    let params = params![&request.after, limit];
    let rows: Result<_, RecordsError> = read!(records, |tx| tx.query(select, &params).await);
    let rows = rows?;
    let mut answer = VerifyReceiptsResponse::default();
    let mut submissions = 0;
    let mut rest = &rows[..];
    while let Some(row) = rest.first() {
        let id: String = row.get(0)?;
        let mine = rest
            .iter()
            .take_while(|row| row.get::<String>(0).is_ok_and(|of| of == id));
        let (of_one, behind) = rest.split_at(mine.count().max(1));
        match broken_hop(of_one)? {
            None => answer.good += 1,
            Some((kind, number)) if answer.findings.len() < FINDINGS => {
                answer.findings.push(Finding {
                    kind: kind.to_owned(),
                    number,
                    submission: id.clone(),
                    ..Default::default()
                });
            }
            Some(_) => {}
        }
        submissions += 1;
        answer.last = id;
        rest = behind;
    }
    answer.done = submissions < limit;
    Ok(answer)
}

/// The first hop of a submission that is not as it was written.
fn broken_hop(rows: &[Row]) -> Result<Option<(&'static str, u64)>, RecordsError> {
    let mut before = String::new();
    for (expected, row) in rows.iter().enumerate() {
        let expected = expected as u64;
        if row.get::<Option<i64>>(3)? != Some(expected as i64) {
            return Ok(Some(("missing_hop", expected)));
        }
        let (kind, record): (String, String) = (row.get(4)?, row.get(6)?);
        before = receipt::hash(&before, &kind, row.get(5)?, &record);
        if before != row.get::<String>(7)? {
            return Ok(Some(("changed_hop", expected)));
        }
    }
    let (hops, hash): (i64, String) = (rows[0].get(1)?, rows[0].get(2)?);
    let is_whole = hops == rows.len() as i64 && hash == before;
    Ok((!is_whole).then_some(("missing_hop", rows.len() as u64)))
}
