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
    out.extend_from_slice(b"{\"flags\":");
    write_flags(out, &admitted.compiled, &admitted.caller, context);
    write_streams(out, admitted);
    out.push(b'}');
}

/// All flags that somebody may see, as a list, sorted by key. One whose targeting fails says so in its
/// place.
pub(crate) fn write_flags(
    out: &mut Vec<u8>,
    compiled: &Compiled,
    caller: &Caller,
    context: &Context<'_>,
) {
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

/// `{"key", "value"?, "reason", "variant"?, "metadata"?}`.
pub(super) fn write_answer(out: &mut Vec<u8>, answer: &Answer<'_>) {
    out.extend_from_slice(b"{\"key\":");
    write_json(out, answer.flag.key());
    if let Some(value) = answer.value {
        out.extend_from_slice(b",\"value\":");
        write_json(out, value);
    }
    out.extend_from_slice(b",\"reason\":\"");
    out.extend_from_slice(answer.reason.as_str().as_bytes());
    out.push(b'"');
    if let Some(variant) = answer.variant {
        out.extend_from_slice(b",\"variant\":");
        write_json(out, variant);
    }
    write_metadata(out, answer);
    out.push(b'}');
}

/// What the definition says beside the value, and which experiment decided.
fn write_metadata(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let metadata = answer.flag.metadata();
    if metadata.is_empty() && answer.assigned.is_none() {
        return;
    }
    out.extend_from_slice(b",\"metadata\":");
    write_json(out, metadata);
    let Some(assigned) = answer.assigned else {
        return;
    };
    out.pop();
    if !metadata.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(b"\"experiment\":");
    write_json(out, assigned.experiment);
    out.extend_from_slice(b",\"arm\":");
    write_json(out, assigned.arm);
    out.push(b'}');
}

fn write_error(out: &mut Vec<u8>, flag: &Flag, error: &EvaluationError) {
    out.extend_from_slice(b"{\"key\":");
    write_json(out, flag.key());
    out.extend_from_slice(b",\"errorCode\":\"");
    out.extend_from_slice(code_of(error).as_bytes());
    out.extend_from_slice(b"\",\"errorDetails\":");
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
    out.extend_from_slice(b",\"eventStreams\":[{\"type\":\"sse\",\"endpoint\":{\"requestUri\":\"");
    out.extend_from_slice(EVENTS.as_bytes());
    if let Some(key) = admitted.caller.key() {
        out.extend_from_slice(b"?ticket=");
        out.extend_from_slice(key.ticket.as_bytes());
    }
    out.extend_from_slice(b"\"},\"inactivityDelaySec\":");
    write_json(out, &streams.inactivity_seconds);
    out.extend_from_slice(b"}]");
}

fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Texts, numbers and JSON itself always become JSON, and memory takes any number of bytes.
    let _ = serde_json::to_writer(out, value);
}
