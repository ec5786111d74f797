use hydrant_contracts::{Code, Error, proto};
use serde_json::{Value, json};

use crate::api::Api;
use crate::cli::{ExplainArgs, Global};
use crate::failure::Result;
use crate::output::{Output, Style, Table, micros, plain, printable};

/// Shows how a request would be routed.
pub(crate) async fn run(global: &Global, args: &ExplainArgs, output: &Output) -> Result<()> {
    let request = request(args)?;
    let mut api = Api::connect(global).await?;
    if let Some(server) = &args.server {
        api = api.of_server(server.as_str());
    }
    let explained = api.node().explain(request).await?.into_owned();
    if output.json {
        return output.json(&document(&explained));
    }
    page(&explained, output)
}

fn request(args: &ExplainArgs) -> Result<proto::ExplainRequest> {
    let headers: Result<Vec<_>> = args.headers.iter().map(|text| header(text)).collect();
    Ok(proto::ExplainRequest {
        method: args.method.to_ascii_uppercase(),
        path: args.path.clone(),
        headers: headers?,
        public_listener: args.public,
        ..Default::default()
    })
}

fn header(text: &str) -> Result<proto::Header> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        let message = format!("`{}` is not a header", text.escape_debug());
        Error::new(Code::InvalidArgument, "bad_header", message)
            .mend("write it as 'name: value', in quotes")
    })?;
    Ok(proto::Header {
        name: name.trim().into(),
        value: value.trim().into(),
        ..Default::default()
    })
}

fn page(explained: &proto::ExplainResponse, output: &Output) -> Result<()> {
    output.text(&format!("{}\n\n", headline(explained, output)))?;
    let facts = [
        ("rule", &explained.rule),
        ("caller", &explained.caller),
        ("on failure", &explained.on_failure),
    ];
    for (name, fact) in facts.into_iter().filter(|(_, fact)| !fact.is_empty()) {
        output.text(&format!("  {name:<10}  {}\n", printable(fact)))?;
    }
    if !explained.rules.is_empty() {
        output.text("\n")?;
        output.table(&rules(explained))?;
    }
    if explained.candidates.is_empty() {
        return Ok(());
    }
    output.text("\n")?;
    output.table(&candidates(explained))
}

fn headline(explained: &proto::ExplainResponse, output: &Output) -> String {
    if explained.outcome == "redirect" {
        let (status, location) = (explained.status, printable(&explained.location));
        let word = output.paint(Style::Good, "redirect");
        return format!("{word} with {status} to {location}");
    }
    if explained.outcome != "forward" {
        let (status, reason) = (explained.status, printable(&explained.reason));
        return format!(
            "{} with {status} {reason}",
            output.paint(Style::Bad, "refuse")
        );
    }
    let (chosen, path) = (
        printable(&explained.chosen),
        printable(&explained.upstream_path),
    );
    format!(
        "{} to {chosen}, which sees {path}",
        output.paint(Style::Good, "forward")
    )
}

fn rules(explained: &proto::ExplainResponse) -> Table {
    let mut table = Table::new(&["RULE", "VERDICT"]);
    for rule in &explained.rules {
        let style = match rule.decides {
            true => Style::Good,
            false => Style::Plain,
        };
        table.row([plain(&rule.name), (printable(&rule.verdict), style)]);
    }
    table
}

fn candidates(explained: &proto::ExplainResponse) -> Table {
    let columns = &[
        "CANDIDATE",
        "ADDRESS",
        "VERSION",
        "LOAD",
        "IN FLIGHT",
        "LATENCY",
        "VERDICT",
    ];
    let mut table = Table::new(columns);
    for candidate in &explained.candidates {
        table.row([
            plain(&candidate.instance),
            plain(place(candidate)),
            plain(&candidate.version),
            plain(format!("{:.1}", candidate.load)),
            plain(candidate.in_flight),
            plain(micros(candidate.latency_us)),
            verdict(candidate, &explained.chosen),
        ]);
    }
    table
}

/// Where it is reached: at its address, or through the node of its server.
fn place(candidate: &proto::Candidate) -> String {
    match candidate.nearness.as_str() {
        "" | "this server" => candidate.address.clone(),
        nearness => format!("{} ({nearness})", candidate.server),
    }
}

fn verdict(candidate: &proto::Candidate, chosen: &str) -> (String, Style) {
    if !candidate.excluded.is_empty() {
        let limit = limit(candidate);
        (
            format!("excluded: {}{limit}", candidate.excluded),
            Style::Bad,
        )
    } else if candidate.instance == chosen {
        ("chosen".into(), Style::Good)
    } else {
        ("may be chosen".into(), Style::Plain)
    }
}

fn limit(candidate: &proto::Candidate) -> String {
    match candidate.limit {
        0 => String::new(),
        limit => format!(" ({} wait, at most {limit} may)", candidate.waiting),
    }
}

fn document(explained: &proto::ExplainResponse) -> Value {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let candidate = |candidate: &proto::Candidate| {
        json!({
            "instance": candidate.instance,
            "address": candidate.address,
            "server": candidate.server,
            "zone": some(&candidate.zone),
            "nearness": candidate.nearness,
            "version": candidate.version,
            "excluded": some(&candidate.excluded),
            "load": candidate.load,
            "in_flight": candidate.in_flight,
            "latency_us": candidate.latency_us,
            "waiting": candidate.waiting,
            "limit": Some(candidate.limit).filter(|limit| *limit != 0),
        })
    };
    let rule = |rule: &proto::RuleVerdict| json!({"name": rule.name, "decides": rule.decides, "verdict": rule.verdict});
    json!({
        "outcome": explained.outcome,
        "status": Some(explained.status).filter(|status| *status != 0),
        "reason": some(&explained.reason),
        "rule": explained.rule,
        "rules": explained.rules.iter().map(rule).collect::<Vec<_>>(),
        "location": some(&explained.location),
        "caller": explained.caller,
        "candidates": explained.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "chosen": some(&explained.chosen),
        "upstream_path": some(&explained.upstream_path),
        "on_failure": explained.on_failure,
    })
}
