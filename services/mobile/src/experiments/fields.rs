//! Reads the members of a document, and gathers all that is wrong with them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use hydrant_contracts::bucket::SLOTS;
use hydrant_flags::Mistake;
use serde_json::{Map, Value};

/// What was found to be wrong with one document.
pub(super) struct Findings {
    document: String,
    found: RefCell<Vec<Mistake>>,
}

impl Findings {
    pub(super) fn of(document: impl Into<String>) -> Self {
        Self {
            document: document.into(),
            found: RefCell::default(),
        }
    }

    pub(super) fn say(&self, pointer: impl Into<String>, message: impl Into<String>, mend: &str) {
        let mistake = Mistake::at(pointer, message).mend(mend);
        self.add(mistake);
    }

    pub(super) fn add(&self, mistake: Mistake) {
        let mistake = mistake.of(&self.document);
        self.found.borrow_mut().push(mistake);
    }

    /// What was read, if nothing is wrong with it.
    pub(super) fn result<T>(self, read: Option<T>) -> Result<T, Vec<Mistake>> {
        let found = self.found.into_inner();
        match read {
            Some(read) if found.is_empty() => Ok(read),
            _ => Err(found),
        }
    }

    /// The document's text as an object.
    pub(super) fn parse(&self, text: &str) -> Option<Map<String, Value>> {
        match hydrant_flags::read(text) {
            Ok(Value::Object(object)) => Some(object),
            Ok(_) => {
                self.say("", "the document is not a JSON object", "write it as { … }");
                None
            }
            Err(mistakes) => {
                mistakes.into_iter().for_each(|mistake| self.add(mistake));
                None
            }
        }
    }
}

/// One object of a document.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) object: &'a Map<String, Value>,
    /// Where it stands, as a JSON pointer.
    pointer: &'a str,
    pub(super) findings: &'a Findings,
}

impl<'a> Fields<'a> {
    pub(super) fn of(
        object: &'a Map<String, Value>,
        pointer: &'a str,
        findings: &'a Findings,
    ) -> Self {
        Self {
            object,
            pointer,
            findings,
        }
    }

    /// Says which members are not known.
    pub(super) fn only(&self, known: &[&str]) {
        for name in self.object.keys() {
            if !known.contains(&name.as_str()) {
                let mend = format!("known are: {}", known.join(", "));
                self.wrong(
                    name,
                    format!("there is no `{}`", name.escape_debug()),
                    &mend,
                );
            }
        }
    }

    pub(super) fn wrong(&self, name: &str, message: impl Into<String>, mend: &str) {
        let pointer = format!("{}/{}", self.pointer, escape(name));
        self.findings.say(pointer, message, mend);
    }

    fn missing<T>(&self, name: &str, mend: &str) -> Option<T> {
        let message = format!("`{name}` is missing");
        self.findings.say(self.pointer, message, mend);
        None
    }

    /// A text that may be missing.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        match self.object.get(name)? {
            Value::String(text) if !text.is_empty() && text.len() <= 200 => Some(text),
            _ => {
                let message = format!("`{name}` is not a text of 1 to 200 bytes");
                self.wrong(name, message, "write it in double quotes");
                None
            }
        }
    }

    pub(super) fn needed_text(&self, name: &str, mend: &str) -> Option<&'a str> {
        match self.object.contains_key(name) {
            true => self.text(name),
            false => self.missing(name, mend),
        }
    }

    /// A name, as of a document: it may be missing.
    pub(super) fn name(&self, name: &str) -> Option<&'a str> {
        let text = self.text(name)?;
        if !is_name(text) {
            let message = format!("`{}` is no name", text.escape_debug());
            self.wrong(
                name,
                message,
                "use 1 to 80 of a-z, A-Z, 0-9, '-', '_' and '.'",
            );
            return None;
        }
        Some(text)
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let mend = format!("write one of: {}", words.join(", "));
        let text = self.needed_text(name, &mend)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let message = format!("`{name}` can't be `{}`", text.escape_debug());
            self.wrong(name, message, &mend);
        }
        found.map(|(_, choice)| *choice)
    }

    /// A number that may be missing, from `least`.
    pub(super) fn number(&self, name: &str, least: f64) -> Option<f64> {
        let number = self.object.get(name)?.as_f64();
        let good = number.filter(|number| *number >= least && number.is_finite());
        if good.is_none() {
            let message = format!("`{name}` is not a number of at least {least}");
            self.wrong(name, message, "write it without quotes");
        }
        good
    }

    /// A share from 0 to 1, in slots; it may be missing.
    pub(super) fn share(&self, name: &str) -> Option<u16> {
        let share = self.object.get(name)?.as_f64();
        let slots = share.and_then(|share| whole_slots(share * f64::from(SLOTS)));
        if slots.is_none() {
            let message = format!("`{name}` is not a share from 0 to 1 with at most four decimals");
            self.wrong(name, message, "write 0.2 for a fifth of the people");
        }
        slots
    }

    /// An array of objects; it may be missing.
    pub(super) fn objects(&self, name: &str, most: usize) -> &'a [Value] {
        match self.object.get(name) {
            None => &[],
            Some(Value::Array(list)) if list.len() <= most => list,
            Some(_) => {
                let message = format!("`{name}` is not a list of at most {most}");
                self.wrong(name, message, "write it as [{ … }, { … }]");
                &[]
            }
        }
    }

    /// What each arm gets, in percent with at most two decimals: all slots.
    pub(super) fn weights(&self, name: &str) -> Option<BTreeMap<String, u16>> {
        const MEND: &str = "write percent that sum to 100, as {\"off\": 95, \"on\": 5}";
        let arms = match self.object.get(name) {
            None => return self.missing(name, MEND),
            Some(Value::Object(arms)) if (2..=super::MAX_ARMS).contains(&arms.len()) => arms,
            Some(_) => {
                let message = format!("`{name}` has 2 to {} arms", super::MAX_ARMS);
                self.wrong(name, message, MEND);
                return None;
            }
        };
        let mut weights = BTreeMap::new();
        for (arm, percent) in arms {
            let Some(slots) = percent.as_f64().and_then(|p| whole_slots(p * 100.0)) else {
                let message = format!(
                    "the weight of `{}` is not a percentage with at most two decimals",
                    arm.escape_debug()
                );
                self.wrong(&format!("{name}\0{arm}"), message, MEND);
                return None;
            };
            if arm.is_empty() || arm.len() > super::MAX_ARM {
                let message = format!("the name of an arm has 1 to {} bytes", super::MAX_ARM);
                self.wrong(
                    &format!("{name}\0{arm}"),
                    message,
                    "shorten the variant's name",
                );
            }
            weights.insert(arm.clone(), slots);
        }
        let sum: u32 = weights.values().map(|slots| u32::from(*slots)).sum();
        if sum != u32::from(SLOTS) {
            let message = format!("the weights sum to {} %", percent(sum));
            self.wrong(name, message, MEND);
            return None;
        }
        Some(weights)
    }
}

/// A number of slots that is whole, but for the rounding of binary fractions.
fn whole_slots(slots: f64) -> Option<u16> {
    let whole = slots.round();
    let good = (0.0..=f64::from(SLOTS)).contains(&whole) && (slots - whole).abs() < 1e-6;
    good.then_some(whole as u16)
}

/// Slots as percent: `9.5`, `100`.
pub(crate) fn percent(slots: u32) -> String {
    let (whole, rest) = (slots / 100, slots % 100);
    match rest {
        0 => whole.to_string(),
        rest if rest % 10 == 0 => format!("{whole}.{}", rest / 10),
        rest => format!("{whole}.{rest:02}"),
    }
}

/// Whether it can be a name of an experiment, a layer, a metric.
pub(super) fn is_name(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=super::MAX_NAME).contains(&text.len()) && text.bytes().all(is_good)
}

/// A member's name in a JSON pointer; a NUL stands for the slash between two.
fn escape(name: &str) -> String {
    name.replace('~', "~0")
        .replace('/', "~1")
        .replace('\0', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_has_no_zeros_behind() {
        let texts = [0, 1, 10, 50, 500, 3333, 9950, 10_000].map(percent);
        let expected = ["0", "0.01", "0.1", "0.5", "5", "33.33", "99.5", "100"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn every_hundredth_of_a_percent_is_whole() {
        for slots in 0..=SLOTS {
            let text = percent(u32::from(slots));
            let number: f64 = text.parse().unwrap();
            assert_eq!(whole_slots(number * 100.0), Some(slots), "{text}");
            let share: f64 = format!("{:.4}", f64::from(slots) / 1e4).parse().unwrap();
            assert_eq!(whole_slots(share * 1e4), Some(slots), "{share}");
        }
        for none in [-0.01, 0.005, 100.01, f64::NAN, f64::INFINITY] {
            assert_eq!(whole_slots(none * 100.0), None, "{none}");
        }
    }
}
