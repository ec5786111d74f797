use hydrant_contracts::proto;
use hydrant_runtime::Clock;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cli::{Global, HealthArgs};
use crate::commands::{list, supervised};
use crate::failure::{Failure, Result};
use crate::output::{Output, Style, Table, age, plain, printable};
use crate::servers::{Answer, Servers, print_notes};

/// The exit code when something is not well: it may pass by itself.
pub(crate) const NOT_WELL: u8 = 5;

/// Shows whether the nodes of the fleet, their engines and their services are well.
pub(crate) async fn run(global: &Global, args: &HealthArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let servers = Servers::of(&api, &args.server).await?;
    let answers = servers.ask(health).await;
    let all_well = answers.iter().all(is_well);
    if output.json {
        output.json(&document(&answers, &servers)?)?;
    } else {
        pages(answers, output)?;
    }
    if all_well {
        Ok(())
    } else {
        Err(Failure::Exit(NOT_WELL))
    }
}

async fn health(api: &Api) -> Result<proto::HealthResponse> {
    let health = api.node().health(proto::HealthRequest::default()).await?;
    Ok(health.into_owned())
}

/// A node is well while its engines are; a person asks for the services too.
fn is_well(answer: &Answer<proto::HealthResponse>) -> bool {
    let well = |health: &proto::HealthResponse| health.healthy && troubles(health).is_empty();
    answer.outcome.as_ref().is_ok_and(well)
}

fn troubles(health: &proto::HealthResponse) -> Vec<String> {
    let mut troubles = supervised::troubles(&health.services, &Default::default());
    troubles.extend(health.routing.iter().cloned());
    troubles
}

/// One server as it always was; of several a line each, and a page of each that is not well.
fn pages(mut answers: Vec<Answer<proto::HealthResponse>>, output: &Output) -> Result<()> {
    if let [_] = answers.as_slice() {
        let one = answers.swap_remove(0).outcome?;
        let troubles = troubles(&one);
        return page(&one, one.healthy && troubles.is_empty(), troubles, output);
    }
    output.table(&summary(&answers))?;
    for answer in answers.iter().filter(|answer| !is_well(answer)) {
        output.text("\n")?;
        match &answer.outcome {
            Ok(health) => page(health, false, troubles(health), output)?,
            Err(error) => {
                let word = output.paint(Style::Bad, "does not answer");
                let (server, why) = (printable(&answer.server), printable(&error.message));
                output.text(&format!("server {server} {word}: {why}\n"))?;
            }
        }
    }
    Ok(())
}

fn summary(answers: &[Answer<proto::HealthResponse>]) -> Table {
    let mut table = Table::new(&["SERVER", "ZONE", "STATE", "VERSION", "UP", "INSTANCES"]);
    for answer in answers {
        let (version, up, instances) = match &answer.outcome {
            Ok(health) => (
                health.version.clone(),
                uptime(health),
                health.instances.len().to_string(),
            ),
            Err(_) => Default::default(),
        };
        let state = match (&answer.outcome, is_well(answer)) {
            (Err(_), _) => ("no answer", Style::Bad),
            (Ok(_), is_well) => well(is_well),
        };
        table.row([
            plain(&answer.server),
            plain(&answer.zone),
            (state.0.into(), state.1),
            plain(version),
            plain(up),
            plain(instances),
        ]);
    }
    table
}

fn uptime(health: &proto::HealthResponse) -> String {
    age(i64::try_from(health.uptime_ms).unwrap_or(i64::MAX))
}

fn page(
    health: &proto::HealthResponse,
    all_well: bool,
    troubles: Vec<String>,
    output: &Output,
) -> Result<()> {
    let uptime = uptime(health);
    let (word, style) = well(all_well);
    output.text(&format!(
        "server {} is {}; hydrant {}, up for {uptime}\n\n",
        printable(&health.server),
        output.paint(style, word),
        printable(&health.version)
    ))?;
    output.table(&engines(&health.engines))?;
    if !health.services.is_empty() {
        output.text("\n")?;
        output.table(&services(&health.services))?;
    }
    output.text("\n")?;
    let instances = list::from_wire(&health.instances)?;
    output.table(&list::table(&instances, Clock::system().unix_ms()))?;
    print_notes(troubles.into_iter(), output)
}

fn well(healthy: bool) -> (&'static str, Style) {
    if healthy {
        ("well", Style::Good)
    } else {
        ("not well", Style::Bad)
    }
}

fn engines(engines: &[proto::EngineHealth]) -> Table {
    let mut table = Table::new(&["PORT", "ENGINE", "STATE", "DETAIL"]);
    for engine in engines {
        let (word, style) = well(engine.healthy);
        table.row([
            plain(&engine.port),
            plain(&engine.engine),
            (word.into(), style),
            plain(&engine.detail),
        ]);
    }
    table
}

fn services(services: &[proto::SupervisedService]) -> Table {
    let columns = &["SUPERVISED", "VERSION", "WANTED", "RUNNING", "RESTARTS"];
    let mut table = Table::new(columns).numbers_from(2);
    for service in services {
        let running = service
            .processes
            .iter()
            .filter(|process| process.state == "running");
        let running = running.count() as u32;
        let style = if running < service.wanted {
            Style::Bad
        } else {
            Style::Plain
        };
        let restarts: u32 = service
            .processes
            .iter()
            .map(|process| process.restarts)
            .sum();
        let name = supervised::id(service).map_or(service.service.clone(), |id| id.to_string());
        table.row([
            plain(name),
            plain(&service.version),
            plain(service.wanted),
            (running.to_string(), style),
            plain(restarts),
        ]);
    }
    table
}

/// The node that was asked, with all servers beside.
fn document(answers: &[Answer<proto::HealthResponse>], servers: &Servers) -> Result<Value> {
    let all: Result<Vec<_>> = answers.iter().map(server).collect();
    let all = all?;
    let mut own = all.get(servers.own()).cloned().unwrap_or_default();
    own["servers"] = all.into();
    Ok(own)
}

fn server(answer: &Answer<proto::HealthResponse>) -> Result<Value> {
    let (health, error) = match &answer.outcome {
        Ok(health) => (Some(health), None),
        Err(error) => (None, Some(error)),
    };
    let mut instances = Vec::new();
    if let Some(health) = health {
        instances = list::from_wire(&health.instances)?;
    }
    let engine = |engine: &proto::EngineHealth| {
        json!({
            "port": engine.port,
            "engine": engine.engine,
            "healthy": engine.healthy,
            "detail": engine.detail,
        })
    };
    let engines = health.map(|health| health.engines.iter().map(engine).collect::<Vec<_>>());
    let services = health.map(|health| {
        let services = health.services.iter().map(supervised::Shown::from);
        services.collect::<Vec<_>>()
    });
    let instances = health.map(|_| instances.iter().map(list::Shown::from).collect::<Vec<_>>());
    Ok(json!({
        "healthy": health.is_some_and(|health| health.healthy),
        "server": answer.server,
        "zone": answer.zone,
        "version": health.map(|health| &health.version),
        "uptime_ms": health.map(|health| health.uptime_ms),
        "engines": engines,
        "services": services,
        "instances": instances,
        "routing": health.map(|health| &health.routing),
        "error": error.map(|error| json!({
            "code": error.code.as_str(),
            "reason": error.reason,
            "message": error.message,
        })),
    }))
}
