//! `hydrant mobile config`: the layers of the configuration, what an app gets of them, and why.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use hydrant_contracts::{Code, Error};
use hydrant_mobile::proto::{
    CompareConfigurationsRequest, ComparedValue, ConfigurationsClient, ExplainConfigurationRequest,
    ExplainConfigurationResponse, ExplainedValue, ListLayersRequest,
};
use serde_json::{Map, Value, json};

use super::access::Way;
use super::change::{ChangeArgs, put, remove};
use super::{Mobile, files, jsontext};
use crate::failure::{Failure, Result, wrong};
use crate::output::{Table, plain, printable};

/// The kind of the documents.
const KIND: &str = "config";

/// Layers of the configuration
#[derive(Debug, Args)]
#[command(after_help = "\
An app is named by what it says of itself: platform=ios version=7.2.1 locale=de-AT market=at
store=12 targetingKey=ann, and whatever cohorts look at.

Examples:
  hydrant mobile config list
  hydrant mobile config explain platform=ios version=7.2.1 locale=de-AT
  hydrant mobile config diff platform=ios version=7.2.1 locale=de-AT --to platform=android
  hydrant mobile config set checkout.timeoutSeconds 12 --layer ios -m 'slow networks'")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// List the layers in the order in which they are merged
    List,
    /// Print what an app gets
    Show(AppArgs),
    /// Show which layer every value is from, and which layers lost
    Explain(AppArgs),
    /// Show what differs between two apps, or between two revisions
    Diff {
        #[command(flatten)]
        app: AppArgs,
        /// What is otherwise for the second app; may be given more than once
        #[arg(long = "to", value_name = "NAME=VALUE")]
        to: Vec<String>,
        /// The revision of the second [default: now]
        #[arg(long, value_name = "N")]
        to_revision: Option<u64>,
    },
    /// Put a whole layer
    Put {
        /// Its name, as ios
        layer: String,
        /// Its text: {"when": {…}, "values": {…}}; `-` reads it from standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Set one value in a layer
    Set {
        /// Where, as checkout.timeoutSeconds
        key: String,
        /// JSON; what is no JSON is a text
        value: String,
        /// The layer
        #[arg(long, value_name = "NAME")]
        layer: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Take one value out of a layer: lower layers show through
    Unset {
        /// Where, as checkout.timeoutSeconds
        key: String,
        /// The layer
        #[arg(long, value_name = "NAME")]
        layer: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove a layer
    Delete {
        layer: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// An app, and when.
#[derive(Debug, Args)]
struct AppArgs {
    /// What the app says of itself, as platform=ios
    #[arg(value_name = "NAME=VALUE")]
    app: Vec<String>,
    /// As of this revision [default: now]
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

impl AppArgs {
    fn request(&self) -> Result<ExplainConfigurationRequest> {
        request(&self.app, self.revision)
    }
}

fn request(app: &[String], revision: Option<u64>) -> Result<ExplainConfigurationRequest> {
    let mut context = Map::new();
    for pair in app {
        let (name, value) = pair.split_once('=').ok_or_else(|| bad_pair(pair))?;
        context.insert(name.to_owned(), value.into());
    }
    Ok(ExplainConfigurationRequest {
        context: Value::Object(context).to_string(),
        revision,
        ..Default::default()
    })
}

fn bad_pair(pair: &str) -> Failure {
    let message = format!("`{}` is not NAME=VALUE", printable(pair));
    wrong(
        "bad_context",
        message,
        "name the app as platform=ios version=7.2.1",
    )
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &ConfigArgs) -> Result<()> {
    use ConfigCommand as C;
    match &args.command {
        C::List => list(mobile).await,
        C::Show(app) => show(mobile, app).await,
        C::Explain(app) => explain(mobile, app).await,
        C::Diff {
            app,
            to,
            to_revision,
        } => diff(mobile, app, to, *to_revision).await,
        C::Put {
            layer,
            file,
            change,
        } => {
            let changes = vec![put(KIND, layer, files::read_text(file)?)];
            mobile.change(change, changes, None).await
        }
        C::Set {
            key,
            value,
            layer,
            change,
        } => set(mobile, layer, key, value, change).await,
        C::Unset { key, layer, change } => unset(mobile, layer, key, change).await,
        C::Delete { layer, change } => mobile.change(change, vec![remove(KIND, layer)], None).await,
    }
}

fn client(mobile: &Mobile<'_>) -> ConfigurationsClient<Way> {
    mobile.client(ConfigurationsClient::new)
}

async fn list(mobile: &Mobile<'_>) -> Result<()> {
    let answer = client(mobile).layers(ListLayersRequest::default()).await?;
    let layers = answer.into_owned().layers;
    if mobile.output.json {
        let one = |layer: &hydrant_mobile::proto::ConfigurationLayer| {
            json!({
                "layer": layer.name, "level": layer.level,
                "when": parsed(&layer.when), "values": parsed(&layer.values),
            })
        };
        let layers: Vec<Value> = layers.iter().map(one).collect();
        return mobile.output.json(&json!({ "layers": layers }));
    }
    let mut table = Table::new(&["LAYER", "LEVEL", "WHEN", "KEYS"]);
    for layer in &layers {
        table.row([
            plain(&layer.name),
            plain(&layer.level),
            plain(conditions(&layer.when)),
            plain(jsontext::names(&layer.values, &[]).join(", ")),
        ]);
    }
    let empty = "no layers yet; put one: `hydrant mobile put config/base FILE -m 'why'`";
    mobile.output.table_or(&table, empty)
}

/// Conditions for people: `platform=ios version=">=7 <8"`.
fn conditions(when: &str) -> String {
    let Value::Object(when) = parsed(when) else {
        return String::new();
    };
    let one = |(name, value): (&String, &Value)| match value {
        Value::String(text) if !text.contains(' ') => format!("{name}={text}"),
        value => format!("{name}={value}"),
    };
    let all: Vec<String> = when.iter().map(one).collect();
    if all.is_empty() {
        return "-".into();
    }
    all.join(" ")
}

async fn ask(mobile: &Mobile<'_>, app: &AppArgs) -> Result<ExplainConfigurationResponse> {
    Ok(client(mobile).explain(app.request()?).await?.into_owned())
}

async fn show(mobile: &Mobile<'_>, app: &AppArgs) -> Result<()> {
    let answer = ask(mobile, app).await?;
    let configuration = parsed(&answer.configuration);
    if mobile.output.json {
        return mobile.output.json(&configuration);
    }
    mobile.output.text(&format!("{configuration:#}\n"))
}

async fn explain(mobile: &Mobile<'_>, app: &AppArgs) -> Result<()> {
    let answer = ask(mobile, app).await?;
    if mobile.output.json {
        return mobile.output.json(&explained_json(&answer));
    }
    let layers = match answer.layers.join(" + ") {
        none if none.is_empty() => "no layer".into(),
        layers => layers,
    };
    mobile.output.text(&format!("{}\n", printable(&layers)))?;
    if !answer.left_out.is_empty() {
        let layers = printable(&answer.left_out.join(", "));
        let text = format!("left out, because with them it breaks its schema: {layers}\n");
        mobile.output.text(&text)?;
    }
    let mut table = Table::new(&["KEY", "VALUE", "LAYER", "LOST"]);
    for one in &answer.values {
        table.row([
            plain(dotted(&one.pointer)),
            plain(shown(one.value.as_deref(), "(removed)")),
            plain(&one.layer),
            plain(lost(one)),
        ]);
    }
    mobile.output.table(&table)
}

/// What lower layers said, the lowest first: `5 (base), 8 (ios)`.
fn lost(one: &ExplainedValue) -> String {
    let lost = one.lost.iter().map(|lost| {
        let value = shown(lost.value.as_deref(), "(removed)");
        format!("{value} ({})", lost.layer)
    });
    let lost: Vec<String> = lost.collect();
    if lost.is_empty() {
        return "-".into();
    }
    lost.join(", ")
}

fn explained_json(answer: &ExplainConfigurationResponse) -> Value {
    let value = |value: &Option<String>| value.as_deref().map(parsed);
    let one = |one: &ExplainedValue| {
        let lost: Vec<Value> = one
            .lost
            .iter()
            .map(|lost| json!({ "layer": lost.layer, "value": value(&lost.value) }))
            .collect();
        json!({
            "key": dotted(&one.pointer), "pointer": one.pointer,
            "value": value(&one.value), "removed": one.value.is_none(),
            "layer": one.layer, "lost": lost,
        })
    };
    json!({
        "revision": answer.revision,
        "layers": answer.layers,
        "cohorts": answer.cohorts,
        "left_out": answer.left_out,
        "values": answer.values.iter().map(one).collect::<Vec<_>>(),
    })
}

async fn diff(
    mobile: &Mobile<'_>,
    app: &AppArgs,
    to: &[String],
    to_revision: Option<u64>,
) -> Result<()> {
    if to.is_empty() && app.revision.is_none() && to_revision.is_none() {
        let mend =
            "name what is otherwise, as --to platform=android, or a revision, as --revision 41";
        return Err(wrong(
            "nothing_to_compare",
            "there is only one app, at one time",
            mend,
        ));
    }
    // The second app is the first one, but for what is said of it.
    let second: Vec<String> = app.app.iter().chain(to).cloned().collect();
    let request = CompareConfigurationsRequest {
        from: app.request()?.into(),
        to: request(&second, to_revision)?.into(),
        ..Default::default()
    };
    let answer = client(mobile).compare(request).await?.into_owned();
    if mobile.output.json {
        return mobile.output.json(&json!({
            "from_revision": answer.from_revision,
            "to_revision": answer.to_revision,
            "values": answer.values.iter().map(compared_json).collect::<Vec<_>>(),
        }));
    }
    if answer.values.is_empty() {
        return mobile.output.text("nothing differs\n");
    }
    let mut table = Table::new(&["KEY", "FROM", "LAYER", "TO", "LAYER"]);
    for one in &answer.values {
        table.row([
            plain(dotted(&one.pointer)),
            plain(shown(one.before.as_deref(), "-")),
            plain(layer(&one.before_layer)),
            plain(shown(one.after.as_deref(), "-")),
            plain(layer(&one.after_layer)),
        ]);
    }
    mobile.output.table(&table)
}

fn layer(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn compared_json(one: &ComparedValue) -> Value {
    let mut entry = json!({ "key": dotted(&one.pointer), "pointer": one.pointer });
    for (name, value, layer) in [
        ("before", &one.before, &one.before_layer),
        ("after", &one.after, &one.after_layer),
    ] {
        let there = value.as_ref();
        entry[name] = there
            .map(|value| json!({ "value": parsed(value), "layer": layer }))
            .into();
    }
    entry
}

async fn set(
    mobile: &Mobile<'_>,
    layer: &str,
    key: &str,
    value: &str,
    change: &ChangeArgs,
) -> Result<()> {
    let (mut body, base) = find(mobile, layer).await?;
    let names = names(key)?;
    let mut path = vec!["values"];
    for (place, name) in names.iter().enumerate() {
        path.push(name);
        let is_last = place + 1 == names.len();
        let text = match (is_last, jsontext::get(&body, &path)) {
            (true, _) => written(value),
            (false, None | Some("null")) => "{}".to_owned(),
            (false, Some(_)) => continue,
        };
        body = jsontext::put(&body, &path, &text).map_err(|_| no_object(layer, key))?;
    }
    mobile
        .change(change, vec![put(KIND, layer, body)], Some(base))
        .await
}

async fn unset(mobile: &Mobile<'_>, layer: &str, key: &str, change: &ChangeArgs) -> Result<()> {
    let (body, base) = find(mobile, layer).await?;
    let names = names(key)?;
    let mut path = vec!["values"];
    path.extend(names.iter().map(String::as_str));
    let body = jsontext::remove(&body, &path).map_err(|_| no_value(layer, key))?;
    mobile
        .change(change, vec![put(KIND, layer, body)], Some(base))
        .await
}

async fn find(mobile: &Mobile<'_>, layer: &str) -> Result<(String, u64)> {
    match mobile.find(KIND, layer).await? {
        Some(document) => Ok((document.body, document.revision)),
        None => {
            let message = format!("there is no layer `{}`", printable(layer));
            let error = Error::new(Code::NotFound, "no_such_layer", message);
            Err(error
                .mend(
                    "see `hydrant mobile config list`, or make it with `hydrant mobile config put`",
                )
                .into())
        }
    }
}

/// The names of `theme.dark`, or of the JSON pointer `/theme/dark`.
fn names(key: &str) -> Result<Vec<String>> {
    let names: Vec<String> = match key.strip_prefix('/') {
        Some(pointer) => {
            let name = |name: &str| name.replace("~1", "/").replace("~0", "~");
            pointer.split('/').map(name).collect()
        }
        None => key.split('.').map(str::to_owned).collect(),
    };
    if names.iter().any(String::is_empty) {
        let message = format!("`{}` is no key", printable(key));
        let mend = "write it as checkout.timeoutSeconds, or /checkout/timeoutSeconds";
        return Err(wrong("bad_key", message, mend));
    }
    Ok(names)
}

/// A key for people: names with dots between them, where that can be read back.
fn dotted(pointer: &str) -> String {
    let names = pointer.strip_prefix('/').unwrap_or(pointer);
    if names.contains(['.', '~']) || names.is_empty() {
        return pointer.to_owned();
    }
    names.replace('/', ".")
}

/// JSON as it is, and anything else as a text.
fn written(value: &str) -> String {
    match serde_json::from_str::<Value>(value) {
        Ok(_) => value.to_owned(),
        Err(_) => Value::from(value).to_string(),
    }
}

fn no_object(layer: &str, key: &str) -> Failure {
    let (layer, key) = (printable(layer), printable(key));
    let message = format!("in the layer `{layer}` something on the way to `{key}` is no object");
    wrong(
        "no_object",
        message,
        "take that out first, with `hydrant mobile config unset`",
    )
}

fn no_value(layer: &str, key: &str) -> Failure {
    let message = format!(
        "the layer `{}` has no value `{}`",
        printable(layer),
        printable(key)
    );
    Error::new(Code::NotFound, "no_such_value", message)
        .mend("see which layer it is from: `hydrant mobile config explain`")
        .into()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn shown(value: Option<&str>, none: &str) -> String {
    const LONGEST: usize = 60;
    let text = value.unwrap_or(none);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_shown() {
        for (pointer, key) in [
            ("/timeout", "timeout"),
            ("/theme/dark", "theme.dark"),
            ("/a.b/c", "/a.b/c"),
            ("/a~1b", "/a~1b"),
        ] {
            assert_eq!(dotted(pointer), key);
        }
        assert_eq!(names("theme.dark").unwrap(), ["theme", "dark"]);
        assert_eq!(names("/a.b/c~1d").unwrap(), ["a.b", "c/d"]);
        for bad in ["", ".", "a..b", "/", "a."] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_is_a_text() {
        assert_eq!(written("5"), "5");
        assert_eq!(written("null"), "null");
        assert_eq!(written("dark blue"), "\"dark blue\"");
        assert_eq!(
            conditions(r#"{"platform":"ios","version":">=7 <8"}"#),
            r#"platform=ios version=">=7 <8""#
        );
    }
}
