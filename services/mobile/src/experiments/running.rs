//! A running experiment, ready to say who is in which arm.

use hydrant_contracts::bucket::{Slot, SlotTable, slot};
use hydrant_flags::{Context, Rule};
use serde_json::Value;

use super::definition::TARGETING_KEY;

/// A running experiment.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(super) subject: String,
    pub(super) eligible: Option<Rule>,
    /// Who is held out: the salts, and how many slots from 0.
    pub(super) holdouts: Vec<(String, HeldOut)>,
    /// Which experiment of the layer has which slot, with the salt of that draw.
    pub(super) share: Draw,
    /// Which arm has which slot.
    pub(super) arms: Draw,
}

/// How many slots from 0 a holdout has, under its salt.
#[derive(Debug)]
pub(super) struct HeldOut {
    pub(super) salt: String,
    pub(super) slots: u16,
}

/// A table with the salt that slots are drawn with.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) salt: String,
    pub(super) table: SlotTable,
}

impl Draw {
    fn of(&self, subject: &str) -> (Slot, &str) {
        let slot = slot(&self.salt, subject);
        (slot, self.table.arm(slot))
    }
}

/// How somebody stands to an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<'a> {
    /// It is not known who it is.
    Unknown,
    /// A holdout keeps them out of it.
    HeldOut(&'a str),
    /// Their slot of the layer is another experiment's, or nobody's: `""`.
    Elsewhere(Slot, &'a str),
    /// It is not for them.
    NotEligible,
    /// They are in this arm, by this slot.
    In(Slot, &'a str),
}

impl Running {
    /// How somebody stands to it. Allocates nothing.
    pub(crate) fn standing<'a>(&'a self, context: &Context<'_>) -> Standing<'a> {
        let mut digits = Digits::default();
        let Some(subject) = subject_of(&self.subject, context, &mut digits) else {
            return Standing::Unknown;
        };
        for (name, holdout) in &self.holdouts {
            if slot(&holdout.salt, subject).number() < holdout.slots {
                return Standing::HeldOut(name);
            }
        }
        let (slot, owner) = self.share.of(subject);
        if owner != self.name {
            return Standing::Elsewhere(slot, owner);
        }
        if self
            .eligible
            .as_ref()
            .is_some_and(|rule| !rule.holds(context))
        {
            return Standing::NotEligible;
        }
        let (slot, arm) = self.arms.of(subject);
        Standing::In(slot, arm)
    }
}

/// Room for the decimal digits of an integer.
#[derive(Default)]
struct Digits {
    text: [u8; 20],
    used: usize,
}

impl std::fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.used + text.len();
        let room = self.text.get_mut(self.used..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

/// Who somebody is: a text, or an integer as its decimal digits.
fn subject_of<'a>(
    attribute: &str,
    context: &Context<'a>,
    digits: &'a mut Digits,
) -> Option<&'a str> {
    use std::fmt::Write as _;
    let text = match context.attributes.get(attribute) {
        _ if attribute == TARGETING_KEY => context.targeting_key?,
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) if !number.is_f64() => {
            write!(digits, "{number}").ok()?;
            std::str::from_utf8(&digits.text[..digits.used]).ok()?
        }
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
