//! `hydrant mobile key`: makes API keys, shows who has which, and takes them back.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use hydrant_contracts::{Code, Error};
use hydrant_mobile::NewKey;
use hydrant_mobile::proto::{
    ApplyRequest, ApplyResponse, Change, DocumentSummary, ListDocumentsRequest,
};
use serde_json::{Map, Value, json};

use super::Mobile;
use super::change::{ChangeArgs, not_live, put, remove};
use super::refusal::refused;
use crate::failure::Result;
use crate::output::{Table, plain, printable, time};

/// The kind of the documents.
const KIND: &str = "key";

/// API keys
#[derive(Debug, Args)]
#[command(after_help = "\
Without a key an app gets the flags that are public. With one of the role client or server it gets
all of them; admin may also change everything through the public address.

Examples:
  hydrant mobile key create ios --role client -m 'the iOS app' > ios.key
  hydrant mobile key create shop --role server --rate 500/s --burst 1000 -m 'the shop'
  hydrant mobile key revoke ios -m 'it was in a public repository'")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key, and print it: it is kept nowhere
    Create(CreateArgs),
    /// List keys: who may do what, how often, and since when
    List,
    /// Show a key's role, rate and history
    Show {
        /// As `ios`
        name: String,
    },
    /// Take a key back: within a second it is good for nothing
    Revoke {
        /// As `ios`
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Who will have it, as `ios` or `shop`
    name: String,
    /// What its holder may do
    #[arg(long)]
    role: Role,
    /// How often it may be used at each instance of api/mobile, as 50/s or 600/m [default: no limit]
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// How many requests at once [default: those of two seconds]
    #[arg(long, value_name = "NUMBER", requires = "rate")]
    burst: Option<u32>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Gets all flags; in an app that people have, and so not secret for long
    Client,
    /// Gets all flags; on a server
    Server,
    /// Also changes everything
    Admin,
}

/// Requests a second.
#[derive(Clone, Copy, Debug)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong =
            || "a rate is a number of requests and a time, as 50/s, 600/m or 1000/h".to_owned();
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        match number.parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Self(number / seconds)),
            _ => Err(wrong()),
        }
    }
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &KeyArgs) -> Result<()> {
    match &args.command {
        KeyCommand::Create(args) => create(mobile, args).await,
        KeyCommand::List => list(mobile).await,
        KeyCommand::Show { name } => show(mobile, name).await,
        KeyCommand::Revoke { name, change } => revoke(mobile, name, change).await,
    }
}

async fn create(mobile: &Mobile<'_>, args: &CreateArgs) -> Result<()> {
    let reason = args.change.reason()?;
    let (keys, newest) = summaries(mobile).await?;
    if keys.iter().any(|key| name_of(key) == args.name) {
        return Err(taken(&args.name).into());
    }
    let key = NewKey::generate()?;
    let request = ApplyRequest {
        author: args.change.author(),
        reason,
        changes: vec![put(KIND, &args.name, document(args, &key.sha256))],
        base: Some(newest),
        dry_run: args.change.dry_run,
        ..Default::default()
    };
    let changes: Vec<Change> = request.changes.clone();
    match mobile.documents().apply(request).await {
        Ok(answer) => show_created(mobile, args, &key, &answer.into_owned()),
        Err(error) => Err(refused(mobile.output, &error, &changes)),
    }
}

fn document(args: &CreateArgs, sha256: &str) -> String {
    let role = args.role.to_possible_value();
    let role = role.map(|role| role.get_name().to_owned());
    let mut document = json!({ "sha256": sha256, "role": role });
    if let Some(Rate(per_second)) = args.rate {
        document["rate"] = json!({ "perSecond": per_second });
        if let Some(burst) = args.burst {
            document["rate"]["burst"] = burst.into();
        }
    }
    format!("{document:#}\n")
}

/// The key alone on standard output, so that it can be put into a file.
fn show_created(
    mobile: &Mobile<'_>,
    args: &CreateArgs,
    key: &NewKey,
    answer: &ApplyResponse,
) -> Result<()> {
    let secret = (!args.change.dry_run).then_some(&key.secret);
    if mobile.output.json {
        return mobile.output.json(&json!({
            "name": args.name,
            "key": secret,
            "revision": answer.revision,
            "published": answer.published,
            "behind": answer.behind,
            "dry_run": args.change.dry_run,
        }));
    }
    let Some(secret) = secret else {
        return mobile.output.text("only checked; no key was made\n");
    };
    mobile.output.text(&format!("{secret}\n"))?;
    if !answer.published {
        eprint!("{}", not_live(answer));
    }
    eprintln!(
        "Keep it: only its hash stays here, so it can't be shown again. Its holder sends it as\n\
         `authorization: Bearer KEY` or `x-api-key: KEY`. `hydrant mobile key revoke {}` takes it back.",
        args.name
    );
    Ok(())
}

async fn list(mobile: &Mobile<'_>) -> Result<()> {
    let mut keys = Vec::new();
    for summary in summaries(mobile).await?.0 {
        // One that was revoked meanwhile is not shown.
        let found = mobile.find(KIND, name_of(&summary)).await?;
        keys.extend(found.map(|document| described(&summary, &document.body)));
    }
    if mobile.output.json {
        return mobile.output.json(&json!({ "keys": keys }));
    }
    let mut table = Table::new(&["KEY", "ROLE", "RATE", "SINCE", "BY"]);
    for key in &keys {
        let text = |name: &str| printable(key[name].as_str().unwrap_or_default());
        table.row([
            plain(text("name")),
            plain(text("role")),
            plain(rate(key)),
            plain(text("since")),
            plain(text("author")),
        ]);
    }
    let empty = "no keys yet; make one: `hydrant mobile key create NAME --role client -m 'why'`";
    mobile.output.table_or(&table, empty)
}

async fn show(mobile: &Mobile<'_>, name: &str) -> Result<()> {
    let (keys, _) = summaries(mobile).await?;
    let summary = keys.iter().find(|key| name_of(key) == name);
    let (Some(summary), Some(document)) = (summary, mobile.find(KIND, name).await?) else {
        return Err(unknown(name).into());
    };
    let key = described(summary, &document.body);
    if mobile.output.json {
        return mobile.output.json(&key);
    }
    let text = |name: &str| printable(key[name].as_str().unwrap_or_default());
    mobile.output.text(&format!(
        "key {}\nrole {}\nrate {}\nsince {}, revision {}, by {}\nsha256 {}\n",
        text("name"),
        text("role"),
        rate(&key),
        text("since"),
        key["revision"],
        text("author"),
        text("sha256"),
    ))
}

async fn revoke(mobile: &Mobile<'_>, name: &str, change: &ChangeArgs) -> Result<()> {
    change.reason()?;
    if mobile.find(KIND, name).await?.is_none() {
        return Err(unknown(name).into());
    }
    let changes = vec![remove(KIND, name)];
    mobile.change(change, changes, None).await
}

/// All keys, and the newest revision.
async fn summaries(mobile: &Mobile<'_>) -> Result<(Vec<DocumentSummary>, u64)> {
    let request = ListDocumentsRequest {
        kind: KIND.into(),
        ..Default::default()
    };
    let answer = mobile.documents().list(request).await?.into_owned();
    Ok((answer.documents, answer.revision))
}

fn name_of(summary: &DocumentSummary) -> &str {
    summary.id.as_option().map_or("", |id| id.name.as_str())
}

/// What is told of a key.
fn described(summary: &DocumentSummary, body: &str) -> Value {
    let body: Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
    json!({
        "name": name_of(summary),
        "role": body.get("role"),
        "rate": body.get("rate"),
        "sha256": body.get("sha256"),
        "revision": summary.revision,
        "author": summary.author,
        "since": time(summary.at_unix_ms),
    })
}

/// As `50/s, 100 at once`.
fn rate(key: &Value) -> String {
    let rate = &key["rate"];
    match (rate["perSecond"].as_f64(), rate["burst"].as_u64()) {
        (None, _) => "no limit".to_owned(),
        (Some(rate), None) => format!("{rate}/s"),
        (Some(rate), Some(burst)) => format!("{rate}/s, {burst} at once"),
    }
}

fn taken(name: &str) -> Error {
    let message = format!("there is a key `{name}` already");
    Error::new(Code::AlreadyExists, "key_exists", message).mend(
        "choose another name, and revoke the old one when nobody uses it any more: so a key is replaced",
    )
}

fn unknown(name: &str) -> Error {
    let message = format!("there is no key `{name}`");
    Error::new(Code::NotFound, "no_such_key", message)
        .mend("see which there are with `hydrant mobile key list`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_number_and_a_time() {
        for (text, expected) in [
            ("50/s", 50.0),
            ("0.5/s", 0.5),
            ("600/m", 10.0),
            ("36/h", 0.01),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().0, expected, "{text}");
        }
        for text in ["50", "50/d", "/s", "-1/s", "NaN/s", "inf/s", "0/s"] {
            text.parse::<Rate>().unwrap_err();
        }
    }
}
