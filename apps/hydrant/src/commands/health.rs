use hydrant_contracts::proto;
use hydrant_runtime::Clock;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cli::Global;
use crate::commands::{list, supervised};
use crate::failure::{Failure, Result};
use crate::output::{Output, Style, Table, age, plain, printable};

/// The exit code when something is not well: it may pass by itself.
const NOT_WELL: u8 = 5;

/// Shows whether the node, its engines and its services are well.
pub(crate) async fn run(global: &Global, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let health = api
        .node()
        .health(proto::HealthRequest::default())
        .await?
        .into_owned();
    let troubles = supervised::troubles(&health.services, &Default::default());
    // The node is well while its engines are; a person asks for the services too.
    let all_well = health.healthy && troubles.is_empty();
    if output.json {
        output.json(&document(&health)?)?;
    } else {
        page(&health, all_well, troubles, output)?;
    }
    if all_well {
        Ok(())
    } else {
        Err(Failure::Exit(NOT_WELL))
    }
}

fn page(
    health: &proto::HealthResponse,
    all_well: bool,
    troubles: Vec<String>,
    output: &Output,
) -> Result<()> {
    let uptime = age(i64::try_from(health.uptime_ms).unwrap_or(i64::MAX));
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
    list::print_notes(troubles.into_iter(), output)
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

fn document(health: &proto::HealthResponse) -> Result<Value> {
    let instances = list::from_wire(&health.instances)?;
    let engine = |engine: &proto::EngineHealth| {
        json!({
            "port": engine.port,
            "engine": engine.engine,
            "healthy": engine.healthy,
            "detail": engine.detail,
        })
    };
    Ok(json!({
        "healthy": health.healthy,
        "server": health.server,
        "version": health.version,
        "uptime_ms": health.uptime_ms,
        "engines": health.engines.iter().map(engine).collect::<Vec<_>>(),
        "services": health.services.iter().map(supervised::Shown::from).collect::<Vec<_>>(),
        "instances": instances.iter().map(list::Shown::from).collect::<Vec<_>>(),
    }))
}
