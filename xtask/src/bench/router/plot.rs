//! A picture of each work: bars of CPU time, user and system.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Result, Seen, Turn};
use crate::bench::median;

/// In pixels: a line, where bars begin, and the longest bar.
const LINE: usize = 28;
const LEFT: usize = 150;
const LONGEST: f64 = 380.0;
const USER: &str = "#1f77b4";
const SYSTEM: &str = "#aec7e8";

/// Writes `docs/benchmarks/ID.svg`.
pub(super) fn write(root: &Path, id: &str, seen: &[Seen]) -> Result<()> {
    let folder = root.join("docs/benchmarks");
    let bars: Vec<Bar> = seen.iter().map(Bar::of).collect();
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join(format!("{id}.svg")), svg(id, &bars)))
        .map_err(|error| error.to_string())
}

/// In microseconds.
struct Bar {
    name: &'static str,
    user: f64,
    system: f64,
}

impl Bar {
    fn of(seen: &Seen) -> Self {
        let of = |what: fn(&Turn) -> f64| median(seen.turns.iter().map(what).collect());
        Self {
            name: seen.kind.name(),
            user: of(|turn| turn.micros().0),
            system: of(|turn| turn.micros().1),
        }
    }
}

fn svg(id: &str, bars: &[Bar]) -> String {
    let most = bars
        .iter()
        .map(|bar| bar.user + bar.system)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = LINE * (bars.len() + 1) + 8;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"600\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\">{id}: CPU µs per request, \
         <tspan fill=\"{USER}\">user</tspan> and <tspan fill=\"{SYSTEM}\">system</tspan></text>\n"
    );
    for (at, bar) in bars.iter().enumerate() {
        let top = LINE * (at + 1);
        let (user, system) = (bar.user / most * LONGEST, bar.system / most * LONGEST);
        let behind = LEFT as f64 + user;
        let (base, sum) = (top + 16, bar.user + bar.system);
        let _ = writeln!(
            text,
            "<text x=\"8\" y=\"{base}\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{user:.1}\" height=\"20\" fill=\"{USER}\"/>\
             <rect x=\"{behind:.1}\" y=\"{top}\" width=\"{system:.1}\" height=\"20\" fill=\"{SYSTEM}\"/>\
             <text x=\"{:.1}\" y=\"{base}\">{sum:.1}</text>",
            bar.name,
            behind + system + 6.0,
        );
    }
    text.push_str("</svg>\n");
    text
}
