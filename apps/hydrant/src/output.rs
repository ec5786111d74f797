//! What a command prints: tables for people, one JSON document a line for programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where a command's results go.
#[derive(Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    color: bool,
}

impl Output {
    /// Standard output; coloured for a person at a terminal who has not set `NO_COLOR`.
    pub(crate) fn new(json: bool) -> Self {
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = !asked_not_to && io::stdout().is_terminal();
        Self { json, color }
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(Failure::Output)
    }

    /// Prints one JSON document on a line of its own.
    pub(crate) fn json(&self, document: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(document).map_err(|e| Failure::Output(e.into()))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Prints a table.
    pub(crate) fn table(&self, table: &Table) -> Result<()> {
        self.text(&table.render(self.color))
    }

    /// Prints a table; without a row, a line that says so and what to do.
    pub(crate) fn table_or(&self, table: &Table, empty: &str) -> Result<()> {
        match table.rows.is_empty() {
            true => self.text(&format!("{empty}\n")),
            false => self.table(table),
        }
    }

    /// The text in a style, where colours are wanted.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        paint(self.color, style, text)
    }
}

/// How much attention something wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Good,
    Waiting,
    Bad,
    Faint,
}

fn paint(color: bool, style: Style, text: &str) -> String {
    let code = match style {
        _ if !color => return text.into(),
        Style::Plain => return text.into(),
        Style::Good => 32,
        Style::Waiting => 33,
        Style::Bad => 31,
        Style::Faint => 2,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Columns without borders, so that `grep` and `awk` have an easy time.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// A table whose texts stand on the left.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let columns = columns.iter().map(|name| (*name, Side::Left)).collect();
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Puts the columns from `first` on the right, as numbers are.
    pub(crate) fn numbers_from(mut self, first: usize) -> Self {
        for (_, side) in self.columns.iter_mut().skip(first) {
            *side = Side::Right;
        }
        self
    }

    /// Puts the columns from `first` on the left again.
    pub(crate) fn text_from(mut self, first: usize) -> Self {
        for (_, side) in self.columns.iter_mut().skip(first) {
            *side = Side::Left;
        }
        self
    }

    /// Adds a row of one cell per column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Style); N]) {
        let escape = |(text, style): (String, Style)| (printable(&text), style);
        self.rows.push(cells.into_iter().map(escape).collect());
    }

    fn render(&self, color: bool) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let mut text = String::new();
        let header = self.columns.iter().map(|(name, _)| (*name, Style::Faint));
        self.render_row(&mut text, &widths, color, header);
        for row in &self.rows {
            let cells = row.iter().map(|(text, style)| (text.as_str(), *style));
            self.render_row(&mut text, &widths, color, cells);
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].0.chars().count());
        cells.max().unwrap_or(0).max(self.columns[column].0.len())
    }

    fn render_row<'a>(
        &self,
        text: &mut String,
        widths: &[usize],
        color: bool,
        cells: impl Iterator<Item = (&'a str, Style)>,
    ) {
        let mut line = String::new();
        for (at, (cell, style)) in cells.enumerate() {
            let gap = " ".repeat(widths[at] - cell.chars().count());
            let cell = paint(color, style, cell);
            let space = if at == 0 { "" } else { "  " };
            let _ = match self.columns[at].1 {
                Side::Left => write!(line, "{space}{cell}{gap}"),
                Side::Right => write!(line, "{space}{gap}{cell}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// A cell without a style.
pub(crate) fn plain(text: impl ToString) -> (String, Style) {
    (text.to_string(), Style::Plain)
}

/// The text without what would move a terminal's cursor or forge a line: colour codes are dropped,
/// other control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut rest = text.chars().peekable();
    let mut clean = String::with_capacity(text.len());
    while let Some(c) = rest.next() {
        if c == '\x1b' && rest.next_if_eq(&'[').is_some() {
            while rest.next_if(|c| matches!(c, ' '..='?')).is_some() {}
            rest.next_if(|c| matches!(c, '@'..='~'));
        } else if c.is_control() && c != '\t' {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// How long ago, in the largest unit that fits: `12s`, `3m`, `5h`, `2d`.
pub(crate) fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A point in time as RFC 3339 has it, in UTC with milliseconds: `2026-11-22T09:30:00.250Z`.
pub(crate) fn time(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.3}")
}

/// A latency: `850 µs`, `1.2 ms`, `3.4 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// A size: `512 B`, `1.5 MB`, in powers of 1024.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

/// A count with its noun: `1 process`, `2 processes`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let mut table = Table::new(&["SERVICE", "REQUESTS"]).numbers_from(1);
        table.row([plain("api/mobile"), plain(12)]);
        table.row([plain("a"), plain(123_456_789)]);
        assert_eq!(
            table.render(false),
            "SERVICE      REQUESTS\napi/mobile         12\na           123456789\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["STATE", "SINCE"]);
        table.row([("ready".into(), Style::Good), plain("3s")]);
        let text = table.render(true);
        assert!(text.ends_with("\x1b[32mready\x1b[0m  3s\n"), "{text:?}");
    }

    #[test]
    fn a_service_cannot_move_the_cursor() {
        assert_eq!(printable("\x1b[31mred\x1b[0m"), "red");
        assert_eq!(printable("\x1b]0;title\x07"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(printable("a\nb\tc\u{9b}2J"), "a\\nb\tc\\u{9b}2J");
        assert_eq!(printable("\x1b["), "");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!([999, 59_999, 61_000].map(age), ["0s", "59s", "1m"]);
        assert_eq!([7_300_000, 200_000_000].map(age), ["2h", "2d"]);
        assert_eq!(age(-5), "0s");
        assert_eq!(
            [850, 1_234, 3_400_000].map(micros),
            ["850 µs", "1.2 ms", "3.4 s"]
        );
        assert_eq!(
            [1023, 1536, 5 << 40].map(size),
            ["1023 B", "1.5 KB", "5.0 TB"]
        );
        assert_eq!(time(1_763_771_400_250), "2025-11-22T00:30:00.250Z");
    }
}
