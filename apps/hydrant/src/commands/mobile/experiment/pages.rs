//! What people see of experiments.

use hydrant_mobile::proto::{
    ArmSummary, EpochReport, ExperimentSummary, GuardReport, ListExperimentsResponse, MetricReport,
    RampStep, ReportResponse, WhoResponse,
};

use crate::failure::Result;
use crate::output::{Output, Style, Table, plain, printable, time};

pub(super) fn list(output: &Output, answer: &ListExperimentsResponse) -> Result<()> {
    let mut table = Table::new(&["EXPERIMENT", "FLAG", "STATE", "TRAFFIC", "ARMS", "ALARM"]);
    for one in &answer.experiments {
        table.row([
            plain(&one.name),
            plain(&one.flag),
            state(&one.state),
            plain(traffic(one)),
            plain(weights(&one.arms)),
            alarm(one.alarms.first().map_or("", String::as_str)),
        ]);
    }
    let empty = "no experiments yet; put one: `hydrant mobile put experiment/NAME FILE -m 'why'`";
    output.table_or(&table, empty)
}

fn state(state: &str) -> (String, Style) {
    let style = match state {
        "running" => Style::Good,
        "draft" => Style::Waiting,
        _ => Style::Faint,
    };
    (state.to_owned(), style)
}

fn alarm(text: &str) -> (String, Style) {
    (
        text.split(':').next().unwrap_or_default().to_owned(),
        Style::Bad,
    )
}

/// As `20 % of checkout`.
fn traffic(one: &ExperimentSummary) -> String {
    let share = percent(one.traffic);
    match one.layer.as_str() {
        "" => share,
        layer => format!("{share} of {layer}"),
    }
}

/// As `off 90 %, on 10 %`.
fn weights(arms: &[ArmSummary]) -> String {
    let one = |arm: &ArmSummary| format!("{} {}", arm.arm, percent(arm.slots));
    arms.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Slots as percent, as `9.5 %`.
fn percent(slots: u32) -> String {
    format!("{} %", f64::from(slots) / 100.0)
}

pub(super) fn report(output: &Output, answer: &ReportResponse) -> Result<()> {
    let Some(experiment) = answer.experiment.as_option() else {
        return Ok(());
    };
    head(output, experiment, &answer.holdouts)?;
    arms(output, experiment)?;
    metrics(output, &answer.metrics)?;
    guards(output, &answer.guards)?;
    epochs(output, &answer.epochs)?;
    ramp(output, &answer.ramp)?;
    for alarm in &experiment.alarms {
        let alarm = output.paint(Style::Bad, &format!("ALARM {}", printable(alarm)));
        output.text(&format!("\n{alarm}\n{}\n", mend(&alarm)))?;
    }
    Ok(())
}

fn head(output: &Output, one: &ExperimentSummary, holdouts: &[String]) -> Result<()> {
    let holdouts = match holdouts {
        [] => String::new(),
        some => format!(", without the holdout {}", some.join(", ")),
    };
    let line = format!(
        "{} is {}, on the flag {}, with {} of {}{holdouts}",
        one.name,
        one.state,
        one.flag,
        percent(one.traffic),
        match one.layer.as_str() {
            "" => "people".to_owned(),
            layer => format!("the layer {layer}"),
        },
    );
    output.text(&format!("{}\n\n", printable(&line)))
}

fn arms(output: &Output, experiment: &ExperimentSummary) -> Result<()> {
    let mut table = Table::new(&["ARM", "WEIGHT", "PEOPLE"]).numbers_from(1);
    for arm in &experiment.arms {
        let name = match arm.control {
            true => format!("{} (control)", arm.arm),
            false => arm.arm.clone(),
        };
        table.row([plain(name), plain(percent(arm.slots)), plain(arm.people)]);
    }
    output.table(&table)
}

fn metrics(output: &Output, metrics: &[MetricReport]) -> Result<()> {
    if metrics.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["METRIC", "ARM", "A PERSON", "95 % FROM", "TO"]).numbers_from(2);
    for metric in metrics {
        for arm in &metric.arms {
            table.row([
                plain(&metric.metric),
                plain(&arm.arm),
                plain(figure(arm.mean)),
                plain(figure(arm.low)),
                plain(figure(arm.high)),
            ]);
        }
    }
    below(output, &table)
}

fn guards(output: &Output, guards: &[GuardReport]) -> Result<()> {
    if guards.is_empty() {
        return Ok(());
    }
    let columns = ["GUARD", "ARM", "WORSE BY", "LIMIT", "BY CHANCE", "VERDICT"];
    let mut table = Table::new(&columns).numbers_from(2);
    for guard in guards {
        for arm in &guard.arms {
            table.row([
                plain(format!("{} {}", guard.metric, guard.worse)),
                plain(&arm.arm),
                plain(figure(arm.worse_by)),
                plain(figure(guard.limit)),
                plain(chance(arm.p)),
                verdict(&arm.verdict, guard.minimum),
            ]);
        }
    }
    below(output, &table)
}

fn verdict(verdict: &str, minimum: u64) -> (String, Style) {
    match verdict {
        "few" => (format!("below {minimum} people"), Style::Faint),
        "broken" => ("broken".into(), Style::Bad),
        well => (well.to_owned(), Style::Good),
    }
}

fn epochs(output: &Output, epochs: &[EpochReport]) -> Result<()> {
    if epochs.is_empty() {
        return Ok(());
    }
    let columns = [
        "SINCE REVISION",
        "ARM",
        "NEW PEOPLE",
        "EXPECTED",
        "BY CHANCE",
        "RATIO",
    ];
    let mut table = Table::new(&columns).numbers_from(2);
    for epoch in epochs {
        for arm in &epoch.arms {
            table.row([
                plain(epoch.revision),
                plain(&arm.arm),
                plain(arm.people),
                plain(format!("{:.1}", arm.expected)),
                plain(epoch.p.map_or_else(String::new, chance)),
                ratio(epoch),
            ]);
        }
    }
    below(output, &table)
}

fn ratio(epoch: &EpochReport) -> (String, Style) {
    match (epoch.alarm, epoch.p) {
        (true, _) => ("ALARM".into(), Style::Bad),
        (false, Some(_)) => ("well".into(), Style::Good),
        (false, None) => ("few people".into(), Style::Faint),
    }
}

fn ramp(output: &Output, ramp: &[RampStep]) -> Result<()> {
    if ramp.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["RAMP", "STATE", "ARMS"]);
    for step in ramp {
        let style = match step.state.as_str() {
            "next" => Style::Waiting,
            _ => Style::Faint,
        };
        table.row([
            plain(time(step.at_unix_ms)),
            (step.state.clone(), style),
            plain(weights(&step.arms)),
        ]);
    }
    below(output, &table)
}

/// A table with an empty line above it.
fn below(output: &Output, table: &Table) -> Result<()> {
    output.text("\n")?;
    output.table(table)
}

/// A number with the digits that matter.
fn figure(number: f64) -> String {
    let text = format!("{number:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" => "0".into(),
        text => text.to_owned(),
    }
}

/// How likely chance alone does it.
fn chance(p: f64) -> String {
    match p {
        ..0.0001 => "< 0.0001".into(),
        p => figure(p),
    }
}

/// What to do about an alarm.
fn mend(alarm: &str) -> &'static str {
    if alarm.contains("guard rail") {
        "The control has all people now. Look for the cause, stop the experiment, and try again with a new\n\
         one: a new name draws anew, so that nobody is in it who saw the harm."
    } else {
        "Do not decide by these numbers. Look whether an arm crashes or is slow before it reports, whether\n\
         all arms report at the same place, and whether something between app and here drops reports."
    }
}

pub(super) fn who(output: &Output, answer: &WhoResponse) -> Result<()> {
    let mut table = Table::new(&["EXPERIMENT", "FLAG", "ARM", "WHY"]);
    for one in &answer.standings {
        let arm = match one.arm.as_str() {
            "" => ("-".to_owned(), Style::Faint),
            arm => (arm.to_owned(), Style::Good),
        };
        table.row([
            plain(&one.experiment),
            plain(&one.flag),
            arm,
            plain(&one.why),
        ]);
    }
    let empty = "no experiment runs; start one: `hydrant mobile experiment start NAME -m 'why'`";
    output.table_or(&table, empty)
}
