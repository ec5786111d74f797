//! The body of `init`: written straight into bytes, part by part, from what was made ready before.

use std::time::{Duration, Instant};

use hydrant_flags::Context;
use serde::Serialize;

use crate::api::ofrep::write_flag;
use crate::api::parameters::Parameters;
use crate::api::serving::Serving;
use crate::compiled::Compiled;
use crate::keys::Caller;

/// After how many flags the clock is looked at.
const FLAGS_PER_LOOK: usize = 16;
/// The room for an answer to begin with, in bytes.
const ROOM: usize = 8 * 1024;

/// A body that was made.
pub(crate) struct Composed {
    pub(crate) bytes: Vec<u8>,
    /// When another body may be right, in milliseconds since 1970.
    pub(crate) until: i64,
    /// Whether nothing is missing for want of time: only such a body may be kept.
    pub(crate) is_whole: bool,
}

/// Until when there is time.
pub(crate) struct Patience {
    until: Option<Instant>,
    #[cfg(test)]
    looks: std::cell::Cell<Option<usize>>,
}

impl Patience {
    pub(crate) fn of(limit: Option<Duration>) -> Self {
        Self {
            until: limit.and_then(|limit| Instant::now().checked_add(limit)),
            #[cfg(test)]
            looks: Default::default(),
        }
    }

    /// Ends when it was looked at so many times.
    #[cfg(test)]
    pub(crate) fn of_looks(looks: usize) -> Self {
        Self {
            until: None,
            looks: Some(looks).into(),
        }
    }

    fn is_over(&self) -> bool {
        #[cfg(test)]
        if let Some(looks) = self.looks.get() {
            self.looks.set(Some(looks.saturating_sub(1)));
            return looks == 0;
        }
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// What is told of a part that is not as it should be.
#[derive(Serialize)]
struct Note {
    error: &'static str,
    message: String,
}

/// Makes the body for who asks. It says when things happened and never how long ago, so that it,
/// and with it its ETag, changes only when there is something new.
pub(crate) fn compose(
    serving: &Serving,
    caller: &Caller,
    parameters: &Parameters,
    now_unix_ms: i64,
    patience: &Patience,
) -> Composed {
    let mut writer = Writer {
        out: Vec::with_capacity(ROOM),
        notes: Vec::new(),
        until: i64::MAX,
        is_whole: true,
        patience,
    };
    writer.head(parameters);
    if serving.has_revision {
        let context = parameters.context(now_unix_ms.div_euclid(1000));
        let compiled = &serving.compiled;
        writer.config(compiled, &context);
        writer.content(compiled, &context, parameters, now_unix_ms);
        writer.flags(compiled, caller, &context);
        if compiled.uses_time() {
            writer.until = writer.until.min(now_unix_ms);
        }
    }
    writer.sources(serving);
    writer.finish()
}

struct Writer<'a> {
    out: Vec<u8>,
    notes: Vec<(&'static str, Note)>,
    until: i64,
    is_whole: bool,
    patience: &'a Patience,
}

impl Writer<'_> {
    fn head(&mut self, parameters: &Parameters) {
        self.out.extend_from_slice(b"{\"platform\":");
        self.json(parameters.platform);
        self.out.extend_from_slice(b",\"version\":");
        self.json(&parameters.version);
        self.out.extend_from_slice(b",\"locale\":");
        self.json(&parameters.locale);
    }

    fn config(&mut self, compiled: &Compiled, context: &Context<'_>) {
        self.key("config");
        if self.is_late("config") {
            return;
        }
        let merged = compiled.configuration.merged_for(context);
        self.out.extend_from_slice(merged.json.as_bytes());
        if !merged.left_out.is_empty() {
            let layers = merged.left_out.join(", ");
            let message = format!("left out, because with them it breaks its schema: {layers}");
            self.note("config", "layers_left_out", message);
        }
    }

    fn content(
        &mut self,
        compiled: &Compiled,
        context: &Context<'_>,
        parameters: &Parameters,
        now_unix_ms: i64,
    ) {
        self.key("content");
        if self.is_late("content") {
            return;
        }
        self.out.push(b'{');
        for (place, slot) in parameters.slots.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.json(slot);
            self.out.push(b':');
            let locale = &parameters.locale;
            let chosen = compiled
                .content
                .entry_for(slot, context, locale, now_unix_ms);
            let json = chosen.entry.map_or("null", |entry| entry.json);
            self.out.extend_from_slice(json.as_bytes());
            self.until = self.until.min(chosen.valid_until.unwrap_or(i64::MAX));
        }
        self.out.push(b'}');
    }

    /// The flags that who asks may see, each as in a bulk evaluation of OFREP.
    fn flags(&mut self, compiled: &Compiled, caller: &Caller, context: &Context<'_>) {
        self.key("flags");
        if self.is_late("flags") {
            return;
        }
        self.out.push(b'[');
        let visible = compiled.flags.iter().filter(|flag| caller.may_see(flag));
        for (place, flag) in visible.enumerate() {
            if place > 0 && place % FLAGS_PER_LOOK == 0 && self.patience.is_over() {
                self.is_whole = false;
                self.note(
                    "flags",
                    "deadline",
                    format!("only the first {place}: the time was over"),
                );
                break;
            }
            if place > 0 {
                self.out.push(b',');
            }
            write_flag(&mut self.out, compiled, flag, context);
        }
        self.out.push(b']');
    }

    fn sources(&mut self, serving: &Serving) {
        self.key("sources");
        match &serving.feed {
            Some(feed) => self.out.extend_from_slice(feed.json()),
            None => {
                self.out.extend_from_slice(b"null");
                let message = "they have not been asked yet".to_owned();
                self.note("sources", "no_snapshot", message);
            }
        }
    }

    /// The notes on parts, where there are some, and the end.
    fn finish(mut self) -> Composed {
        if !self.notes.is_empty() {
            self.key("parts");
            self.out.push(b'{');
            for (place, (part, note)) in std::mem::take(&mut self.notes).iter().enumerate() {
                if place > 0 {
                    self.out.push(b',');
                }
                self.json(part);
                self.out.push(b':');
                self.json(note);
            }
            self.out.push(b'}');
        }
        self.out.push(b'}');
        Composed {
            bytes: self.out,
            until: self.until,
            is_whole: self.is_whole,
        }
    }

    fn key(&mut self, name: &str) {
        self.out.push(b',');
        self.json(name);
        self.out.push(b':');
    }

    /// Writes a part as null when there is no time for it.
    fn is_late(&mut self, part: &'static str) -> bool {
        let is_late = self.patience.is_over();
        if is_late {
            self.out.extend_from_slice(b"null");
            self.is_whole = false;
            self.note(part, "deadline", "the time was over".into());
        }
        is_late
    }

    fn note(&mut self, part: &'static str, error: &'static str, message: String) {
        self.notes.push((part, Note { error, message }));
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Texts always become JSON, and memory takes any number of bytes.
        let _ = serde_json::to_writer(&mut self.out, value);
    }
}
