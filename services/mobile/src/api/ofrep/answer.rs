//! Answers as bytes: written straight, without a tree in between.

use hydrant_flags::{Context, EvaluationError, Flag};
use serde::Serialize;

use super::failure::code_of;
use crate::api::gate::Admitted;
use crate::compiled::Compiled;
use crate::evaluate::Answer;
use crate::keys::Caller;

/// Where the stream of changes is, for the world outside of the router.
const EVENTS: &str = "/api/mobile/ofrep/v1/events";

/// The body of the answer with all flags, and where changes are told.
pub(super) fn write_bulk(out: &mut Vec<u8>, admitted: &Admitted, context: &Context<'_>) {
    put(out, &["{\"flags\":"]);
    write_flags(out, &admitted.compiled, &admitted.caller, context);
    write_streams(out, admitted);
    out.push(b'}');
}

/// All flags that somebody may see, as a list, sorted by key. One whose targeting fails says so in its
/// place.
fn write_flags(out: &mut Vec<u8>, compiled: &Compiled, caller: &Caller, context: &Context<'_>) {
    out.push(b'[');
    let start = out.len();
    for flag in compiled.flags.iter().filter(|flag| caller.may_see(flag)) {
        if out.len() > start {
            out.push(b',');
        }
        write_flag(out, compiled, flag, context);
    }
    out.push(b']');
}

/// One flag as it stands in the list of all.
pub(crate) fn write_flag(
    out: &mut Vec<u8>,
    compiled: &Compiled,
    flag: &Flag,
    context: &Context<'_>,
) {
    match compiled.evaluate_flag(flag, context) {
        Ok(answer) => write_answer(out, &answer),
        Err(error) => write_error(out, flag, &error),
    }
}

/// `{"key", "value"?, "reason", "variant"?, "metadata"?}`, of texts that the revision has ready.
pub(super) fn write_answer(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let variant = answer.variant.and_then(|name| answer.flag.find(name));
    put(out, &["{\"key\":", answer.flag.key_json()]);
    if let Some(variant) = variant {
        put(out, &[",\"value\":", variant.value_json()]);
    }
    put(out, &[",\"reason\":\"", answer.reason.as_str(), "\""]);
    if let Some(variant) = variant {
        put(out, &[",\"variant\":", variant.name_json()]);
    }
    write_metadata(out, answer);
    out.push(b'}');
}

/// What the definition says beside the value, and which experiment decided.
fn write_metadata(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let metadata = answer.flag.metadata_json();
    let inner = metadata.strip_suffix('}').unwrap_or(metadata);
    match answer.assigned {
        None if inner == "{" => {}
        None => put(out, &[",\"metadata\":", metadata]),
        Some(assigned) => {
            let comma = if inner == "{" { "" } else { "," };
            put(out, &[",\"metadata\":", inner, comma, "\"experiment\":"]);
            write_json(out, assigned.experiment);
            put(out, &[",\"arm\":"]);
            write_json(out, assigned.arm);
            out.push(b'}');
        }
    }
}

fn write_error(out: &mut Vec<u8>, flag: &Flag, error: &EvaluationError) {
    put(out, &["{\"key\":", flag.key_json(), ",\"errorCode\":\""]);
    put(out, &[code_of(error), "\",\"errorDetails\":"]);
    write_json(out, &error.to_string());
    out.push(b'}');
}

/// A path without a host, so that it is right behind any. A browser can send no key when it opens a
/// stream: the ticket stands for the key there.
fn write_streams(out: &mut Vec<u8>, admitted: &Admitted) {
    let streams = &admitted.compiled.settings.streams;
    if !streams.offered {
        return;
    }
    let start = ",\"eventStreams\":[{\"type\":\"sse\",\"endpoint\":{\"requestUri\":\"";
    put(out, &[start, EVENTS]);
    if let Some(key) = admitted.caller.key() {
        put(out, &["?ticket=", &key.ticket]);
    }
    put(out, &["\"},\"inactivityDelaySec\":"]);
    write_json(out, &streams.inactivity_seconds);
    put(out, &["}]"]);
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Texts and numbers always become JSON, and memory takes any number of bytes.
    let _ = serde_json::to_writer(out, value);
}
