//! `hydrant audit report`.

use clap::{Args, ValueEnum};
use hydrant_submissions::proto::{
    MeasureExposureRequest, MeasureExposureResponse, ReportDayRequest, ReportDayResponse, StoreDay,
};
use serde_json::{Value, json};

use super::super::submissions::exposure;
use super::day::{Day, Zone};
use super::{Audit, html};
use crate::failure::{Result, wrong};
use crate::output::{Output, Style, Table, plain};

/// One day: sessions that succeeded and failed, by store
#[derive(Debug, Args)]
#[command(after_help = "\
A session is what the client calls so in X-Session-Id; a submission without one is a session of its own. It has
failed when a submission of it was parked or dropped, or something of it was refused and nothing accepted; it is
unfinished when one is open or on its way, and else it has succeeded.

Examples:
  hydrant audit report --day 2026-11-20
  hydrant audit report --day 2026-11-20 --zone America/Chicago --format csv >report.csv
  hydrant audit report --format html >today.html")]
pub(super) struct ReportArgs {
    /// Which day, as 2026-11-20 [default: today]
    #[arg(long, value_name = "DAY")]
    day: Option<Day>,
    /// Whose day, as America/Chicago
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: Zone,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Html,
}

type Number = fn(&StoreDay) -> u64;

/// The numbers of a store, with their names, in the order in which they are shown.
pub(super) const NUMBERS: [(&str, Number); 11] = [
    ("sessions", |store| store.sessions),
    ("succeeded", |store| store.succeeded),
    ("failed", |store| store.failed),
    ("unfinished", |store| store.unfinished),
    ("submissions", |store| store.submissions),
    ("delivered", |store| store.delivered),
    ("parked", |store| store.parked),
    ("dropped", |store| store.dropped),
    ("under_way", |store| store.under_way),
    ("open", |store| store.open),
    ("refused", |store| store.refused),
];

pub(super) async fn run(audit: &Audit<'_>, args: &ReportArgs) -> Result<()> {
    let day = args.day.unwrap_or_else(|| Day::today(&args.zone));
    let (from_unix_ms, until_unix_ms) = day.bounds(&args.zone).ok_or_else(|| {
        let message = format!("{day} is no day that can be reported");
        wrong("bad_day", message, "name one as 2026-11-20")
    })?;
    let request = ReportDayRequest {
        from_unix_ms,
        until_unix_ms,
        ..Default::default()
    };
    let report = audit.client().report(request).await?.into_owned();
    let exposed = MeasureExposureRequest::default();
    let exposed = audit.exposure().measure(exposed).await?.into_owned();
    let name = args.zone.0.iana_name().unwrap_or("UTC");
    let note = exposure::sentence(&exposed);
    match args.format {
        _ if audit.output.json => audit.output.json(&document(&report, &exposed, day)),
        Format::Table => table(&report, note.as_deref(), day, audit.output),
        Format::Csv => audit.output.text(&csv(&report)),
        Format::Html => audit.output.text(&html::page(
            &report,
            note.as_deref(),
            &day.to_string(),
            name,
        )),
    }
}

/// All stores together.
pub(super) fn total(stores: &[StoreDay]) -> [u64; 11] {
    NUMBERS.map(|(_, number)| stores.iter().map(number).sum())
}

fn table(report: &ReportDayResponse, note: Option<&str>, day: Day, output: &Output) -> Result<()> {
    let mut table = Table::new(&[
        "STORE",
        "SESSIONS",
        "SUCCEEDED",
        "FAILED",
        "UNFINISHED",
        "SUBMISSIONS",
        "DELIVERED",
        "PARKED",
        "DROPPED",
        "UNDER WAY",
        "OPEN",
        "REFUSED",
    ])
    .numbers_from(1);
    for store in &report.stores {
        table.row(cells(
            name_of(store),
            NUMBERS.map(|(_, number)| number(store)),
        ));
    }
    if report.stores.len() > 1 {
        table.row(cells("all", total(&report.stores)));
    }
    output.table_or(&table, &format!("nothing came in on {day}"))?;
    if report.more {
        output.text("\nthere are more stores than one report tells\n")?;
    }
    match note {
        Some(note) => output.text(&format!("\n{note}\n")),
        None => Ok(()),
    }
}

fn cells(name: &str, numbers: [u64; 11]) -> [(String, Style); 12] {
    let mut cells = [const { (String::new(), Style::Plain) }; 12];
    cells[0] = plain(name);
    for (cell, number) in cells[1..].iter_mut().zip(numbers) {
        *cell = plain(number);
    }
    // What failed is what somebody looks for.
    if numbers[2] > 0 {
        cells[3].1 = Style::Bad;
    }
    cells
}

pub(super) fn name_of(store: &StoreDay) -> &str {
    match store.store.as_str() {
        "" => "(none)",
        name => name,
    }
}

fn csv(report: &ReportDayResponse) -> String {
    let mut text = String::from("store");
    for (name, _) in NUMBERS {
        text += ",";
        text += name;
    }
    text += "\r\n";
    for store in &report.stores {
        text += &field(&store.store);
        for (_, number) in NUMBERS {
            text += &format!(",{}", number(store));
        }
        text += "\r\n";
    }
    text
}

/// A field of RFC 4180. What a spreadsheet would take for a formula gets an apostrophe in front.
pub(super) fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{text}", if is_formula { "'" } else { "" });
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

fn document(report: &ReportDayResponse, exposed: &MeasureExposureResponse, day: Day) -> Value {
    let store = |store: &StoreDay| {
        let numbers = NUMBERS
            .iter()
            .map(|(name, number)| ((*name).to_owned(), number(store).into()));
        let mut document: serde_json::Map<String, Value> = numbers.collect();
        document.insert("store".into(), store.store.clone().into());
        Value::from(document)
    };
    let hours: Vec<_> = report.hours.iter().map(|hour| {
        json!({ "hour": hour.hour, "delivered": hour.delivered, "failed": hour.failed, "unfinished": hour.unfinished })
    }).collect();
    let stores: Vec<_> = report.stores.iter().map(store).collect();
    json!({ "day": day.to_string(), "stores": stores, "hours": hours, "more": report.more,
        "inOneDataCentreOnly": exposure::document(exposed) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_formula_is_text() {
        for (text, expected) in [
            ("4711", "4711"),
            ("=1+1", "'=1+1"),
            ("a,b", "\"a,b\""),
            ("-\"x\"", "\"'-\"\"x\"\"\""),
        ] {
            assert_eq!(field(text), expected);
        }
    }
}
