//! What rules make of a request, in words.

use std::sync::Arc;

use super::Ruled;
use super::arms::percent;
use super::matching::Asked;
use crate::decide::Route;
use crate::explain::RuleVerdict;
use crate::service::Instance;

/// Every rule of the route's service, in the order in which they are asked. `chosen` is the instance that the
/// request goes to.
pub(crate) fn verdicts(
    route: &Route<'_>,
    asked: &Asked<'_>,
    chosen: Option<&Instance>,
) -> Vec<RuleVerdict> {
    let mut decider = None;
    let mut all = Vec::new();
    for compiled in route.service.rules.iter().flat_map(|rules| &rules.rules) {
        let decides = |ruled: &Ruled<'_>| Arc::ptr_eq(ruled.compiled, compiled);
        let ruled = route.ruled.filter(decides);
        let verdict = match (decider, &ruled) {
            (Some(decider), _) => format!("not asked: {decider} decides"),
            (None, Some(ruled)) => decision(ruled, asked, chosen),
            (None, None) => match compiled.mismatch(asked) {
                Some(mismatch) => mismatch.to_string(),
                None => "not asked".into(),
            },
        };
        let name = &compiled.kept.rule.name;
        decider = decider.or(ruled.map(|_| name));
        all.push(RuleVerdict {
            name: name.to_string(),
            decides: ruled.is_some(),
            verdict,
        });
    }
    all
}

fn decision(ruled: &Ruled<'_>, asked: &Asked<'_>, chosen: Option<&Instance>) -> String {
    let rule = &ruled.compiled.kept.rule;
    let mut parts = Vec::new();
    if let Some(elsewhere) = ruled.compiled.redirect(asked) {
        return format!("decides: {}", elsewhere.message);
    }
    parts.extend(division(ruled, chosen));
    parts.extend(place(ruled, chosen));
    if let Some(span) = rule.timeout {
        parts.push(format!("the answer has to be complete within {span}"));
    }
    let limit = rule.limit.iter();
    parts.extend(limit.map(|limit| format!("it lets through {limit}")));
    parts.extend(
        rule.rewrite
            .iter()
            .map(|to| format!("its path is rewritten to {to}")),
    );
    parts.extend(rule.retry.iter().map(|retry| format!("it is {retry}")));
    if !rule.request.is_none() {
        parts.push("headers of the request are changed".into());
    }
    if !rule.answer.is_none() {
        parts.push("headers of the answer are changed".into());
    }
    format!("decides: {}", parts.join("; "))
}

/// Where the request goes and where not, and whether that can't be had.
fn place(ruled: &Ruled<'_>, chosen: Option<&Instance>) -> Option<String> {
    let rule = &ruled.compiled.kept.rule;
    let avoid = rule
        .avoid
        .as_ref()
        .map(|avoid| format!("{avoid} is avoided"));
    let pin = rule
        .pin
        .as_ref()
        .map(|pin| format!("it is pinned to {pin}"));
    let mut text = avoid.or(pin)?;
    match chosen {
        Some(chosen) if ruled.diverts_to(chosen) => {
            let id = &chosen.info.id;
            text += &format!("; nothing else is well and has room, so {id} gets it");
        }
        None if ruled.compiled.is_strict() => {
            text += "; none of these can take it, so it is refused"
        }
        _ => {}
    }
    Some(text)
}

fn division(ruled: &Ruled<'_>, chosen: Option<&Instance>) -> Option<String> {
    let arms = ruled.compiled.arms.as_ref()?;
    let weights: Vec<_> = (arms.weights().filter(|(_, slots)| *slots > 0))
        .map(|(version, slots)| format!("{} % to {version}", percent(slots)))
        .collect();
    let (slot, own) = (ruled.slot.number(), arms.version(arms.of(ruled.slot)));
    let whose = match (&ruled.compiled.kept.rule.sticky, ruled.sticks) {
        (Some(source), true) => format!("by its {} the request has slot {slot}", source),
        (Some(source), false) => {
            format!("it has no {}, so chance gave it slot {slot}", source)
        }
        (None, _) => format!("chance gave it slot {slot}"),
    };
    let mut text = format!("{}; {whose}, which is {own}'s", weights.join(", "));
    if let Some(other) = chosen.filter(|chosen| ruled.diverts_to(chosen)) {
        let other = &other.info.version;
        text += &format!("; no instance of {own} is well, so one of {other} gets it");
    }
    Some(text)
}
