//! What was seen, for people and for docs/benchmarks.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Result, peers};

/// One table of the page.
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
    /// How and when it was measured.
    pub(super) note: String,
    /// The work whose picture belongs to it.
    pub(super) plot: Option<&'static str>,
}

impl Table {
    /// In Markdown, its columns in line.
    pub(super) fn text(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        let head: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let widths: Vec<usize> = (0..head.len()).map(|at| self.width(at)).collect();
        line(&mut text, &head, &widths);
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        line(&mut text, &rule, &widths);
        self.rows
            .iter()
            .for_each(|row| line(&mut text, row, &widths));
        let _ = write!(text, "\n{}\n", self.note);
        text
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        let own = self.columns[column].chars().count();
        cells.chain([own]).max().unwrap_or(0)
    }
}

fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "| {cell:<width$} ");
    }
    text.push_str("|\n");
}

/// Replaces a part of the page: what is between its two marks.
pub(super) fn write(root: &Path, id: &str, table: &Table) -> Result<()> {
    let path = root.join("docs/benchmarks.md");
    let page = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let mut text = table.text();
    if let Some(work) = table.plot {
        let _ = write!(text, "\n![CPU µs per request](benchmarks/{work}.svg)\n");
    }
    let page = replaced(&page, id, &text)?;
    fs::write(&path, page).map_err(|error| error.to_string())
}

fn replaced(page: &str, id: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {id} -->\n"), format!("<!-- end of {id} -->"));
    let found = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some(format!("{before}{begin}{text}{end}{after}"))
    });
    found.ok_or_else(|| format!("docs/benchmarks.md has no place for {id}: {begin}{end}"))
}

/// The day, and what was measured on what.
pub(super) fn today() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    format!(
        "{}; {}, Linux {kernel}; nginx {}, HAProxy {}, Envoy {}",
        told("date", &["-u", "+%F"], ""),
        processors(),
        told("nginx", &["-v"], "nginx/"),
        told("haproxy", &["-v"], "version "),
        peers::ENVOY,
    )
}

fn processors() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |name: &'static str| text.lines().filter(move |line| line.starts_with(name));
    let model = values("model name")
        .next()
        .and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model.trim());
    format!("{} virtual cores ({model})", values("processor").count())
}

/// The word behind something that a program says.
fn told(program: &str, arguments: &[&str], behind: &str) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map_or(String::new(), |output| {
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    });
    let word = text
        .split_once(behind)
        .and_then(|(_, rest)| rest.split_whitespace().next());
    let word = word.map(|word| {
        word.split('-')
            .next()
            .filter(|_| !behind.is_empty())
            .unwrap_or(word)
    });
    word.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_page_is_replaced_and_the_rest_stays() {
        let page =
            "a\n<!-- W1 -->\nold\n<!-- end of W1 -->\n<!-- W10 -->\nx\n<!-- end of W10 -->\n";
        let next = replaced(page, "W1", "new\n").unwrap();
        assert_eq!(next, page.replace("old", "new"));
        assert!(replaced(page, "W2", "").is_err());
    }
}
