use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_contracts::{Code, Error, ServiceId, proto};
use proto::__buffa::oneof::watch_state_event::Event;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cli::{Global, StateArgs, StateCommand};
use crate::failure::{Result, system, wrong};
use crate::output::{Output, Table, age, plain, printable, size};

/// The largest value that is read from standard input: more than a node takes.
const MAX_VALUE: u64 = 64 << 20;

/// How much of a value a person sees in a list, in characters.
const PREVIEW: usize = 60;

/// Reads and writes shared state.
pub(crate) async fn run(global: &Global, args: &StateArgs, output: &Output) -> Result<()> {
    let namespace = namespace(args.namespace.as_deref())?;
    // What stands on standard input is read before the node is asked.
    let value = match &args.command {
        StateCommand::Put { value, .. } => Some(read_value(value)?),
        _ => None,
    };
    let api = Api::connect(global).await?;
    let state = State {
        api,
        namespace,
        output,
    };
    match &args.command {
        StateCommand::Get { key } => state.get(key).await,
        StateCommand::Put {
            key,
            ttl,
            if_revision,
            ..
        } => {
            let ttl_ms = ttl.map_or(0, |ttl| ttl.get().as_millis() as u64);
            state
                .put(key, value.unwrap_or_default(), ttl_ms, *if_revision)
                .await
        }
        StateCommand::List { prefix } => state.list(prefix).await,
        StateCommand::Watch { prefix } => state.watch(prefix).await,
        StateCommand::Delete { key } => state.delete(key).await,
    }
}

/// The namespace that is named; with a service's own token it may be left out.
fn namespace(named: Option<&str>) -> Result<String> {
    match named {
        Some(text) => Ok(text.parse::<ServiceId>()?.to_string()),
        None if std::env::var_os("HYDRANT_TOKEN").is_some() => Ok(String::new()),
        None => Err(wrong(
            "no_namespace",
            "whose state is meant is not said",
            "name the service, as --namespace service/mobile",
        )),
    }
}

fn read_value(text: &str) -> Result<Vec<u8>> {
    if text != "-" {
        return Ok(text.into());
    }
    let mut value = Vec::new();
    std::io::stdin()
        .take(MAX_VALUE)
        .read_to_end(&mut value)
        .map_err(|error| system("cannot read standard input", &error, "give the value to it"))?;
    Ok(value)
}

struct State<'a> {
    api: Api,
    namespace: String,
    output: &'a Output,
}

impl State<'_> {
    async fn get(&self, key: &str) -> Result<()> {
        let request = proto::GetRequest {
            namespace: self.namespace.clone(),
            key: key.into(),
            ..Default::default()
        };
        let found = self.api.state().get(request).await?.into_owned();
        let entry = found.entry.into_option().ok_or_else(|| no_such_key(key))?;
        if self.output.json {
            return self.output.json(&document(&entry));
        }
        self.output.bytes(&entry.value)
    }

    async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl_ms: u64,
        only_at: Option<u64>,
    ) -> Result<()> {
        let (namespace, key) = (self.namespace.clone(), key.to_owned());
        let state = self.api.state();
        let put = match only_at {
            Some(expected_revision) => {
                let request = proto::CompareAndPutRequest {
                    namespace,
                    key,
                    value,
                    ttl_ms,
                    expected_revision,
                    ..Default::default()
                };
                state.compare_and_put(request).await?
            }
            None => {
                let request = proto::PutRequest {
                    namespace,
                    key,
                    value,
                    ttl_ms,
                    ..Default::default()
                };
                state.put(request).await?
            }
        };
        let revision = put.into_owned().revision;
        if self.output.json {
            return self.output.json(&json!({ "revision": revision }));
        }
        self.output.text(&format!("revision {revision}\n"))
    }

    async fn list(&self, prefix: &str) -> Result<()> {
        let mut entries = Vec::new();
        let mut after = String::new();
        loop {
            let request = proto::ListRequest {
                namespace: self.namespace.clone(),
                prefix: prefix.into(),
                after,
                ..Default::default()
            };
            let page = self.api.state().list(request).await?.into_owned();
            after = page
                .entries
                .last()
                .map_or(String::new(), |entry| entry.key.clone());
            entries.extend(page.entries);
            if !page.more || after.is_empty() {
                break;
            }
        }
        if self.output.json {
            let entries: Vec<Value> = entries.iter().map(document).collect();
            return self.output.json(&json!({ "entries": entries }));
        }
        self.output.table(&table(&entries))
    }

    async fn watch(&self, prefix: &str) -> Result<()> {
        let request = proto::WatchStateRequest {
            namespace: self.namespace.clone(),
            prefix: prefix.into(),
            ..Default::default()
        };
        let mut events = self.api.state().watch(request).await?;
        while let Some(event) = events.message::<proto::WatchStateEvent>().await? {
            if let Some(event) = event.to_owned_message().event {
                self.show(event)?;
            }
        }
        Ok(())
    }

    fn show(&self, event: Event) -> Result<()> {
        let output = self.output;
        match event {
            Event::All(all) if output.json => {
                let entries: Vec<Value> = all.entries.iter().map(document).collect();
                output.json(&json!({ "event": "all", "entries": entries }))
            }
            Event::Put(entry) if output.json => {
                output.json(&json!({ "event": "put", "entry": document(&entry) }))
            }
            Event::Removed(key) if output.json => {
                output.json(&json!({ "event": "removed", "key": key }))
            }
            Event::All(all) => all
                .entries
                .iter()
                .try_for_each(|entry| self.show_put(entry)),
            Event::Put(entry) => self.show_put(&entry),
            Event::Removed(key) => output.text(&format!("removed  {}\n", printable(&key))),
        }
    }

    fn show_put(&self, entry: &proto::Entry) -> Result<()> {
        let (key, value) = (printable(&entry.key), preview(&entry.value));
        self.output.text(&format!(
            "put      {key}  revision {}  {value}\n",
            entry.revision
        ))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = proto::DeleteRequest {
            namespace: self.namespace.clone(),
            key: key.into(),
            ..Default::default()
        };
        if !self.api.state().delete(request).await?.into_owned().existed {
            return Err(no_such_key(key).into());
        }
        if self.output.json {
            return self.output.json(&json!({ "deleted": key }));
        }
        self.output.text(&format!("deleted {}\n", printable(key)))
    }
}

fn no_such_key(key: &str) -> Error {
    let message = format!("there is no key `{}`", printable(key));
    Error::new(Code::NotFound, "no_such_key", message)
        .mend("see which there are: `hydrant state list`")
}

fn table(entries: &[proto::Entry]) -> Table {
    let mut table = Table::new(&["KEY", "REVISION", "SIZE", "LIVES", "VALUE"]);
    for entry in entries {
        let lives = match entry.ttl_ms {
            0 => "-".into(),
            ms => age(i64::try_from(ms).unwrap_or(i64::MAX)),
        };
        table.row([
            plain(&entry.key),
            plain(entry.revision),
            plain(size(entry.value.len() as u64)),
            plain(lives),
            plain(preview(&entry.value)),
        ]);
    }
    table
}

/// The beginning of a value, on one line; of one that is not text only that it is not.
fn preview(value: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(value) else {
        return "(not text)".into();
    };
    let text = printable(text);
    match text.char_indices().nth(PREVIEW) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// An entry as `--json` shows it: `value` is text or null, `value_base64` is always there.
fn document(entry: &proto::Entry) -> Value {
    json!({
        "key": entry.key,
        "value": std::str::from_utf8(&entry.value).ok(),
        "value_base64": STANDARD.encode(&entry.value),
        "revision": entry.revision,
        "ttl_ms": Some(entry.ttl_ms).filter(|ttl| *ttl != 0),
    })
}
