//! Days and times, as operators write them.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// `2026-11-20`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day(Date);

/// `2026-11-20` or `2026-11-20T09:00:00Z`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) i64);

/// `UTC` or `America/Chicago`.
#[derive(Clone, Debug)]
pub(super) struct Zone(pub(super) TimeZone);

impl Day {
    /// The day that it is now.
    pub(super) fn today(zone: &Zone) -> Self {
        Self(Timestamp::now().to_zoned(zone.0.clone()).date())
    }

    /// When it begins and when the next one does, in milliseconds since 1970.
    pub(super) fn bounds(self, zone: &Zone) -> Option<(i64, i64)> {
        let begin = |date: Date| {
            let zoned = date.to_zoned(zone.0.clone()).ok()?;
            Some(zoned.timestamp().as_millisecond())
        };
        Some((begin(self.0)?, begin(self.0.checked_add(1.day()).ok()?)?))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Day {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| "a day is written 2026-11-20")
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let day = text.parse::<Date>().ok().filter(|_| text.len() == 10);
        let time = match day {
            Some(day) => day.to_zoned(TimeZone::UTC).map(|day| day.timestamp()),
            None => text.parse::<Timestamp>(),
        };
        time.map(|time| Self(time.as_millisecond()))
            .map_err(|_| "a time is written 2026-11-20 or 2026-11-20T09:00:00Z")
    }
}

impl FromStr for Zone {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let zone = TimeZone::get(text).map(Self);
        zone.map_err(
            |_| "a time zone is written UTC or America/Chicago, and has to be known to the system",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_the_hours_that_its_zone_gives_it() {
        let hours = |day: &str, zone: &str| {
            let (from, until) = day
                .parse::<Day>()
                .unwrap()
                .bounds(&zone.parse().unwrap())
                .unwrap();
            (until - from) / 3_600_000
        };
        assert_eq!(hours("2026-11-20", "UTC"), 24);
        if "Europe/Berlin".parse::<Zone>().is_ok() {
            assert_eq!(hours("2026-10-25", "Europe/Berlin"), 25);
            assert_eq!(hours("2026-03-29", "Europe/Berlin"), 23);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!("1970-01-02".parse::<Moment>().unwrap().0, 86_400_000);
        assert_eq!("1970-01-01T00:00:01Z".parse::<Moment>().unwrap().0, 1000);
        for text in ["", "yesterday", "2026-13-01", "2026-11-20T09:00"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
            assert!(text.parse::<Day>().is_err() || text.len() > 10, "{text}");
        }
    }
}
