//! `hydrant mobile content`: types and entries, drafts, previews, and why a slot shows what it shows.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use hydrant_contracts::{Code, Error};
use hydrant_mobile::entry::{self, Bound};
use hydrant_mobile::proto::{
    ContentClient, CreatePreviewRequest, Document, EntrySummary, ExplainSlotRequest,
    ExplainSlotResponse, ExplainedEntry, ListEntriesRequest, RevokePreviewsRequest,
};
use serde_json::{Map, Value, json};

use super::change::{ChangeArgs, put};
use super::{Mobile, Way};
use crate::failure::{Result, system, wrong};
use crate::output::{Style, Table, plain, printable, time};

/// The kinds of the documents.
const ENTRY: &str = "content";
const TYPE: &str = "content-type";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Types and entries of content
#[derive(Debug, Args)]
#[command(after_help = "\
An entry stands in a slot of the app. It is written and looked at as a draft, and then published,
now or for a time.

Examples:
  hydrant mobile content type banner banner-type.json -m 'what a banner has'
  hydrant mobile content put summer summer.json -m 'summer sale'
  hydrant mobile content preview summer --for 24h
  hydrant mobile content publish summer --until 2027-09-01T00:00:00+02:00 -m 'go'
  hydrant mobile content explain home.top --locale de-AT --with platform=ios")]
pub(crate) struct ContentArgs {
    #[command(subcommand)]
    command: ContentCommand,
}

#[derive(Debug, Subcommand)]
enum ContentCommand {
    /// List entries
    List,
    /// Show an entry as it is written
    Show {
        /// As `summer`
        name: String,
    },
    /// Put an entry: the whole of it, as a file has it
    Put(PutArgs),
    /// Put a type of entries: the JSON schema of their fields
    Type(PutArgs),
    /// Begin a draft as a copy of what is published, or put the one of a file
    Draft(DraftArgs),
    /// Make the draft what is published
    Publish(PublishArgs),
    /// Take what is published back: it is a draft again, unless there is one
    Unpublish {
        /// As `summer`
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Change when what is published shows
    Schedule(PublishArgs),
    /// Make a link under which anybody sees the newest draft, for a time
    Preview(PreviewArgs),
    /// Show why a slot shows what it shows
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
struct PutArgs {
    /// As `summer`
    name: String,
    /// The file, JSON; `-` reads it from standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct DraftArgs {
    /// As `summer`
    name: String,
    /// The draft, JSON, as {"locales": {"en": {…}}}; `-` reads it from standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Throw the draft away
    #[arg(long, conflicts_with = "file")]
    discard: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct PublishArgs {
    /// As `summer`
    name: String,
    /// It shows from this time on, as 2027-06-01T00:00:00Z; `none` for at once
    #[arg(long, value_name = "TIME", value_parser = bound)]
    from: Option<Bound>,
    /// It shows until this time; `none` for ever
    #[arg(long, value_name = "TIME", value_parser = bound)]
    until: Option<Bound>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct PreviewArgs {
    /// As `summer`
    name: String,
    /// How long the link is good: 1m to 720h
    #[arg(long = "for", value_name = "TIME", default_value = "24h")]
    valid: hydrant_runtime::Duration,
    /// The entry as of this revision, rather than the newest draft
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Make none: end all links to this entry that were made so far
    #[arg(long, conflicts_with_all = ["valid", "revision"])]
    revoke: bool,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// As `home.top`
    slot: String,
    /// The language of who asks
    #[arg(long, default_value = "en")]
    locale: String,
    /// What is known of who asks, as platform=ios; a value that is JSON is taken as such
    #[arg(long = "with", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// As it will be or was at this time, as 2027-06-01T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = unix_ms)]
    at: Option<i64>,
}

fn bound(text: &str) -> std::result::Result<Bound, String> {
    match text {
        "none" => Ok(Bound::Open),
        text => unix_ms(text).map(|_| Bound::At(text.to_owned())),
    }
}

fn unix_ms(text: &str) -> std::result::Result<i64, String> {
    let time: std::result::Result<jiff::Timestamp, _> = text.parse();
    let time = time.map_err(|_| "a time has its offset, as 2027-06-01T00:00:00Z or …+02:00");
    Ok(time?.as_millisecond())
}

fn attribute(text: &str) -> std::result::Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as platform=ios")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &ContentArgs) -> Result<()> {
    match &args.command {
        ContentCommand::List => list(mobile).await,
        ContentCommand::Show { name } => show(mobile, name).await,
        ContentCommand::Put(args) => put_file(mobile, ENTRY, args).await,
        ContentCommand::Type(args) => put_file(mobile, TYPE, args).await,
        ContentCommand::Draft(args) => draft(mobile, args).await,
        ContentCommand::Publish(args) => publish(mobile, args).await,
        ContentCommand::Unpublish { name, change } => {
            edit(mobile, name, change, entry::unpublish).await
        }
        ContentCommand::Schedule(args) => schedule(mobile, args).await,
        ContentCommand::Preview(args) if args.revoke => revoke(mobile, &args.name).await,
        ContentCommand::Preview(args) => preview(mobile, args).await,
        ContentCommand::Explain(args) => explain(mobile, args).await,
    }
}

fn client(mobile: &Mobile<'_>) -> ContentClient<Way> {
    mobile.client(ContentClient::new)
}

async fn list(mobile: &Mobile<'_>) -> Result<()> {
    let answer = client(mobile)
        .list_entries(ListEntriesRequest::default())
        .await?;
    let entries = answer.into_owned().entries;
    if mobile.output.json {
        let entries: Vec<Value> = entries.iter().map(document).collect();
        return mobile.output.json(&json!({ "entries": entries }));
    }
    let columns = [
        "ENTRY", "TYPE", "SLOT", "PRIORITY", "SHOWS", "LOCALES", "DRAFT",
    ];
    let mut table = Table::new(&columns);
    for entry in &entries {
        table.row([
            plain(&entry.entry),
            plain(&entry.r#type),
            plain(&entry.slot),
            plain(entry.priority),
            shows(&entry.schedule, entry.from_unix_ms, entry.until_unix_ms),
            plain(some(&entry.locales.join(","))),
            plain(if entry.draft { "yes" } else { "-" }),
        ]);
    }
    let empty = "no entries yet; put one: `hydrant mobile content put NAME FILE -m 'why'`";
    mobile.output.table_or(&table, empty)
}

fn document(entry: &EntrySummary) -> Value {
    json!({
        "entry": entry.entry,
        "type": entry.r#type,
        "slot": entry.slot,
        "priority": entry.priority,
        "schedule": entry.schedule,
        "from": entry.from_unix_ms.map(time),
        "until": entry.until_unix_ms.map(time),
        "locales": entry.locales,
        "audience": entry.audience,
        "draft": entry.draft,
    })
}

/// As `now, until 2027-09-01T00:00:00.000Z`.
fn shows(schedule: &str, from: Option<i64>, until: Option<i64>) -> (String, Style) {
    let style = match schedule {
        "now" => Style::Good,
        "not yet" => Style::Waiting,
        _ => Style::Faint,
    };
    let text = match (schedule, from, until) {
        ("now", _, Some(until)) => format!("now, until {}", time(until)),
        ("not yet", Some(from), _) => format!("from {}", time(from)),
        ("over", _, Some(until)) => format!("over since {}", time(until)),
        (other, ..) => other.to_owned(),
    };
    (text, style)
}

fn some(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

async fn show(mobile: &Mobile<'_>, name: &str) -> Result<()> {
    let found = find(mobile, name).await?;
    if mobile.output.json {
        let body: Value = serde_json::from_str(&found.body).unwrap_or_default();
        return mobile.output.json(&json!({
            "entry": name,
            "revision": found.revision,
            "body": body,
        }));
    }
    let end = if found.body.ends_with('\n') { "" } else { "\n" };
    mobile.output.text(&format!("{}{end}", found.body))
}

async fn find(mobile: &Mobile<'_>, name: &str) -> Result<Document> {
    let found = mobile.find(ENTRY, name).await?;
    found.ok_or_else(|| {
        let message = format!("there is no entry `{}`", printable(name));
        Error::new(Code::NotFound, "no_such_entry", message)
            .mend("see which there are: `hydrant mobile content list`")
            .into()
    })
}

async fn put_file(mobile: &Mobile<'_>, kind: &str, args: &PutArgs) -> Result<()> {
    let body = read(&args.file)?;
    let changes = vec![put(kind, &args.name, body)];
    mobile.change(&args.change, changes, None).await
}

async fn draft(mobile: &Mobile<'_>, args: &DraftArgs) -> Result<()> {
    let file = args.file.as_deref().map(read).transpose()?;
    edit(mobile, &args.name, &args.change, |text| {
        match args.discard {
            true => entry::discard(text),
            false => entry::draft(text, file.as_deref()),
        }
    })
    .await
}

async fn publish(mobile: &Mobile<'_>, args: &PublishArgs) -> Result<()> {
    let (from, until) = bounds(args);
    let publish = |text: &str| entry::publish(text, &from, &until);
    edit(mobile, &args.name, &args.change, publish).await
}

async fn schedule(mobile: &Mobile<'_>, args: &PublishArgs) -> Result<()> {
    let (from, until) = bounds(args);
    if (&from, &until) == (&Bound::Keep, &Bound::Keep) {
        let message = "neither a beginning nor an end is given";
        let mend = "give one: --from TIME, --until TIME, or `none` for no bound";
        return Err(wrong("no_schedule", message, mend));
    }
    let schedule = |text: &str| entry::schedule(text, &from, &until);
    edit(mobile, &args.name, &args.change, schedule).await
}

fn bounds(args: &PublishArgs) -> (Bound, Bound) {
    let bound = |given: &Option<Bound>| given.clone().unwrap_or_default();
    (bound(&args.from), bound(&args.until))
}

/// Changes the text of an entry, unless somebody else did meanwhile.
async fn edit(
    mobile: &Mobile<'_>,
    name: &str,
    args: &ChangeArgs,
    change: impl Fn(&str) -> std::result::Result<String, Error>,
) -> Result<()> {
    args.reason()?;
    let found = find(mobile, name).await?;
    let body = change(&found.body)?;
    let changes = vec![put(ENTRY, name, body)];
    mobile.change(args, changes, Some(found.revision)).await
}

async fn preview(mobile: &Mobile<'_>, args: &PreviewArgs) -> Result<()> {
    let request = CreatePreviewRequest {
        entry: args.name.clone(),
        revision: args.revision,
        valid_ms: args.valid.get().as_millis() as u64,
        ..Default::default()
    };
    let link = client(mobile).create_preview(request).await?.into_owned();
    if mobile.output.json {
        return mobile.output.json(&json!({
            "url": link.url,
            "expires": time(link.expires_unix_ms),
        }));
    }
    mobile.output.text(&format!("{}\n", printable(&link.url)))?;
    eprintln!(
        "Whoever has the link sees the entry until {}.",
        time(link.expires_unix_ms)
    );
    Ok(())
}

async fn revoke(mobile: &Mobile<'_>, name: &str) -> Result<()> {
    let request = RevokePreviewsRequest {
        entry: name.into(),
        ..Default::default()
    };
    client(mobile).revoke_previews(request).await?;
    if mobile.output.json {
        return mobile.output.json(&json!({ "revoked": name }));
    }
    let name = printable(name);
    mobile.output.text(&format!(
        "the links to previews of {name} lead nowhere now\n"
    ))
}

async fn explain(mobile: &Mobile<'_>, args: &ExplainArgs) -> Result<()> {
    let attributes: Map<String, Value> = args.attributes.iter().cloned().collect();
    let request = ExplainSlotRequest {
        slot: args.slot.clone(),
        locale: args.locale.clone(),
        attributes: Value::from(attributes).to_string(),
        at_unix_ms: args.at,
        ..Default::default()
    };
    let answer = client(mobile).explain_slot(request).await?.into_owned();
    if mobile.output.json {
        let entries: Vec<Value> = answer.entries.iter().map(explained).collect();
        return mobile.output.json(&json!({
            "entries": entries,
            "valid_until": answer.valid_until_unix_ms.map(time),
        }));
    }
    if answer.entries.is_empty() {
        return Err(empty_slot(&args.slot, &answer).into());
    }
    show_explained(mobile, &answer)
}

fn show_explained(mobile: &Mobile<'_>, answer: &ExplainSlotResponse) -> Result<()> {
    let mut table = Table::new(&[
        "ENTRY", "PRIORITY", "SCHEDULE", "AUDIENCE", "LOCALE", "SHOWN",
    ]);
    for entry in &answer.entries {
        let locale = match entry.locale.as_str() {
            "" => "-".to_owned(),
            locale => format!("{locale} ({})", entry.locale_reason),
        };
        table.row([
            plain(&entry.entry),
            plain(entry.priority),
            shows(&entry.schedule, entry.from_unix_ms, entry.until_unix_ms),
            plain(if entry.audience { "yes" } else { "no" }),
            plain(locale),
            plain(if entry.shown { "yes" } else { "-" }),
        ]);
    }
    mobile.output.table(&table)?;
    let shown = answer.entries.iter().find(|entry| entry.shown);
    let what = match shown {
        Some(entry) => format!("shows {}", printable(&entry.entry)),
        None => "shows nothing".to_owned(),
    };
    let until = match answer.valid_until_unix_ms {
        Some(until) => format!("; the schedule may change that at {}", time(until)),
        None => String::new(),
    };
    mobile.output.text(&format!("{what}{until}\n"))
}

fn explained(entry: &ExplainedEntry) -> Value {
    json!({
        "entry": entry.entry,
        "priority": entry.priority,
        "schedule": entry.schedule,
        "from": entry.from_unix_ms.map(time),
        "until": entry.until_unix_ms.map(time),
        "audience": entry.audience,
        "locale": Some(&entry.locale).filter(|locale| !locale.is_empty()),
        "locale_reason": Some(&entry.locale_reason).filter(|reason| !reason.is_empty()),
        "shown": entry.shown,
    })
}

fn empty_slot(slot: &str, answer: &ExplainSlotResponse) -> Error {
    let message = format!("no entry stands in the slot `{}`", printable(slot));
    let known: Vec<String> = answer.slots.iter().map(|slot| printable(slot)).collect();
    Error::new(Code::NotFound, "empty_slot", message).mend(match known.is_empty() {
        true => "put an entry first: `hydrant mobile content put NAME FILE`".to_owned(),
        false => format!("the slots are: {}", known.join(", ")),
    })
}

/// A file, or standard input for `-`.
fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_FILE).read_to_string(&mut text),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        }
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let what = format!("cannot read {}", file.display());
            Err(system(what, &error, "name a file of JSON text"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_times_or_none() {
        assert_eq!(bound("none"), Ok(Bound::Open));
        let time = "2027-06-01T00:00:00+02:00";
        assert_eq!(bound(time), Ok(Bound::At(time.into())));
        for wrong in ["tomorrow", "2027-06-01", "2027-06-01T00:00:00"] {
            assert!(bound(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_are_json_or_text() {
        for (text, value) in [
            ("a=ios", json!("ios")),
            ("a=3", json!(3)),
            ("a=[1]", json!([1])),
            ("a=b=c", json!("b=c")),
            ("a=", json!("")),
        ] {
            assert_eq!(attribute(text), Ok(("a".into(), value)), "{text}");
        }
        assert!(attribute("platform").is_err());
    }
}
