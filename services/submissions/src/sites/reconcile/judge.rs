//! What the other database has of a submission that the primary lacks.
//!
//! A step that is done on either side is done. What the primary has is never taken back: it only gets more.

use hydrant_records::Value;

use super::rows::{Named, Whole};

/// What is to be done about a submission.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// `missing`, `further`, `both`, `conflict`; empty when nothing but events is missing.
    pub(super) kind: &'static str,
    /// How the submission is from now on, where it changes.
    pub(super) submission: Option<Named>,
    /// Hops that are added as they are.
    pub(super) hops: Vec<Named>,
    /// Hops of the other side that come behind those of the primary, and get new hashes.
    pub(super) more_hops: Vec<Named>,
    /// Steps as they are from now on.
    pub(super) steps: Vec<Named>,
    /// Uploads, with their pieces, as they are from now on.
    pub(super) uploads: Vec<Named>,
    /// Events that are missing.
    pub(super) events: Vec<Named>,
    /// Uploads of the other side that can't be added any more.
    pub(super) left_out: Vec<Named>,
}

impl Verdict {
    /// Whether nothing is to be done.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what the other database has with what the primary has. `now` is when what was under way is tried again.
pub(super) fn judge(other: &Whole, own: Option<&Whole>, now: i64) -> Verdict {
    let Some(own) = own else {
        return missing(other, now);
    };
    let content = |side: &Whole| side.submission.text("fingerprint").to_owned();
    if content(other) != content(own) {
        return Verdict {
            kind: "conflict",
            ..Verdict::default()
        };
    }
    let mut verdict = Verdict::default();
    if begins_with(&other.hops, &own.hops) && other.hops.len() > own.hops.len() {
        further(other, own, now, &mut verdict);
    } else if !begins_with(&own.hops, &other.hops) {
        both(other, own, now, &mut verdict);
    }
    if verdict.kind.is_empty() {
        uploads(other, own, &mut verdict);
    }
    verdict.events = missing_events(other, own);
    verdict
}

fn missing(other: &Whole, now: i64) -> Verdict {
    Verdict {
        kind: "missing",
        submission: Some(other.submission.clone()),
        hops: other.hops.clone(),
        steps: other.steps.iter().map(|step| unleased(step, now)).collect(),
        uploads: other.uploads.clone(),
        events: other.events.clone(),
        ..Verdict::default()
    }
}

/// The primary is where the other one was before.
fn further(other: &Whole, own: &Whole, now: i64, verdict: &mut Verdict) {
    let mut submission = other.submission.clone();
    let versions = [other, own].map(|side| side.submission.number("version"));
    submission.set("version", versions[0].max(versions[1]) + 1);
    let step = |step: &Named| {
        let mut merged = unleased(step, now);
        if let Some(own) = own.step(step.number("step")) {
            merged.set("epoch", step.number("epoch").max(own.number("epoch")) + 1);
        }
        merged
    };
    verdict.kind = "further";
    verdict.submission = Some(submission);
    verdict.hops = other.hops[own.hops.len()..].to_vec();
    verdict.steps = other.steps.iter().map(step).collect();
    verdict.uploads = other.uploads.clone();
}

/// Each has gone on: what is done on the other side is done, and the rest stays as the primary has it.
fn both(other: &Whole, own: &Whole, now: i64, verdict: &mut Verdict) {
    let is_done = |side: &Whole, number: i64| {
        let step = side.step(number);
        step.is_some_and(|step| step.text("state") == "done")
    };
    let mut steps = own.steps.clone();
    let mut news = Vec::new();
    for step in &mut steps {
        let number = step.number("step");
        if is_done(other, number) && !is_done(own, number) {
            let done = other.step(number).cloned().unwrap_or_else(|| step.clone());
            step.set("state", "done");
            step.set("ended_ms", done.value("ended_ms"));
            step.set("reason", Value::Null);
            step.set("epoch", step.number("epoch").max(done.number("epoch")) + 1);
            news.push(step.text("consumer").to_owned());
        }
    }
    if !news.is_empty() {
        let mut submission = own.submission.clone();
        if own.submission.value("reference") == &Value::Null {
            submission.set("reference", other.submission.value("reference"));
        }
        submission.set("version", own.submission.number("version") + 1);
        go_on(&mut submission, &mut steps, now);
        verdict.kind = "both";
        verdict.submission = Some(submission);
        verdict.more_hops = delivered(&other.hops, &news);
        verdict.steps = changed(steps, own);
    }
    let closed = own.submission.text("state") != "open";
    if closed && other.submission.text("state") != "open" {
        left_out(other, own, verdict);
    }
}

/// The next step has its turn, or the submission is delivered.
fn go_on(submission: &mut Named, steps: &mut [Named], now: i64) {
    let next = steps.iter_mut().find(|step| step.text("state") != "done");
    match next {
        Some(next) if next.text("state") == "waiting" => {
            next.set("state", "ready");
            next.set("due_ms", now);
            submission.set("state", "submitted");
        }
        Some(next) if matches!(next.text("state"), "ready" | "leased") => {
            submission.set("state", "submitted");
        }
        Some(_) => {}
        None => {
            submission.set("state", "delivered");
            submission.set("ended_ms", now);
        }
    }
}

fn changed(steps: Vec<Named>, own: &Whole) -> Vec<Named> {
    let is_new = |step: &Named| own.step(step.number("step")) != Some(step);
    steps.into_iter().filter(is_new).collect()
}

/// The hops that tell of a delivery to one of these.
fn delivered(hops: &[Named], consumers: &[String]) -> Vec<Named> {
    let is_of = |hop: &&Named| {
        let record = serde_json::from_str::<serde_json::Value>(hop.text("record"));
        let consumer = record.ok().and_then(|record| {
            let consumer = record.get("consumer")?.as_str()?;
            Some(consumer.to_owned())
        });
        hop.text("kind") == "delivered" && consumer.is_some_and(|one| consumers.contains(&one))
    };
    hops.iter().filter(is_of).cloned().collect()
}

/// While it is open at the primary, uploads can be added, and go on from where they have come farthest.
fn uploads(other: &Whole, own: &Whole, verdict: &mut Verdict) {
    if own.submission.text("state") != "open" {
        left_out(other, own, verdict);
        return;
    }
    let is_further = |upload: &&Named| {
        let Some(known) = own.upload(upload.text("id")) else {
            return true;
        };
        let received = |one: &Named| one.number("received");
        let is_open = |one: &Named| one.text("state") == "open";
        received(upload) > received(known)
            || (received(upload) == received(known) && is_open(known) && !is_open(upload))
    };
    let further: Vec<_> = other.uploads.iter().filter(is_further).cloned().collect();
    if further.is_empty() {
        return;
    }
    verdict.kind = "further";
    verdict.uploads = further
        .into_iter()
        .map(|mut upload| {
            let known = own.upload(upload.text("id"));
            let epoch = known.map_or(0, |known| known.number("epoch"));
            upload.set("epoch", upload.number("epoch").max(epoch) + 1);
            upload
        })
        .collect();
}

/// What was attached on the other side, and nobody has at the primary, which is closed.
fn left_out(other: &Whole, own: &Whole, verdict: &mut Verdict) {
    let is_attached = |upload: &&Named| {
        upload.text("state") == "whole" && own.upload(upload.text("id")).is_none()
    };
    // The same file, sent again, is there.
    let is_there = |upload: &Named| {
        let mut all = own.uploads.iter();
        all.any(|known| {
            known.text("sha256") == upload.text("sha256") && known.text("state") == "whole"
        })
    };
    let attached = other.uploads.iter().filter(is_attached);
    verdict.left_out = attached
        .filter(|upload| !is_there(upload))
        .cloned()
        .collect();
    if !verdict.left_out.is_empty() && verdict.kind.is_empty() {
        verdict.kind = "conflict";
    }
}

/// A lease of the other side is nobody's here.
fn unleased(step: &Named, now: i64) -> Named {
    let mut step = step.clone();
    if step.text("state") == "leased" {
        step.set("state", "ready");
        step.set("due_ms", now);
        step.set("worker", Value::Null);
        step.set("lease_until_ms", Value::Null);
        step.set("epoch", step.number("epoch") + 1);
    }
    step
}

fn begins_with(hops: &[Named], first: &[Named]) -> bool {
    hops.len() >= first.len()
        && hops
            .iter()
            .zip(first)
            .all(|(one, two)| one.text("hash") == two.text("hash"))
}

fn missing_events(other: &Whole, own: &Whole) -> Vec<Named> {
    let mut known: Vec<&[Value]> = own.events.iter().map(Named::values).collect();
    let mut missing = Vec::new();
    for event in &other.events {
        match known.iter().position(|one| *one == event.values()) {
            Some(at) => drop(known.swap_remove(at)),
            None => missing.push(event.clone()),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::super::rows::{EVENT, HOP, STEP, SUBMISSION};
    use super::*;

    fn row(columns: &'static [&'static str], values: &[(&str, Value)]) -> Named {
        let mut row = Named::new(columns, vec![Value::Null; columns.len()]);
        for (column, value) in values {
            row.set(column, value.clone());
        }
        row
    }

    fn hop(number: i64, kind: &str, consumer: &str, salt: &str) -> Named {
        let record = format!("{{\"consumer\":\"{consumer}\"}}");
        let hash = format!("{number}{kind}{consumer}{salt}");
        row(
            &HOP,
            &[
                ("number", number.into()),
                ("kind", kind.into()),
                ("record", record.into()),
                ("hash", hash.into()),
            ],
        )
    }

    fn whole(hops: Vec<Named>, steps: &[&str]) -> Whole {
        let state = match steps {
            [] => "open",
            steps if steps.iter().all(|state| *state == "done") => "delivered",
            _ => "submitted",
        };
        let step = |(number, state): (usize, &&str)| {
            row(
                &STEP,
                &[
                    ("step", (number as i64).into()),
                    ("consumer", ["rest", "sftp"][number].into()),
                    ("state", (*state).into()),
                    ("epoch", 1.into()),
                ],
            )
        };
        Whole {
            submission: row(
                &SUBMISSION,
                &[
                    ("id", "x".into()),
                    ("state", state.into()),
                    ("fingerprint", "f".into()),
                    ("version", 2.into()),
                ],
            ),
            hops,
            steps: steps.iter().enumerate().map(step).collect(),
            uploads: Vec::new(),
            pieces: Vec::new(),
            copies: Vec::new(),
            events: Vec::new(),
        }
    }

    fn base() -> Vec<Named> {
        vec![hop(0, "accepted", "", ""), hop(1, "submitted", "", "")]
    }

    fn then(kind: &str, consumer: &str, salt: &str) -> Vec<Named> {
        let mut hops = base();
        hops.push(hop(2, kind, consumer, salt));
        hops
    }

    fn states(verdict: &Verdict) -> Vec<(i64, &str)> {
        let steps = verdict.steps.iter();
        steps
            .map(|step| (step.number("step"), step.text("state")))
            .collect()
    }

    #[test]
    fn what_is_missing_is_brought_whole_and_its_leases_are_nobodys() {
        let verdict = judge(&whole(base(), &["leased", "waiting"]), None, 7);
        assert_eq!(verdict.kind, "missing");
        assert_eq!(verdict.hops.len(), 2);
        assert_eq!(states(&verdict), [(0, "ready"), (1, "waiting")]);
        assert_eq!(verdict.steps[0].number("epoch"), 2);
    }

    #[test]
    fn the_side_that_is_further_wins_and_the_other_changes_nothing() {
        let (before, after) = (
            whole(base(), &["leased", "waiting"]),
            whole(then("delivered", "rest", ""), &["done", "ready"]),
        );
        let verdict = judge(&after, Some(&before), 7);
        assert_eq!(verdict.kind, "further");
        assert_eq!(states(&verdict), [(0, "done"), (1, "ready")]);
        // Who holds a lease of before is not heard any more.
        assert_eq!(verdict.steps[0].number("epoch"), 2);
        assert_eq!(verdict.hops.len(), 1);
        assert!(judge(&before, Some(&after), 7).is_nothing());
        assert!(judge(&after, Some(&after), 7).is_nothing());
    }

    #[test]
    fn what_was_delivered_on_either_side_is_not_delivered_again() {
        let other = whole(then("delivered", "rest", "then"), &["done", "ready"]);
        let own = whole(then("dropped", "rest", "here"), &["ready", "waiting"]);
        let verdict = judge(&other, Some(&own), 7);
        assert_eq!(verdict.kind, "both");
        assert_eq!(states(&verdict), [(0, "done"), (1, "ready")]);
        assert_eq!(verdict.more_hops.len(), 1);
        let same_twice = whole(then("delivered", "rest", "here"), &["done", "done"]);
        assert!(judge(&other, Some(&same_twice), 7).is_nothing());
    }

    #[test]
    fn another_content_is_a_conflict_and_nothing_changes() {
        let mut other = whole(base(), &["ready", "waiting"]);
        other.submission.set("fingerprint", "g");
        let verdict = judge(&other, Some(&whole(base(), &["ready", "waiting"])), 7);
        assert_eq!(verdict.kind, "conflict");
        assert!(verdict.submission.is_none() && verdict.steps.is_empty());
    }

    #[test]
    fn events_that_are_missing_come_over_each_as_often_as_it_was() {
        let event = || row(&EVENT, &[("at_ms", 1.into()), ("kind", "failing".into())]);
        let (mut other, mut own) = (whole(base(), &[]), whole(base(), &[]));
        other.events = vec![event(), event()];
        own.events = vec![event()];
        assert_eq!(judge(&other, Some(&own), 7).events.len(), 1);
        own.events.push(event());
        assert!(judge(&other, Some(&own), 7).is_nothing());
    }
}
