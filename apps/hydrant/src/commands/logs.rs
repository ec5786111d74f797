use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hydrant_contracts::{Error, proto};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::Api;
use crate::cli::{Global, LogsArgs};
use crate::failure::{Failure, Result};
use crate::output::{Output, Style, printable, time};
use crate::servers::{ANSWER_WITHIN, Servers, Unheard, late};

/// How long a line waits for earlier ones of other servers.
const HELD: Duration = Duration::from_millis(300);

/// Lines that are on their way from a server to the output.
const UNDER_WAY: usize = 1024;

/// Lines that are held at most; with more of them order matters less than memory.
const MOST_HELD: usize = 100_000;

/// Prints what services print, on all servers.
pub(crate) async fn run(global: &Global, args: &LogsArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let servers = Servers::of(&api, &args.server).await?;
    let request = proto::LogsRequest {
        pattern: args.pattern.clone(),
        follow: args.follow,
        tail: args.tail,
        ..Default::default()
    };
    let names: Vec<_> = servers
        .asked
        .iter()
        .map(|server| server.name.clone())
        .collect();
    let (tell, told) = mpsc::channel(UNDER_WAY);
    for (at, server) in servers.asked.into_iter().enumerate() {
        let (tell, request) = (tell.clone(), request.clone());
        tokio::spawn(async move {
            let end = read(at, &server.api, request, &tell).await;
            // Nobody hears it when the command has ended.
            let _ = tell.send((at, Told::End(end.err()))).await;
        });
    }
    drop(tell);
    let mut merge = Merge {
        output,
        names,
        held: BTreeMap::new(),
        due: VecDeque::new(),
        number: 0,
        ended: Vec::new(),
    };
    match args.follow {
        true => merge.follow(told).await,
        false => merge.past(told, args.tail as usize).await,
    }
}

/// What one server tells.
enum Told {
    Line(proto::LogLine),
    /// Nothing more, and why when it is not all.
    End(Option<Failure>),
}

async fn read(
    at: usize,
    api: &Api,
    request: proto::LogsRequest,
    tell: &mpsc::Sender<(usize, Told)>,
) -> Result<()> {
    let follow = request.follow;
    let node = api.node();
    let late = |_| Failure::from(late());
    let mut lines = timeout(ANSWER_WITHIN, node.logs(request))
        .await
        .map_err(late)??;
    loop {
        let next = lines.message::<proto::LogLine>();
        let line = match follow {
            true => next.await?,
            false => timeout(ANSWER_WITHIN, next).await.map_err(late)??,
        };
        let Some(line) = line else { return Ok(()) };
        let line = Told::Line(line.to_owned_message());
        if tell.send((at, line)).await.is_err() {
            return Ok(());
        }
    }
}

/// Where a line stands among others: by its time, then by its server, and then as they came.
type Place = (i64, usize, u64);

/// Puts the lines of several servers in the order of their times.
struct Merge<'a> {
    output: &'a Output,
    names: Vec<String>,
    /// Lines that may yet be preceded.
    held: BTreeMap<Place, proto::LogLine>,
    /// When lines have waited long enough, in the order in which they came.
    due: VecDeque<(Instant, Place)>,
    number: u64,
    /// How many servers have ended, and those that did not tell all.
    ended: Vec<Option<Error>>,
}

impl Merge<'_> {
    /// The last lines of all.
    async fn past(&mut self, mut told: mpsc::Receiver<(usize, Told)>, tail: usize) -> Result<()> {
        while let Some((at, told)) = told.recv().await {
            self.take(at, told)?;
            self.due.clear();
            while self.held.len() > tail {
                self.held.pop_first();
            }
        }
        self.print_all()?;
        self.end()
    }

    /// All lines, a little late when there is more than one server.
    async fn follow(&mut self, mut told: mpsc::Receiver<(usize, Told)>) -> Result<()> {
        loop {
            let due = self.due.front().map(|(due, _)| *due);
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                told = told.recv() => match told {
                    Some((at, told)) => self.take(at, told)?,
                    None => break,
                },
                () = sleep_until(due) => {}
            }
            self.print_due()?;
        }
        self.print_all()?;
        self.end()
    }

    fn take(&mut self, at: usize, told: Told) -> Result<()> {
        match told {
            Told::Line(line) => {
                self.number += 1;
                let held = match self.names.len() {
                    1 => Duration::ZERO,
                    _ => HELD,
                };
                let place = (line.time_unix_ms, at, self.number);
                self.due.push_back((Instant::now() + held, place));
                self.held.insert(place, line);
            }
            Told::End(None) => self.ended.push(None),
            Told::End(Some(Failure::Error(error))) => {
                let unheard = Unheard {
                    server: self.names[at].clone(),
                    error,
                };
                if self.names.len() > 1 {
                    unheard.warn(self.output);
                }
                self.ended.push(Some(unheard.error));
            }
            Told::End(Some(failure)) => return Err(failure),
        }
        Ok(())
    }

    /// The lines that have waited long enough, and with them what stands before them.
    fn print_due(&mut self) -> Result<()> {
        let (now, mut last) = (Instant::now(), None);
        while let Some((due, place)) = self.due.front()
            && (*due <= now || self.due.len() > MOST_HELD)
        {
            last = last.max(Some(*place));
            self.due.pop_front();
        }
        while let Some(entry) = self.held.first_entry()
            && Some(*entry.key()) <= last
        {
            let ((_, at, _), line) = entry.remove_entry();
            self.print(at, &line)?;
        }
        Ok(())
    }

    fn print_all(&mut self) -> Result<()> {
        while let Some(((_, at, _), line)) = self.held.pop_first() {
            self.print(at, &line)?;
        }
        Ok(())
    }

    fn print(&self, at: usize, line: &proto::LogLine) -> Result<()> {
        let server = &self.names[at];
        if self.output.json {
            return self.output.json(&document(line, server));
        }
        let server = Some(server).filter(|_| self.names.len() > 1);
        self.output.text(&text(line, server, self.output))
    }

    /// Fails when no server told anything.
    fn end(&mut self) -> Result<()> {
        if self.ended.iter().all(Option::is_some)
            && let Some(Some(error)) = self.ended.pop()
        {
            return Err(error.into());
        }
        Ok(())
    }
}

fn document(line: &proto::LogLine, server: &str) -> serde_json::Value {
    json!({
        "time": time(line.time_unix_ms),
        "server": server,
        "service": line.service,
        "instance": line.instance,
        "stream": line.stream,
        "level": Some(&line.level).filter(|level| !level.is_empty()),
        "message": line.message,
    })
}

fn text(line: &proto::LogLine, server: Option<&String>, output: &Output) -> String {
    let style = match line.level.as_str() {
        "error" => Style::Bad,
        "warn" => Style::Waiting,
        _ => Style::Plain,
    };
    let level = if line.level.is_empty() {
        "-"
    } else {
        &line.level
    };
    let level = output.paint(style, &format!("{level:<5}"));
    let server = server.map_or(String::new(), |server| format!("{} ", printable(server)));
    let origin = format!("{server}{}", printable(&line.instance));
    let origin = output.paint(Style::Faint, &origin);
    let message = printable(&line.message);
    format!("{} {origin} {level} {message}\n", time(line.time_unix_ms))
}
