//! A change that was refused: each mistake with the line of the text that it is in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use buffa::Message as _;
use connectrpc::ConnectError;
use hydrant_contracts::Error;
use hydrant_mobile::proto::{Change, Mistake, Mistakes};
use serde_json::{Value, json};

use crate::failure::{Failure, error_json};
use crate::output::{Output, Style, printable};

/// The full name of the detail that carries the mistakes.
const DETAIL: &str = "hydrant.mobile.v1.Mistakes";
/// How much of a line is shown, in characters.
const WIDTH: usize = 100;

/// The failure that a refused change ends with. Its mistakes, if it has some, are told here, each with
/// the line of what was `given`.
pub(crate) fn refused(output: &Output, error: &ConnectError, given: &[Change]) -> Failure {
    let Some(mistakes) = mistakes(error) else {
        return error.clone().into();
    };
    let own = Error::from_connect(error);
    if output.json {
        let mut document = error_json(&own);
        document["error"]["mistakes"] = mistakes.iter().map(as_json).collect();
        eprintln!("{document}");
    } else {
        for mistake in &mistakes {
            eprint!(
                "{}",
                told(output, mistake, text_of(given, &mistake.document))
            );
        }
    }
    Failure::Exit(own.exit_code())
}

fn mistakes(error: &ConnectError) -> Option<Vec<Mistake>> {
    let is_it = |url: &str| url.rsplit('/').next() == Some(DETAIL);
    let detail = error.details.iter().find(|one| is_it(&one.type_url))?;
    let text = detail.value.as_deref()?.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(text).ok()?;
    Some(Mistakes::decode_from_slice(&bytes).ok()?.mistakes)
}

fn text_of<'a>(given: &'a [Change], document: &str) -> Option<&'a str> {
    let is_it = |change: &&Change| {
        let id = change.id.as_option();
        id.is_some_and(|id| document == format!("{}/{}", id.kind, id.name))
    };
    given.iter().find(is_it)?.body.as_deref()
}

fn as_json(mistake: &Mistake) -> Value {
    json!({
        "document": mistake.document,
        "pointer": mistake.pointer,
        "line": mistake.line,
        "column": mistake.column,
        "message": mistake.message,
        "mend": mistake.mend,
    })
}

/// As `flags/demo:12:7 at /flags/x: …`, and under it the line, with a mark at the place.
fn told(output: &Output, mistake: &Mistake, text: Option<&str>) -> String {
    let mut place = printable(&mistake.document);
    if mistake.line > 0 {
        place += &format!(":{}:{}", mistake.line, mistake.column);
    }
    if !mistake.pointer.is_empty() {
        place += &format!(" at {}", printable(&mistake.pointer));
    }
    let mut lines = format!("{place}: {}\n", printable(&mistake.message));
    lines += &shown_line(mistake, text).unwrap_or_default();
    if !mistake.mend.is_empty() {
        lines += &format!(
            "  {}\n",
            output.paint(Style::Faint, &printable(&mistake.mend))
        );
    }
    lines
}

fn shown_line(mistake: &Mistake, text: Option<&str>) -> Option<String> {
    let line = text?.lines().nth((mistake.line as usize).checked_sub(1)?)?;
    let column = (mistake.column as usize).saturating_sub(1);
    // Of a long line, the part around the place.
    let first = column.saturating_sub(WIDTH / 2);
    let part: String = line.chars().skip(first).take(WIDTH).collect();
    let before: String = line.chars().skip(first).take(column - first).collect();
    let gap = " ".repeat(printable(&before).chars().count());
    let number = mistake.line.to_string();
    let margin = " ".repeat(number.len());
    Some(format!(
        "  {number} | {}\n  {margin} | {gap}^\n",
        printable(&part.replace('\t', " "))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::mobile::change::put;

    #[test]
    fn a_mistake_is_shown_at_its_place() {
        let given = [put("flags", "demo", "{\n\t\"flags\": ,\n}".into())];
        let mistake = Mistake {
            document: "flags/demo".into(),
            pointer: "/flags".into(),
            line: 2,
            column: 11,
            message: "no value".into(),
            mend: "write one".into(),
            ..Default::default()
        };
        let text = text_of(&given, &mistake.document);
        assert_eq!(
            told(&Output::new(false), &mistake, text),
            "flags/demo:2:11 at /flags: no value\n  2 |  \"flags\": ,\n    |           ^\n  write one\n"
        );
        for far in [(9, 1), (0, 0), (2, 900)] {
            let (line, column) = far;
            let mistake = Mistake {
                line,
                column,
                ..mistake.clone()
            };
            told(&Output::new(false), &mistake, text);
        }
    }
}
