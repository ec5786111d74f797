//! `hydrant mobile flag`: flags, one by one. A flag is changed in the text of its set, which stays as
//! people wrote it but for that place.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use hydrant_contracts::{Code, Error};
use hydrant_mobile::proto::{
    Document, EvaluateRequest, EvaluateResponse, FlagsClient, ListDocumentsRequest,
};
use serde_json::{Value, json};

use super::change::{ChangeArgs, put};
use super::{Mobile, files, jsontext};
use crate::failure::{Failure, Result, wrong};
use crate::output::{Table, plain, printable};

/// The kind of the documents.
const KIND: &str = "flags";

/// Flags, one by one
#[derive(Debug, Args)]
#[command(after_help = "\
A flag stands in a flag set, which is a document in flagd's format.

Examples:
  hydrant mobile flag list
  hydrant mobile flag disable new-checkout -m 'orders fail on Android 9'
  hydrant mobile flag set greeting --targeting rule.json -m 'warm for half of the people'
  hydrant mobile flag eval new-checkout --context '{\"targetingKey\": \"ann\", \"version\": \"7.2.1\"}'")]
pub(crate) struct FlagArgs {
    #[command(subcommand)]
    command: FlagCommand,
}

#[derive(Debug, Subcommand)]
enum FlagCommand {
    /// List flags: their set, state, default and variants
    List,
    /// Print the definition of a flag
    Show {
        /// Its key, as new-checkout
        key: String,
    },
    /// Put a whole flag set
    Put {
        /// Its name, as demo
        set: String,
        /// Its text, in flagd's format; `-` reads it from standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Add a flag to a set
    Add {
        /// Its key, as new-checkout
        key: String,
        /// The set
        #[arg(long, value_name = "SET")]
        to: String,
        /// The flag's definition; `-` reads it from standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Change parts of a flag
    Set(SetArgs),
    /// Turn a flag on
    Enable {
        /// Its key, as new-checkout
        key: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Turn a flag off: everybody gets what the app has as its own default
    Disable {
        /// Its key, as new-checkout
        key: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Choose the variant for whom no targeting chooses another one
    Default {
        /// Its key, as new-checkout
        key: String,
        variant: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show what somebody gets, and why
    Eval {
        /// Its key, as new-checkout
        key: String,
        /// What is known of who asks, as JSON
        #[arg(long, value_name = "JSON", default_value = "{}")]
        context: String,
    },
    /// Remove a flag from its set
    Delete {
        /// Its key, as new-checkout
        key: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Its key, as new-checkout
    key: String,
    /// On or off
    #[arg(long)]
    state: Option<State>,
    /// The variant for whom no targeting chooses another one
    #[arg(long, value_name = "VARIANT")]
    default_variant: Option<String>,
    /// A file with the targeting, in JSONLogic; `-` reads it from standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    targeting: Option<PathBuf>,
    /// Take the targeting away: everybody gets the default
    #[arg(long, conflicts_with = "targeting")]
    no_targeting: bool,
    /// A variant, as on=true or big='{\"size\": 3}'; may be given more than once
    #[arg(long = "variant", value_name = "NAME=JSON")]
    variants: Vec<String>,
    /// Whether apps without a key get it
    #[arg(long, value_name = "true|false")]
    public: Option<bool>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Enabled,
    Disabled,
}

impl State {
    fn json(self) -> String {
        match self {
            Self::Enabled => "\"ENABLED\"".into(),
            Self::Disabled => "\"DISABLED\"".into(),
        }
    }
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &FlagArgs) -> Result<()> {
    use FlagCommand as C;
    match &args.command {
        C::List => list(mobile).await,
        C::Show { key } => show(mobile, key).await,
        C::Put { set, file, change } => {
            let changes = vec![put(KIND, set, files::read_text(file)?)];
            mobile.change(change, changes, None).await
        }
        C::Add {
            key,
            to,
            file,
            change,
        } => add(mobile, key, to, file, change).await,
        C::Set(args) => set(mobile, args).await,
        C::Enable { key, change } => {
            edit(
                mobile,
                key,
                &[("state", Some(State::Enabled.json()))],
                change,
            )
            .await
        }
        C::Disable { key, change } => {
            edit(
                mobile,
                key,
                &[("state", Some(State::Disabled.json()))],
                change,
            )
            .await
        }
        C::Default {
            key,
            variant,
            change,
        } => {
            let variant = Value::from(variant.as_str()).to_string();
            edit(mobile, key, &[("defaultVariant", Some(variant))], change).await
        }
        C::Eval { key, context } => evaluate(mobile, key, context).await,
        C::Delete { key, change } => delete(mobile, key, change).await,
    }
}

/// All flag sets.
async fn sets(mobile: &Mobile<'_>) -> Result<Vec<(String, Document)>> {
    let request = ListDocumentsRequest {
        kind: KIND.into(),
        ..Default::default()
    };
    let list = mobile.documents().list(request).await?.into_owned();
    let mut sets = Vec::new();
    for document in list.documents {
        let name = document.id.into_option().unwrap_or_default().name;
        if let Some(document) = mobile.find(KIND, &name).await? {
            sets.push((name, document));
        }
    }
    Ok(sets)
}

/// The set that has a flag.
async fn set_of(mobile: &Mobile<'_>, key: &str) -> Result<(String, Document)> {
    let sets = sets(mobile).await?;
    let has = |(_, set): &&(String, Document)| jsontext::get(&set.body, &["flags", key]).is_some();
    let found = sets.iter().find(has).cloned();
    found.ok_or_else(|| {
        let message = format!("there is no flag `{}`", printable(key));
        let error = Error::new(Code::NotFound, "no_such_flag", message);
        error
            .mend("see which there are: `hydrant mobile flag list`")
            .into()
    })
}

async fn list(mobile: &Mobile<'_>) -> Result<()> {
    let sets = sets(mobile).await?;
    let mut flags = Vec::new();
    for (set, document) in &sets {
        for key in jsontext::names(&document.body, &["flags"]) {
            let text = jsontext::get(&document.body, &["flags", &key]).unwrap_or("null");
            let definition: Value = serde_json::from_str(text).unwrap_or_default();
            let variants = jsontext::names(text, &["variants"]).join(", ");
            flags.push((key, set, definition, variants));
        }
    }
    if mobile.output.json {
        let flags: Vec<Value> = flags
            .iter()
            .map(|(key, set, definition, _)| json!({ "key": key, "set": set, "definition": definition }))
            .collect();
        return mobile.output.json(&json!({ "flags": flags }));
    }
    let mut table = Table::new(&["FLAG", "SET", "STATE", "DEFAULT", "VARIANTS", "TARGETING"]);
    for (key, set, definition, variants) in &flags {
        let text = |name: &str| definition[name].as_str().unwrap_or("-").to_owned();
        table.row([
            plain(key),
            plain(set),
            plain(text("state").to_lowercase()),
            plain(text("defaultVariant")),
            plain(variants),
            plain(if has_targeting(definition) {
                "yes"
            } else {
                "-"
            }),
        ]);
    }
    let empty = "no flags yet; add one: `hydrant mobile flag add KEY --to SET FILE -m 'why'`";
    mobile.output.table_or(&table, empty)
}

fn has_targeting(definition: &Value) -> bool {
    definition["targeting"]
        .as_object()
        .is_some_and(|rule| !rule.is_empty())
}

async fn show(mobile: &Mobile<'_>, key: &str) -> Result<()> {
    let (set, document) = set_of(mobile, key).await?;
    let text = jsontext::get(&document.body, &["flags", key]).unwrap_or("null");
    if mobile.output.json {
        let definition: Value = serde_json::from_str(text).unwrap_or_default();
        return mobile.output.json(&json!({
            "key": key,
            "set": set,
            "revision": document.revision,
            "definition": definition,
        }));
    }
    mobile
        .output
        .text(&format!("{}\n", jsontext::moved_out(text)))
}

async fn add(
    mobile: &Mobile<'_>,
    key: &str,
    set: &str,
    file: &std::path::Path,
    change: &ChangeArgs,
) -> Result<()> {
    let definition = files::read_part(file)?;
    let known = mobile.find(KIND, set).await?;
    let (body, base) = match &known {
        Some(document) => (document.body.as_str(), Some(document.revision)),
        None => ("{\n  \"flags\": {}\n}\n", None),
    };
    if jsontext::get(body, &["flags", key]).is_some() {
        let message = format!("there is a flag `{}` already", printable(key));
        let error = Error::new(Code::AlreadyExists, "flag_exists", message);
        return Err(error
            .mend("change it with `hydrant mobile flag set`")
            .into());
    }
    let body = jsontext::put(body, &["flags", key], &definition).map_err(|_| no_object(set))?;
    mobile
        .change(change, vec![put(KIND, set, body)], base)
        .await
}

async fn set(mobile: &Mobile<'_>, args: &SetArgs) -> Result<()> {
    let (set, document) = set_of(mobile, &args.key).await?;
    let mut body = document.body;
    let mut edits: Vec<(Vec<&str>, Option<String>)> = Vec::new();
    if let Some(state) = args.state {
        edits.push((vec!["state"], Some(state.json())));
    }
    for variant in &args.variants {
        let (name, value) = variant
            .split_once('=')
            .filter(|(_, value)| serde_json::from_str::<Value>(value).is_ok())
            .ok_or_else(|| bad_variant(variant))?;
        edits.push((vec!["variants", name], Some(value.to_owned())));
    }
    if let Some(variant) = &args.default_variant {
        edits.push((
            vec!["defaultVariant"],
            Some(Value::from(variant.as_str()).to_string()),
        ));
    }
    if let Some(file) = &args.targeting {
        edits.push((vec!["targeting"], Some(files::read_part(file)?)));
    }
    if args.no_targeting {
        edits.push((vec!["targeting"], None));
    }
    if let Some(public) = args.public {
        if jsontext::get(&body, &["flags", &args.key, "metadata"]).is_none() {
            edits.push((vec!["metadata"], Some("{}".into())));
        }
        edits.push((vec!["metadata", "public"], Some(public.to_string())));
    }
    if edits.is_empty() {
        return Err(wrong(
            "nothing_to_set",
            "what shall be changed is not said",
            "say it, as --state disabled or --default-variant on",
        ));
    }
    for (path, value) in &edits {
        body = edited(&body, &args.key, path, value.as_deref()).ok_or_else(|| no_object(&set))?;
    }
    let changes = vec![put(KIND, &set, body)];
    mobile
        .change(&args.change, changes, Some(document.revision))
        .await
}

/// The text of the set after an edit of one flag.
fn edited(body: &str, key: &str, path: &[&str], value: Option<&str>) -> Option<String> {
    let path = [&["flags", key], path].concat();
    match value {
        Some(value) => jsontext::put(body, &path, value).ok(),
        None if jsontext::get(body, &path).is_none() => Some(body.to_owned()),
        None => jsontext::remove(body, &path).ok(),
    }
}

async fn edit(
    mobile: &Mobile<'_>,
    key: &str,
    edits: &[(&str, Option<String>)],
    change: &ChangeArgs,
) -> Result<()> {
    let (set, document) = set_of(mobile, key).await?;
    let mut body = document.body;
    for (name, value) in edits {
        body = edited(&body, key, &[name], value.as_deref()).ok_or_else(|| no_object(&set))?;
    }
    mobile
        .change(change, vec![put(KIND, &set, body)], Some(document.revision))
        .await
}

async fn delete(mobile: &Mobile<'_>, key: &str, change: &ChangeArgs) -> Result<()> {
    let (set, document) = set_of(mobile, key).await?;
    let body = jsontext::remove(&document.body, &["flags", key]).map_err(|_| no_object(&set))?;
    mobile
        .change(change, vec![put(KIND, &set, body)], Some(document.revision))
        .await
}

async fn evaluate(mobile: &Mobile<'_>, key: &str, context: &str) -> Result<()> {
    let request = EvaluateRequest {
        key: key.into(),
        context: context.into(),
        ..Default::default()
    };
    let answer = mobile
        .client(FlagsClient::new)
        .evaluate(request)
        .await?
        .into_owned();
    if mobile.output.json {
        return mobile.output.json(&as_json(key, &answer));
    }
    let mut text = match (&answer.value, &answer.variant) {
        (Some(value), Some(variant)) => format!("{value}\nvariant {variant}, "),
        _ => "the app's own default\n".to_owned(),
    };
    text += &format!("{} by revision {}", answer.reason, answer.revision);
    if !answer.experiment.is_empty() {
        text += &format!(", experiment {}", answer.experiment);
    }
    mobile.output.text(&(printable_lines(&text) + "\n"))
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn as_json(key: &str, answer: &EvaluateResponse) -> Value {
    let value = answer.value.as_deref().unwrap_or("null");
    let value: Value = serde_json::from_str(value).unwrap_or_default();
    json!({
        "key": key,
        "value": value,
        "variant": answer.variant,
        "reason": answer.reason,
        "revision": answer.revision,
        "experiment": Some(&answer.experiment).filter(|name| !name.is_empty()),
    })
}

fn bad_variant(text: &str) -> Failure {
    wrong(
        "bad_variant",
        format!("`{}` is no variant", printable(text)),
        "write its name and its value as JSON, as on=true or plain='\"Hello\"'",
    )
}

fn no_object(set: &str) -> Failure {
    wrong(
        "bad_set",
        format!("the text of flags/{} has no such place", printable(set)),
        "look at it: `hydrant mobile get flags/SET`",
    )
}
