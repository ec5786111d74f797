//! The rules that are kept.

use hydrant_contracts::proto::{KeptRule, ListRulesResponse};
use hydrant_contracts::rules::{self, Rule};
use serde_json::{Value, json};

use super::differences;
use super::served::{Served, behind};
use crate::failure::Result;
use crate::output::{Output, Table, plain, printable, time};
use crate::servers::print_notes;

pub(super) fn print(kept: &ListRulesResponse, served: &[Served], output: &Output) -> Result<()> {
    if output.json {
        let rules: Result<Vec<_>> = kept.rules.iter().map(document).collect();
        return output.json(&json!({
            "epoch": kept.epoch,
            "rules": rules?,
            "served": served,
        }));
    }
    let mut table = Table::new(&[
        "RULE", "SERVICE", "PRIORITY", "DOES", "EPOCH", "AUTHOR", "REASON",
    ]);
    for rule in &kept.rules {
        let parsed = rules::parse(&rule.toml).ok();
        let parsed = parsed.as_ref().and_then(|rules| rules.first());
        table.row([
            plain(&rule.name),
            plain(&rule.service),
            plain(parsed.map_or(0, |rule| rule.priority)),
            plain(parsed.map(does).unwrap_or_default()),
            plain(rule.epoch),
            plain(&rule.author),
            plain(printable(&rule.reason)),
        ]);
    }
    output.table_or(
        &table,
        "no rules: `hydrant rules apply FILE -m REASON` adds some",
    )?;
    let others = behind(served, kept.epoch);
    print_notes(others.map(|server| server.note(kept.epoch)), output)
}

/// What becomes of the requests, in a few words.
fn does(rule: &Rule) -> String {
    let weights = rule.weights.iter();
    let mut does: Vec<_> = weights
        .map(|(version, weight)| format!("{weight} to {version}"))
        .collect();
    does.extend(rule.redirect.iter().map(|to| format!("sends to {}", to.to)));
    does.extend(rule.timeout.iter().map(|span| format!("within {span}")));
    does.extend(rule.avoid.iter().map(|avoid| format!("avoids {avoid}")));
    does.extend(rule.pin.iter().map(|pin| format!("only to {pin}")));
    does.extend(rule.limit.iter().map(ToString::to_string));
    does.extend(rule.rewrite.iter().map(|to| format!("rewrites to {to}")));
    does.extend(rule.retry.iter().map(ToString::to_string));
    if !rule.request.is_none() || !rule.answer.is_none() {
        does.push("changes headers".into());
    }
    does.join(", ")
}

/// The rule as a file has it, so that it can be changed and applied again.
pub(super) fn show(rule: &KeptRule, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&document(rule)?);
    }
    output.text(&format!(
        "# epoch {}, {}, by {}: {}\n{}",
        rule.epoch,
        time(rule.changed_unix_ms),
        printable(&rule.author),
        printable(&rule.reason),
        rule.toml,
    ))
}

fn document(rule: &KeptRule) -> Result<Value> {
    let runs = rule.runs.iter().map(|run| json!([run.version, run.slots]));
    Ok(json!({
        "rule": differences::rule(&rule.toml)?,
        "slots": runs.collect::<Vec<_>>(),
        "author": rule.author,
        "reason": rule.reason,
        "changed": time(rule.changed_unix_ms),
        "epoch": rule.epoch,
    }))
}
