//! `hydrant submissions exposure`.

use hydrant_runtime::Clock;
use hydrant_submissions::proto::{MeasureExposureRequest, MeasureExposureResponse};
use serde_json::{Value, json};

use super::Desk;
use crate::failure::Result;
use crate::output::{Style, Table, age, plain};

const ONE: &str =
    "there is one data centre: no database and no object store beside it is configured";

pub(super) async fn run(desk: &Desk<'_>) -> Result<()> {
    let request = MeasureExposureRequest::default();
    let measured = desk.exposure().measure(request).await?.into_owned();
    if desk.output.json {
        return desk.output.json(&document(&measured));
    }
    let mut table = Table::new(&["WHAT", "IN ONE DATA CENTRE ONLY", "OLDEST"]).numbers_from(1);
    let now = Clock::system().unix_ms();
    for (name, exposed) in measured.kinds() {
        let count = match exposed.count {
            0 => (String::from("0"), Style::Good),
            count => (count.to_string(), Style::Waiting),
        };
        let oldest = exposed.oldest_unix_ms.map(|at| age(now - at));
        table.row([plain(name), count, plain(oldest.unwrap_or_default())]);
    }
    desk.output.table_or(&table, ONE)
}

/// One line for people; nothing where there is one data centre.
pub(in crate::commands) fn sentence(measured: &MeasureExposureResponse) -> Option<String> {
    let now = Clock::system().unix_ms();
    let parts: Vec<_> = measured
        .kinds()
        .iter()
        .map(|(name, exposed)| match exposed.oldest_unix_ms {
            Some(oldest) => format!(
                "{} {name}, the oldest for {}",
                exposed.count,
                age(now - oldest)
            ),
            None => format!("no {name}"),
        })
        .collect();
    (!parts.is_empty()).then(|| format!("in one data centre only, now: {}", parts.join("; ")))
}

/// What there is to tell, as JSON.
pub(in crate::commands) fn document(measured: &MeasureExposureResponse) -> Value {
    let shown = measured.kinds().into_iter().map(|(name, exposed)| {
        let shown = json!({ "count": exposed.count, "oldestUnixMs": exposed.oldest_unix_ms });
        (name.to_owned(), shown)
    });
    Value::Object(shown.collect())
}
