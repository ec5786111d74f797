//! What a change of rules is, for people and for programs.

use hydrant_contracts::bucket::SLOTS;
use hydrant_contracts::proto::RuleChange;
use hydrant_contracts::rules;
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output::{Output, Style, printable};

/// How many people get another version: behind the name of a change, or nothing.
pub(super) fn moved(change: &RuleChange) -> String {
    let moved = change
        .moved_slots
        .filter(|slots| *slots > 0)
        .map(|slots| f64::from(slots) * 100.0 / f64::from(SLOTS));
    moved.map_or(String::new(), |percent| {
        format!(": {percent} % of its people get another version")
    })
}

/// Lines that go and lines that come.
pub(super) fn print(changes: &[RuleChange], output: &Output) -> Result<()> {
    if changes.is_empty() {
        return output.text("nothing would change\n");
    }
    for change in changes {
        let (name, what) = (printable(&change.name), printable(&change.what));
        output.text(&format!("{name} would be {what}{}\n", moved(change)))?;
        let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let (before, after) = (lines(&change.before), lines(&change.after));
        for line in lines_of_both(&before, &after) {
            let line = match line {
                Line::Goes(line) => output.paint(Style::Bad, &format!("- {}", printable(line))),
                Line::Comes(line) => output.paint(Style::Good, &format!("+ {}", printable(line))),
                Line::Stays(line) => format!("  {}", printable(line)),
            };
            output.text(&format!("{}\n", line.trim_end()))?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Goes(&'a str),
    Comes(&'a str),
    Stays(&'a str),
}

/// Both texts as one, by their longest common lines. Rules are short.
fn lines_of_both<'a>(before: &'a [String], after: &'a [String]) -> Vec<Line<'a>> {
    let (rows, columns) = (before.len(), after.len());
    let mut common = vec![vec![0u32; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = match before[row] == after[column] {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, Vec::new());
    while row < rows || column < columns {
        if row < rows && column < columns && before[row] == after[column] {
            lines.push(Line::Stays(&before[row]));
            (row, column) = (row + 1, column + 1);
        } else if row < rows
            && (column == columns || common[row + 1][column] >= common[row][column + 1])
        {
            lines.push(Line::Goes(&before[row]));
            row += 1;
        } else {
            lines.push(Line::Comes(&after[column]));
            column += 1;
        }
    }
    lines
}

pub(super) fn document(changes: &[RuleChange]) -> Result<Value> {
    let changes = changes.iter().map(|change| {
        Ok(json!({
            "name": change.name,
            "what": change.what,
            "moved_slots": change.moved_slots,
            "before": rule(&change.before)?,
            "after": rule(&change.after)?,
        }))
    });
    changes.collect::<Result<Vec<_>>>().map(Value::from)
}

/// A rule of the wire as JSON; null when there is none.
pub(super) fn rule(toml: &str) -> Result<Value> {
    let rules = rules::parse(toml).map_err(hydrant_contracts::Error::from)?;
    Ok(rules.first().map_or(Value::Null, |rule| json!(rule)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_texts_are_one_with_what_goes_and_comes() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let (before, after) = (lines("abcd"), lines("axcde"));
        let told: String = lines_of_both(&before, &after)
            .iter()
            .map(|line| match line {
                Line::Goes(line) => format!("-{line}"),
                Line::Comes(line) => format!("+{line}"),
                Line::Stays(line) => (*line).to_owned(),
            })
            .collect();
        assert_eq!(told, "a-b+xcd+e");
    }
}
