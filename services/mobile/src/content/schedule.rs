use jiff::Timestamp;

/// When something shows: from its beginning on, and no more at its end. In milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) from: Option<i64>,
    pub(crate) until: Option<i64>,
}

/// How a time counts against a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    Now,
    After,
}

impl Schedule {
    pub(crate) fn phase(self, now: i64) -> Phase {
        if self.from.is_some_and(|from| now < from) {
            return Phase::Before;
        }
        match self.until {
            Some(until) if now >= until => Phase::After,
            _ => Phase::Now,
        }
    }

    /// The times at which it begins and ends.
    pub(crate) fn boundaries(self) -> impl Iterator<Item = i64> {
        self.from.into_iter().chain(self.until)
    }
}

/// Reads a time as RFC 3339 has it: `2026-12-01T00:00:00Z`, `2026-12-01T00:00:00+01:00`. What is
/// finer than a millisecond is left out.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let has_date_and_time = text
        .as_bytes()
        .get(10)
        .is_some_and(|at| b"Tt ".contains(at));
    match text.parse::<Timestamp>() {
        Ok(time) if has_date_and_time => Ok(time.as_millisecond()),
        _ => Err(format!(
            "`{}` is not a time with its offset from UTC",
            text.escape_debug()
        )),
    }
}

/// A time as people read it.
pub(crate) fn show_time(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .unwrap_or_default()
        .to_string()
}
