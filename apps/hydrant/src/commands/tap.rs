//! `hydrant tap`: requests as they pass.

use hydrant_contracts::proto;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::Api;
use crate::cli::{Global, TapArgs};
use crate::failure::{Failure, Result};
use crate::output::{Output, Style, micros, printable, size, time};
use crate::servers::{ANSWER_WITHIN, Server, Servers, Unheard, late};

/// Requests that are on their way from a server to the output.
const UNDER_WAY: usize = 1024;

/// What one server tells.
enum Told {
    Request(Box<proto::PassedRequest>),
    /// Nothing more, and why.
    End(Option<Failure>),
}

/// Prints the requests that pass the routers of the fleet, until it is ended.
pub(crate) async fn run(global: &Global, args: &TapArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let servers = Servers::of(&api, &args.server).await?;
    let names: Vec<_> = (servers.asked.iter())
        .map(|server| server.name.clone())
        .collect();
    let (tell, mut told) = mpsc::channel(UNDER_WAY);
    for (at, server) in servers.asked.into_iter().enumerate() {
        let (tell, request) = (tell.clone(), request(args));
        tokio::spawn(async move {
            let end = listen(at, &server, request, &tell).await;
            // Nobody hears it when the command has ended.
            let _ = tell.send((at, Told::End(end.err()))).await;
        });
    }
    drop(tell);
    let mut left = args.number.unwrap_or(u64::MAX);
    let (mut answered, mut last) = (names.len(), None);
    while left > 0
        && let Some((at, told)) = told.recv().await
    {
        match told {
            Told::Request(request) => {
                left -= u64::from(request.missed == 0);
                print(&request, &names[at], names.len() > 1, output)?;
            }
            Told::End(None) => {}
            Told::End(Some(Failure::Error(error))) => {
                let server = names[at].clone();
                let unheard = Unheard { server, error };
                if names.len() > 1 {
                    unheard.warn(output);
                }
                answered -= 1;
                last = Some(unheard.error);
            }
            Told::End(Some(failure)) => return Err(failure),
        }
    }
    match last {
        Some(error) if answered == 0 => Err(error.into()),
        _ => Ok(()),
    }
}

fn request(args: &TapArgs) -> proto::TapRequest {
    let slower = args.slower.map(|slower| slower.get().as_micros());
    proto::TapRequest {
        pattern: args.pattern.clone(),
        path_prefix: args.path.clone(),
        failed: args.failed,
        slower_than_us: slower.map_or(0, |us| u64::try_from(us).unwrap_or(u64::MAX)),
        ..Default::default()
    }
}

async fn listen(
    at: usize,
    server: &Server,
    request: proto::TapRequest,
    tell: &mpsc::Sender<(usize, Told)>,
) -> Result<()> {
    let node = server.api.node();
    let requests = timeout(ANSWER_WITHIN, node.tap(request)).await;
    let mut requests = requests.map_err(|_| Failure::from(late()))??;
    while let Some(request) = requests.message::<proto::PassedRequest>().await? {
        let request = Told::Request(Box::new(request.to_owned_message()));
        if tell.send((at, request)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn print(
    request: &proto::PassedRequest,
    server: &str,
    is_fleet: bool,
    output: &Output,
) -> Result<()> {
    if output.json {
        return output.json(&document(request, server));
    }
    let server = is_fleet.then_some(server);
    output.text(&match request.missed {
        0 => text(request, server, output),
        missed => {
            let line = format!("{missed} requests passed too fast to be shown");
            format!("{}\n", output.paint(Style::Waiting, &line))
        }
    })
}

fn document(request: &proto::PassedRequest, server: &str) -> serde_json::Value {
    if request.missed > 0 {
        return json!({ "server": server, "missed": request.missed });
    }
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    json!({
        "time": time(request.time_unix_ms),
        "server": server,
        "method": request.method,
        "target": request.target,
        "host": request.host,
        "protocol": request.protocol,
        "client": request.client,
        "caller": some(&request.caller),
        "local": request.local,
        "service": some(&request.service),
        "endpoint": some(&request.endpoint),
        "instance": some(&request.instance),
        "version": some(&request.version),
        "instance_server": some(&request.instance_server),
        "attempts": request.attempts,
        "status": Some(request.status).filter(|status| *status > 0),
        "failure": some(&request.failure),
        "message": some(&request.message),
        "bytes_in": request.bytes_in,
        "bytes_out": request.bytes_out,
        "answered_after_us": request.answered_after_us,
        "duration_us": request.duration_us,
        "trace_parent": some(&request.trace_parent),
        "correlation_id": some(&request.correlation_id),
    })
}

fn text(request: &proto::PassedRequest, server: Option<&str>, output: &Output) -> String {
    let style = match request.status {
        0 | 500.. => Style::Bad,
        400..500 => Style::Waiting,
        _ if !request.failure.is_empty() => Style::Bad,
        _ => Style::Plain,
    };
    let status = match request.status {
        0 => "---".to_owned(),
        status => status.to_string(),
    };
    let status = output.paint(style, &status);
    let server = server.map_or(String::new(), |server| format!("{} ", printable(server)));
    let (method, target) = (printable(&request.method), printable(&request.target));
    let rest = output.paint(Style::Faint, &printable(&whither(request)));
    let failure = match failure(request) {
        text if text.is_empty() => text,
        text => format!("  {}", output.paint(style, &printable(&text))),
    };
    let (at, took) = (time(request.time_unix_ms), micros(request.duration_us));
    format!("{at} {server}{status} {took:>8} {method} {target}  {rest}{failure}\n")
}

/// Where it went, for whom, and how much came back.
fn whither(request: &proto::PassedRequest) -> String {
    let mut text = match request.instance.as_str() {
        "" => String::new(),
        instance => format!("→ {instance} {} ", request.version),
    };
    if request.attempts > 1 {
        text += &format!("after {} tries ", request.attempts);
    }
    if !request.caller.is_empty() {
        text += &format!("for {} ", request.caller);
    }
    text + &format!("from {}, {}", request.client, size(request.bytes_out))
}

fn failure(request: &proto::PassedRequest) -> String {
    match (request.failure.as_str(), request.message.as_str()) {
        (failure, "") => failure.to_owned(),
        (failure, message) => format!("{failure}: {message}"),
    }
}
