//! The report of a day as a page that stands alone: a chart, and a table.

use hydrant_submissions::proto::{HourDay, ReportDayResponse, StoreDay};

use super::report::{NUMBERS, name_of, total};

/// The chart, in units of its own: bars of 24 hours, or 25.
const WIDTH: u32 = 750;
const HEIGHT: u32 = 160;
const HOURS: u32 = 25;

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#2e7d32;--bad:#c62828;--wait:#b58900;--line:#8884}
body{font:16px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.4rem}p.sum{font-size:1.1rem}
svg{width:100%;height:auto;border-bottom:1px solid var(--line)}
.ok{fill:var(--ok)}.bad{fill:var(--bad)}.wait{fill:var(--wait)}svg text{fill:currentColor;font-size:11px}
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
table{border-collapse:collapse;width:100%;font-size:.92rem;margin-top:1.5rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .45rem;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}td.failed{color:var(--bad);font-weight:600}
div.wide{overflow-x:auto}
";

/// The page. Everything that clients have written is escaped.
pub(super) fn page(
    report: &ReportDayResponse,
    note: Option<&str>,
    day: &str,
    zone: &str,
) -> String {
    let [sessions, succeeded, failed, unfinished, ..] = total(&report.stores);
    let (day, zone) = (escaped(day), escaped(zone));
    let chart = chart(&report.hours);
    let table = table(&report.stores);
    let more = match report.more {
        true => "<p>There are more stores than one report tells.</p>",
        false => "",
    };
    let note = note.map(|note| format!("<p>{}</p>", escaped(note)));
    let note = note.unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Submissions of {day}</title><style>{STYLE}</style>\
         <h1>Submissions of {day}, {zone}</h1>\
         <p class=\"sum\">{sessions} sessions: {succeeded} succeeded, {failed} failed, {unfinished} unfinished.</p>\
         {chart}{table}{more}{note}</html>\n"
    )
}

/// Submissions by the hour in which they were accepted.
fn chart(hours: &[HourDay]) -> String {
    let all = |hour: &HourDay| hour.delivered + hour.failed + hour.unfinished;
    let most = hours.iter().map(all).max().unwrap_or(0).max(1);
    let step = WIDTH / HOURS;
    let height = |number: u64| (number as f64 / most as f64) * f64::from(HEIGHT);
    let mut bars = String::new();
    for hour in hours.iter().filter(|hour| hour.hour < HOURS) {
        let mut top = f64::from(HEIGHT) + 12.0;
        for (class, number) in [
            ("ok", hour.delivered),
            ("wait", hour.unfinished),
            ("bad", hour.failed),
        ] {
            top -= height(number);
            bars += &format!(
                "<rect class=\"{class}\" x=\"{}\" y=\"{top:.1}\" width=\"{}\" height=\"{:.1}\"><title>{}:00 {number}</title></rect>",
                hour.hour * step + 2,
                step - 4,
                height(number),
                hour.hour
            );
        }
    }
    let named = (0..24).step_by(6);
    let names = named.map(|hour| {
        format!(
            "<text x=\"{}\" y=\"{}\">{hour}:00</text>",
            hour * step + 2,
            HEIGHT + 26
        )
    });
    let names: String = names.collect();
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Submissions by hour\">\
         <text x=\"2\" y=\"10\">{most} an hour</text>{bars}{names}</svg>\
         <p class=\"key\">Submissions by the hour in which they came:\
         <span style=\"background:var(--ok)\"></span>delivered\
         <span style=\"background:var(--wait)\"></span>unfinished\
         <span style=\"background:var(--bad)\"></span>failed</p>",
        HEIGHT + 32
    )
}

/// The stores with failures first.
fn table(stores: &[StoreDay]) -> String {
    let mut stores: Vec<_> = stores.iter().collect();
    stores.sort_by_key(|store| {
        (
            std::cmp::Reverse(store.failed),
            std::cmp::Reverse(store.unfinished),
        )
    });
    let heads = NUMBERS
        .map(|(name, _)| format!("<th>{}</th>", name.replace('_', " ")))
        .concat();
    let rows: String = stores.iter().map(|store| row(store)).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr><th>store</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn row(store: &StoreDay) -> String {
    let cells = NUMBERS.map(|(name, number)| {
        let number = number(store);
        let class = if name == "failed" && number > 0 {
            " class=\"failed\""
        } else {
            ""
        };
        format!("<td{class}>{number}</td>")
    });
    format!(
        "<tr><td>{}</td>{}</tr>",
        escaped(name_of(store)),
        cells.concat()
    )
}

/// A text as HTML shows it. What moves other texts is shown as its code.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            letter if letter.is_control() || turns(letter) => {
                safe.extend(letter.escape_unicode());
            }
            letter => safe.push(letter),
        }
    }
    safe
}

/// Marks that turn the direction of what is written around them.
fn turns(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_is_text() {
        let store = StoreDay {
            store: "<script>alert(1)</script>\"'&".into(),
            sessions: 1,
            failed: 1,
            ..Default::default()
        };
        let report = ReportDayResponse {
            stores: vec![store],
            hours: vec![HourDay {
                hour: 99,
                failed: u64::MAX / 4,
                ..Default::default()
            }],
            ..Default::default()
        };
        let page = page(&report, Some("in one only: <b>"), "2026-11-20", "UTC");
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
        assert_eq!(
            page.matches("<rect").count(),
            0,
            "an hour that no day has is not drawn"
        );
    }
}
