//! `hydrant audit explore`: a page on this machine, for people who don't know yet what they ask.

mod gate;
mod page;
mod story;
mod view;

use std::net::Ipv4Addr;
use std::sync::Arc;

use clap::Args;
use connectrpc::client::HttpClient;
use hydrant_contracts::{Code, Error};
use hydrant_runtime::termination_signal;
use hydrant_sdk::Problem;
use hydrant_sdk::axum::Router;
use hydrant_sdk::axum::extract::{Path, Query, Request, State};
use hydrant_sdk::axum::http::{StatusCode, header};
use hydrant_sdk::axum::middleware::{Next, from_fn_with_state};
use hydrant_sdk::axum::response::{Html, IntoResponse as _, Redirect, Response};
use hydrant_sdk::axum::routing::get;
use hydrant_submissions::proto::{
    AuditClient, Event, ExploreRequest, GetReceiptRequest, GetRequest, ListEventsRequest,
    SubmissionsClient,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Audit;
use super::report::field;
use crate::api::Api;
use crate::failure::{Result, system};
use crate::output::time;
use gate::{Gate, guards};
use view::View;

/// How many events a page has.
const PAGE: u32 = 100;
/// How many lines a CSV has at most, and how many are asked for at once.
const CSV: usize = 10_000;
const CSV_PAGE: u32 = 1000;
/// The most events of one submission.
const STORY: u32 = 1000;
/// How many questions the page asks at the same time: the database has other work.
const AT_ONCE: usize = 2;

/// Look around in a page of your browser: by time, kind, store, user and session
#[derive(Debug, Args)]
#[command(after_help = "\
The page is for this machine alone, and ends with Ctrl-C. The URL that is printed opens it once.

Examples:
  hydrant audit explore
  hydrant audit explore --port 9000")]
pub(super) struct ExploreArgs {
    /// Where the page is on 127.0.0.1; 0 takes any port that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
}

#[derive(Clone)]
struct Explorer(Arc<Inner>);

struct Inner {
    gate: Gate,
    api: Api,
    room: Semaphore,
}

pub(super) async fn run(audit: &Audit<'_>, args: &ExploreArgs) -> Result<()> {
    let taken = |error| {
        let what = format!("cannot open port {} on this machine", args.port);
        system(
            what,
            &error,
            "name another one with --port, or leave it out",
        )
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await;
    let listener = listener.map_err(taken)?;
    let port = listener.local_addr().map_err(taken)?.port();
    let explorer = Explorer(Arc::new(Inner {
        gate: Gate::new(port),
        api: audit.api.clone(),
        room: Semaphore::new(AT_ONCE),
    }));
    let url = explorer.0.gate.url();
    match audit.output.json {
        true => audit.output.json(&serde_json::json!({ "url": url }))?,
        false => {
            let text = format!("open {url}\n\nIt opens once, in one browser. Ctrl-C ends it.\n");
            audit.output.text(&text)?;
        }
    }
    let serve = hydrant_sdk::axum::serve(listener, routes(explorer)).into_future();
    tokio::select! {
        _ = termination_signal() => Ok(()),
        ended = serve => ended.map_err(|error| system("the page broke off", &error, "start it again")),
    }
}

fn routes(explorer: Explorer) -> Router {
    Router::new()
        .route("/", get(show))
        .route("/submission/{id}", get(tell))
        .route("/events.csv", get(csv))
        .route("/style.css", get(style))
        .fallback(async || Problem(no_page()))
        .layer(from_fn_with_state(explorer.clone(), guarded))
        .with_state(explorer)
}

/// Lets in who has the pass, and whoever brings the key.
async fn guarded(State(explorer): State<Explorer>, request: Request, next: Next) -> Response {
    let gate = &explorer.0.gate;
    let query = Query::<view::Query>::try_from_uri(request.uri());
    let key = query.map(|query| query.0.key).unwrap_or_default();
    let headers = request.headers();
    let mut answer = if !gate.is_ours(headers) {
        Problem(foreign()).into_response()
    } else if gate.has_pass(headers) && key.is_empty() {
        next.run(request).await
    } else if let Some(cookie) = gate.enter(&key) {
        ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
    } else if gate.has_pass(headers) {
        Redirect::to("/").into_response()
    } else {
        Problem(locked()).into_response()
    };
    answer.headers_mut().extend(guards());
    answer
}

async fn show(
    State(explorer): State<Explorer>,
    Query(query): Query<view::Query>,
) -> std::result::Result<Response, Problem> {
    let now = jiff::Timestamp::now().as_millisecond();
    let Some(view) = View::of(query) else {
        // The window stands in the URL, so that a link shows the same tomorrow.
        return Ok(Redirect::to(&format!("/{}", View::recent(now).query())).into_response());
    };
    let _room = explorer.room().await;
    let request = ExploreRequest {
        filter: view.request(0).into(),
        ..Default::default()
    };
    let client = explorer.audit();
    let counted = client.explore(request).await.map_err(told)?.into_owned();
    let mut list = view.request(PAGE);
    // What is not counted is not looked for either: the question has an end.
    if counted.more {
        list.from_unix_ms = Some(counted.seen_from_unix_ms);
    }
    let listed = client.list_events(list).await.map_err(told)?.into_owned();
    let shown = page::Shown {
        view: &view,
        counted: &counted,
        events: &listed.events,
        more: listed.more,
    };
    Ok(Html(page::page(&shown)).into_response())
}

async fn tell(
    State(explorer): State<Explorer>,
    Path(id): Path<String>,
) -> std::result::Result<Response, Problem> {
    let id = id.to_lowercase();
    let _room = explorer.room().await;
    let submissions = explorer
        .0
        .api
        .service("service/submissions", SubmissionsClient::new);
    let (get, receipt) = (
        GetRequest {
            id: id.clone(),
            ..Default::default()
        },
        GetReceiptRequest {
            id: id.clone(),
            ..Default::default()
        },
    );
    let list = ListEventsRequest {
        submission: id.clone(),
        limit: STORY,
        ..Default::default()
    };
    let events = explorer.audit().list_events(list).await.map_err(told)?;
    let events = events.into_owned().events;
    if events.is_empty() {
        return Err(Problem(no_such_submission()));
    }
    // What was refused has events, and no submission.
    let story = story::Story {
        id,
        status: submissions.get(get).await.ok().map(|one| one.into_owned()),
        receipt: submissions
            .get_receipt(receipt)
            .await
            .ok()
            .map(|one| one.into_owned()),
        events,
    };
    Ok(Html(story::page(&story)).into_response())
}

async fn csv(
    State(explorer): State<Explorer>,
    Query(query): Query<view::Query>,
) -> std::result::Result<Response, Problem> {
    let view = View::of(query).ok_or_else(|| Problem(no_window()))?;
    let _room = explorer.room().await;
    let mut request = view.request(CSV_PAGE);
    let mut text =
        String::from("event,time,kind,outcome,form,store,user,session,submission,detail\r\n");
    let mut left = CSV;
    loop {
        let client = explorer.audit();
        let listed = client.list_events(request.clone()).await.map_err(told)?;
        let listed = listed.into_owned();
        for event in listed.events.iter().take(left) {
            text += &line(event);
        }
        left = left.saturating_sub(listed.events.len());
        match listed.events.last() {
            Some(last) if listed.more && left > 0 => request.before_id = Some(last.id),
            _ => break,
        }
    }
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"events.csv\"",
        ),
    ];
    Ok((headers, text).into_response())
}

fn line(event: &Event) -> String {
    let (id, at) = (event.id.to_string(), time(event.at_unix_ms));
    let fields = [
        &id,
        &at,
        &event.kind,
        &event.outcome,
        &event.form,
        &event.store,
        &event.user,
        &event.session,
        &event.submission,
        &event.detail,
    ];
    let fields = fields.map(|text| field(text));
    format!("{}\r\n", fields.join(","))
}

async fn style() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (StatusCode::OK, kind, include_str!("style.css")).into_response()
}

impl Explorer {
    fn audit(&self) -> AuditClient<HttpClient> {
        self.0.api.service("service/submissions", AuditClient::new)
    }

    async fn room(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.0.room.acquire().await.ok()
    }
}

fn told(error: connectrpc::ConnectError) -> Problem {
    Problem(Error::from_connect(&error))
}

fn no_page() -> Error {
    Error::new(Code::NotFound, "no_such_page", "there is no such page").mend("begin at /")
}

fn no_such_submission() -> Error {
    let message = "nothing is on record of a submission with this id";
    Error::new(Code::NotFound, "unknown_submission", message)
        .mend("the id is the client's correlation id, a UUID")
}

fn no_window() -> Error {
    let message = "this names no time, or more than 31 days";
    Error::new(Code::InvalidArgument, "no_window", message)
        .mend("write from=2026-11-20T00:00:00Z&until=2026-11-21T00:00:00Z")
}

fn foreign() -> Error {
    let message = "this page is asked by another site, or under another name";
    Error::new(Code::PermissionDenied, "not_this_page", message)
        .mend("open the URL that `hydrant audit explore` has printed, by hand")
}

fn locked() -> Error {
    let message = "this page opens once, with the key that was printed";
    Error::new(Code::PermissionDenied, "locked", message)
        .mend("stop `hydrant audit explore` with Ctrl-C, start it again, and open what it prints")
}
