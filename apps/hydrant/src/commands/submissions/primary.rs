//! `hydrant submissions primary`.

use clap::Args;
use hydrant_runtime::Duration as Span;
use hydrant_submissions::proto::{
    DeclarePrimaryRequest, Primary, ShowSitesRequest, ShowSitesResponse, Site,
};
use serde_json::{Value, json};

use super::{Desk, decide};
use crate::failure::Result;
use crate::output::{Style, Table, plain, printable, time};

#[derive(Debug, Args)]
pub(crate) struct PrimaryArgs {
    /// Say for the first time which database it is
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Why: it is kept with it
    #[arg(short = 'm', long, value_name = "TEXT", requires = "set")]
    reason: Option<String>,
    /// Who [default: $USER]
    #[arg(long, value_name = "NAME", requires = "set")]
    author: Option<String>,
    /// For how long a server may go on without asking coordination again
    #[arg(long, value_name = "TIME", requires = "set")]
    confirm: Option<Span>,
}

pub(crate) async fn run(desk: &Desk<'_>, args: &PrimaryArgs) -> Result<()> {
    let sites = desk.sites();
    let shown = match &args.set {
        None => sites.show_sites(ShowSitesRequest::default()).await?,
        Some(site) => {
            let confirm = args.confirm.map_or(0, |span| span.get().as_millis());
            let request = DeclarePrimaryRequest {
                site: site.clone(),
                author: decide::author(args.author.as_ref()),
                reason: decide::reason(args.reason.as_deref(), "the first one")?,
                confirm_ms: u32::try_from(confirm).unwrap_or(u32::MAX),
                ..Default::default()
            };
            sites.declare_primary(request).await?
        }
    };
    show(desk, &shown.into_owned())
}

pub(super) fn show(desk: &Desk<'_>, shown: &ShowSitesResponse) -> Result<()> {
    if desk.output.json {
        return desk.output.json(&document(shown));
    }
    if !shown.has_two {
        return desk
            .output
            .text("there is one database, so it is the primary\n");
    }
    let primary = shown.primary.as_option();
    desk.output.text(&format!("{}\n\n", sentence(primary)))?;
    let mut table = Table::new(&[
        "DATABASE", "ADDRESS", "STATE", "FOLLOWS", "BEHIND", "MISSING",
    ]);
    for site in &shown.sites {
        let follows = site.follows.as_option();
        let behind = follows.and_then(|one| one.seconds_behind);
        table.row([
            plain(&site.name),
            plain(&site.address),
            state(site, primary),
            plain(follows.map(following).unwrap_or_default()),
            plain(
                behind
                    .map(|seconds| format!("{seconds} s"))
                    .unwrap_or_default(),
            ),
            plain(site.missing.join(", ")),
        ]);
    }
    desk.output.table_or(&table, "")
}

fn sentence(primary: Option<&Primary>) -> String {
    let Some(primary) = primary else {
        return "no primary is declared, so nothing is taken in: hydrant submissions primary --set NAME \
                -m 'the first one'"
            .into();
    };
    let is = if primary.ready {
        "is"
    } else {
        "is about to become"
    };
    let mut sentence = format!(
        "{} {is} the primary under epoch {}, since {}: {} ({})",
        primary.site,
        primary.epoch,
        time(primary.since_unix_ms),
        printable(&primary.reason),
        printable(&primary.author)
    );
    if primary.unreconciled {
        sentence += "\nwhat the former one had taken may not have come over: hydrant submissions reconcile --plan";
    }
    sentence
}

fn following(follows: &hydrant_submissions::proto::Follower) -> String {
    let how = match (follows.receives, follows.applies) {
        (true, true) => "",
        (false, true) => ", hears nothing",
        (_, false) => ", has stopped",
    };
    let error = match follows.error.is_empty() {
        true => String::new(),
        false => format!(": {}", printable(&follows.error)),
    };
    format!("{}{how}{error}", follows.host)
}

fn state(site: &Site, primary: Option<&Primary>) -> (String, Style) {
    if !site.failure.is_empty() {
        return (printable(&site.failure), Style::Bad);
    }
    let is_primary = primary.is_some_and(|primary| primary.site == site.name);
    match (is_primary, site.read_only) {
        (true, false) => ("takes writes".into(), Style::Good),
        (true, true) => ("read-only".into(), Style::Bad),
        (false, true) => ("read-only".into(), Style::Good),
        (false, false) => ("fenced, not read-only".into(), Style::Waiting),
    }
}

pub(super) fn document(shown: &ShowSitesResponse) -> Value {
    let sites = shown.sites.iter().map(|site| {
        json!({
            "name": site.name,
            "address": site.address,
            "failure": site.failure,
            "readOnly": site.read_only,
            "position": site.position,
            "missing": site.missing,
            "fence": { "epoch": site.fence_epoch, "site": site.fence_site },
            "follows": site.follows.as_option().map(|follows| json!({
                "host": follows.host,
                "receives": follows.receives,
                "applies": follows.applies,
                "secondsBehind": follows.seconds_behind,
                "error": follows.error,
            })),
        })
    });
    json!({
        "hasTwo": shown.has_two,
        "primary": shown.primary.as_option().map(of_primary),
        "sites": sites.collect::<Vec<_>>(),
    })
}

pub(super) fn of_primary(primary: &Primary) -> Value {
    json!({
        "epoch": primary.epoch,
        "site": primary.site,
        "ready": primary.ready,
        "sinceUnixMs": primary.since_unix_ms,
        "author": primary.author,
        "reason": primary.reason,
        "confirmMs": primary.confirm_ms,
        "unreconciled": primary.unreconciled,
    })
}
