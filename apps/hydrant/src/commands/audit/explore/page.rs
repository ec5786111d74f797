//! The page, as text. All that comes from outside goes through [`escaped`], and nothing else does.

use hydrant_submissions::proto::{Event, ExploreResponse, Facet, HourOfEvents};

use serde_json::Value;

use super::super::html::escaped;
use super::view::{DAY, FACETS, HOUR, View, encoded, field};

/// The timeline, in units of its own.
const WIDTH: i64 = 744;
const HEIGHT: i64 = 120;

pub(super) struct Shown<'a> {
    pub(super) view: &'a View,
    pub(super) counted: &'a ExploreResponse,
    pub(super) events: &'a [Event],
    pub(super) more: bool,
}

/// A time as people read it; the page says once that it is UTC.
pub(super) fn time(unix_ms: i64) -> String {
    let time = crate::output::time(unix_ms).replace('T', " ");
    time.trim_end_matches('Z').to_owned()
}

/// The members of a JSON object as people read them.
fn plain(detail: &str) -> String {
    let Ok(members) = serde_json::from_str::<serde_json::Map<String, Value>>(detail) else {
        return detail.to_owned();
    };
    let members = members.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}: {text}"),
        other => format!("{name}: {other}"),
    });
    members.collect::<Vec<_>>().join(", ")
}

/// The whole page.
pub(super) fn page(shown: &Shown<'_>) -> String {
    let view = shown.view;
    let body = format!(
        "{}{}<div class=\"split\"><nav aria-label=\"Narrow\">{}</nav><main>{}{}{}</main></div>",
        window(view),
        chips(view),
        facets(view, &shown.counted.facets),
        sum(shown),
        timeline(view, &shown.counted.hours),
        list(shown),
    );
    frame("What happened to submissions", &body)
}

/// A page with a head.
pub(super) fn frame(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
         <link rel=\"stylesheet\" href=\"/style.css\"></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
}

/// Which time is shown, and the ways to others.
fn window(view: &View) -> String {
    let (from, until) = (view.from, view.until);
    let length = until - from;
    let now = View::recent(jiff::Timestamp::now().as_millisecond()).until;
    let jump = |name: &str, from: i64, until: i64| link(&view.between(from, until), name);
    let kept: String = FACETS
        .iter()
        .zip(&view.values)
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let value = escaped(value);
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")
        })
        .collect();
    format!(
        "<form class=\"window\" action=\"/\"><label>From <input type=\"datetime-local\" name=\"from\" \
         value=\"{}\" required></label> <label>until <input type=\"datetime-local\" name=\"until\" \
         value=\"{}\" required></label> <span>UTC</span>{kept}<button>Show</button>\
         <span class=\"jumps\">{}{}{}{}{}</span></form>",
        field(from),
        field(until),
        jump("Earlier", from - length, from),
        jump("Later", until, until + length),
        jump("24 hours", now - DAY, now),
        jump("7 days", now - 7 * DAY, now),
        jump("31 days", now - 31 * DAY, now),
    )
}

/// What it is narrowed by, each with the way back.
fn chips(view: &View) -> String {
    let narrowed = FACETS.iter().zip(&view.values).enumerate();
    let chips = narrowed.filter(|(_, (_, value))| !value.is_empty());
    let chips = chips.map(|(at, (name, value))| {
        let href = escaped(&view.with(at, "").query());
        let value = escaped(value);
        format!(
            "<li><a href=\"/{href}\" title=\"Show all\">{name}: <b>{value}</b> \
             <span aria-hidden=\"true\">×</span><span class=\"aside\">remove</span></a></li>"
        )
    });
    let chips: String = chips.collect();
    match chips.is_empty() {
        true => String::new(),
        false => format!("<ul class=\"chips\">{chips}</ul>"),
    }
}

fn facets(view: &View, facets: &[Facet]) -> String {
    let known = |facet: &Facet| FACETS.iter().position(|name| *name == facet.name);
    let shown = facets
        .iter()
        .filter_map(|facet| Some((known(facet)?, facet)));
    shown
        .map(|(at, facet)| one_facet(view, at, facet))
        .collect()
}

fn one_facet(view: &View, at: usize, facet: &Facet) -> String {
    let name = FACETS[at];
    let values: String = facet
        .values
        .iter()
        .map(|one| {
            let count = one.count;
            match one.value.as_str() {
                "" => format!("<li><span class=\"none\">(none)</span> <span>{count}</span></li>"),
                value if *value == view.values[at] => {
                    let value = escaped(value);
                    format!("<li><b>{value}</b> <span>{count}</span></li>")
                }
                value => {
                    let link = link(&view.with(at, value), value);
                    format!("<li>{link} <span>{count}</span></li>")
                }
            }
        })
        .collect();
    let more = match facet.more {
        true => "<li class=\"none\">and more</li>",
        false => "",
    };
    format!("<details open><summary>{name}</summary><ul>{values}{more}</ul></details>")
}

fn sum(shown: &Shown<'_>) -> String {
    let counted = shown.counted;
    let failed: u64 = counted.hours.iter().map(|hour| hour.failed).sum();
    let events = counted.events;
    let csv = escaped(&shown.view.query());
    let bounded = match counted.more {
        false => String::new(),
        true => {
            let seen = counted.seen_from_unix_ms;
            let back = link(
                &shown.view.between(shown.view.from, seen),
                "look further back",
            );
            format!(
                " Only the newest of this window are counted, back to {}: {back}.",
                escaped(&time(seen))
            )
        }
    };
    format!(
        "<p class=\"sum\"><b>{events}</b> events, <b class=\"bad\">{failed}</b> failed.{bounded} \
         <a href=\"/events.csv{csv}\">CSV</a> <a href=\"/{csv}\">Link to this view</a></p>"
    )
}

/// Events by hour; in a longer window by day. Each bar narrows to its time.
fn timeline(view: &View, hours: &[HourOfEvents]) -> String {
    let step = if view.until - view.from > 2 * DAY {
        DAY
    } else {
        HOUR
    };
    let steps = ((view.until - view.from + step - 1) / step).max(1);
    let mut bars = vec![(0u64, 0u64); steps as usize];
    for hour in hours {
        let at = (hour.at_unix_ms - view.from).max(0) / step;
        if let Some(bar) = bars.get_mut(at as usize) {
            *bar = (bar.0 + hour.ok, bar.1 + hour.failed);
        }
    }
    let most = bars
        .iter()
        .map(|(ok, failed)| ok + failed)
        .max()
        .unwrap_or(0);
    let drawn = bars.iter().enumerate().filter(|(_, bar)| **bar != (0, 0));
    let drawn: String = drawn
        .map(|(at, bar)| one_bar(view, at as i64, step, WIDTH / steps.max(1), *bar, most))
        .collect();
    let (left, right) = (escaped(&time(view.from)), escaped(&time(view.until)));
    let unit = if step == DAY { "day" } else { "hour" };
    format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {}\" role=\"group\" aria-label=\"Events by {unit}\">{drawn}</svg>\
         <figcaption><span>{left}</span><span>at most {most} in one {unit}</span><span>{right}</span>\
         </figcaption></figure>",
        HEIGHT + 2
    )
}

fn one_bar(
    view: &View,
    at: i64,
    step: i64,
    width: i64,
    (ok, failed): (u64, u64),
    most: u64,
) -> String {
    let from = view.from + at * step;
    let until = (from + step).min(view.until);
    let narrowed = escaped(&view.between(from, until).query());
    let height = |count: u64| count as f64 / most.max(1) as f64 * HEIGHT as f64;
    let (tall, bad) = (height(ok), height(failed));
    let (x, width) = (at * width, (width - 2).max(1));
    let bottom = HEIGHT as f64 + 2.0;
    let name = escaped(&format!("{}: {ok} ok, {failed} failed", time(from)));
    format!(
        "<a href=\"/{narrowed}\" aria-label=\"{name}\"><title>{name}</title>\
         <rect class=\"reach\" x=\"{x}\" y=\"0\" width=\"{width}\" height=\"{bottom}\"/>\
         <rect class=\"ok\" x=\"{x}\" y=\"{:.1}\" width=\"{width}\" height=\"{tall:.1}\"/>\
         <rect class=\"bad\" x=\"{x}\" y=\"{:.1}\" width=\"{width}\" height=\"{bad:.1}\"/></a>",
        bottom - tall,
        bottom - tall - bad,
    )
}

fn list(shown: &Shown<'_>) -> String {
    if shown.events.is_empty() {
        return "<p>No event fits. Take a value away above, or choose another time.</p>".into();
    }
    let rows = table(shown.events);
    let more = match shown.events.last().filter(|_| shown.more) {
        Some(last) => link(&shown.view.before(last.id), "Older events"),
        None => String::new(),
    };
    let newest = match shown.view.before {
        Some(_) => {
            let first = shown.view.between(shown.view.from, shown.view.until);
            link(&first, "Newest events")
        }
        None => String::new(),
    };
    format!("{rows}<p class=\"pages\">{newest} {more}</p>")
}

/// Events, each with the way to its submission.
pub(super) fn table(events: &[Event]) -> String {
    let rows: String = events.iter().map(row).collect();
    format!(
        "<table><thead><tr><th>Time</th><th>Kind</th><th>Outcome</th><th>Form</th><th>Store</th>\
         <th>User</th><th>Session</th><th>Submission</th><th>Detail</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

fn row(event: &Event) -> String {
    let cell = |name: &str, text: &str| format!("<td data-name=\"{name}\">{}</td>", escaped(text));
    let class = if event.outcome == "failed" {
        " class=\"failed\""
    } else {
        ""
    };
    let submission = match event.submission.as_str() {
        "" => String::new(),
        id => format!(
            "<a href=\"/submission/{}\">{}</a>",
            encoded(id),
            escaped(id)
        ),
    };
    format!(
        "<tr{class}>{}{}{}{}{}{}{}<td data-name=\"Submission\" class=\"id\">{submission}</td>{}</tr>",
        cell("Time", &time(event.at_unix_ms)),
        cell("Kind", &event.kind),
        cell("Outcome", &event.outcome),
        cell("Form", &event.form),
        cell("Store", &event.store),
        cell("User", &event.user),
        cell("Session", &event.session),
        cell("Detail", &plain(&event.detail)),
    )
}

fn link(view: &View, name: &str) -> String {
    format!(
        "<a href=\"/{}\">{}</a>",
        escaped(&view.query()),
        escaped(name)
    )
}

#[cfg(test)]
mod tests {
    use hydrant_submissions::proto::FacetValue;

    use super::*;

    const BAD: &str = "<script>alert(1)</script>\"'&\u{202e}\u{7}";

    /// A page on which everything that comes from outside is the same text.
    fn with(text: &str) -> String {
        let value = FacetValue {
            value: text.into(),
            count: 3,
            ..Default::default()
        };
        let facets = FACETS.map(|name| Facet {
            name: name.into(),
            values: vec![value.clone()],
            more: true,
            ..Default::default()
        });
        let counted = ExploreResponse {
            facets: facets.into(),
            hours: vec![
                HourOfEvents {
                    at_unix_ms: i64::MIN / 2,
                    ok: u64::MAX / 8,
                    ..Default::default()
                },
                HourOfEvents {
                    at_unix_ms: i64::MAX / 2,
                    failed: 7,
                    ..Default::default()
                },
            ],
            more: true,
            ..Default::default()
        };
        let event = Event {
            kind: text.into(),
            outcome: text.into(),
            submission: text.into(),
            form: text.into(),
            store: text.into(),
            user: text.into(),
            session: text.into(),
            detail: text.into(),
            ..Default::default()
        };
        let mut view = View::recent(1_795_000_000_000);
        view.values = std::array::from_fn(|_| text.to_owned());
        page(&Shown {
            view: &view,
            counted: &counted,
            events: &[event],
            more: true,
        })
    }

    /// What a page consists of besides texts: its tags.
    fn tags(page: &str) -> Vec<String> {
        let parts = page.split('<').skip(1);
        let name = |part: &str| part.split([' ', '>']).next().unwrap_or("").to_owned();
        parts.map(name).collect()
    }

    #[test]
    fn what_clients_write_is_text() {
        let page = with(BAD);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(!page.contains('\u{202e}') && !page.contains('\u{7}'));
        assert!(!page.contains("style=") && !page.contains("http://"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_tag_or_leaves_its_quotes(text in "\\PC{0,40}|[<>\"'&a =/]{0,40}") {
            let page = with(&text);
            let plain = with("x");
            let (mut one, other) = (tags(&page), tags(&plain));
            // An empty value has no link.
            if text.is_empty() {
                one.clear();
            } else {
                proptest::prop_assert_eq!(&one, &other);
            }
            proptest::prop_assert_eq!(page.matches('"').count() % 2, 0);
        }
    }
}
