use hydrant_contracts::Caller;

use crate::decide::Listener;

/// How much a request matters when an instance has more than it can answer: what is lower is refused
/// first, long before the instance is full for what is higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Can be done later, or left out: a batch, a prefetch, a report.
    Low,
    /// Everything that says nothing.
    #[default]
    Normal,
    /// Matters more than the rest: a payment, a log-in.
    High,
}

impl Priority {
    /// All, what is refused first before the others.
    pub const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    /// As the header `hydrant-priority` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }

    /// What a request has that came in at `listener` from `caller`, with this value of the header
    /// `hydrant-priority`. The outside may say that something matters less, and is not believed that it
    /// matters more. What nobody knows is normal.
    pub fn of(asked: Option<&[u8]>, listener: Listener, caller: &Caller) -> Self {
        let Some(asked) = asked else {
            return Priority::Normal;
        };
        let mut known = Priority::ALL.into_iter();
        let asked = known.find(|known| asked.eq_ignore_ascii_case(known.as_str().as_bytes()));
        let asked = asked.unwrap_or_default();
        match (listener, caller) {
            (Listener::Public | Listener::Local, Caller::Outside) => asked.min(Priority::Normal),
            _ => asked,
        }
    }

    /// How many of `most` places those of this priority may fill.
    pub(crate) fn share_of(self, most: u64) -> u64 {
        match self {
            Priority::Low => (most / 4).max(1),
            Priority::Normal => (most * 3 / 5).max(1),
            Priority::High => most,
        }
    }
}

#[cfg(test)]
mod tests {
    use hydrant_contracts::Identity;

    use super::*;

    #[test]
    fn the_outside_may_say_that_it_matters_less_but_not_more() {
        let of = |text: &str, listener, caller: &Caller| {
            Priority::of(Some(text.as_bytes()), listener, caller)
        };
        let known = Caller::Known(Identity::Service("api/shop".parse().unwrap()));
        for (text, outside, inside) in [
            ("low", Priority::Low, Priority::Low),
            ("Normal", Priority::Normal, Priority::Normal),
            ("HIGH", Priority::Normal, Priority::High),
            ("always", Priority::Normal, Priority::Normal),
            ("\u{fffd}", Priority::Normal, Priority::Normal),
            ("", Priority::Normal, Priority::Normal),
        ] {
            for listener in [Listener::Public, Listener::Local] {
                assert_eq!(of(text, listener, &Caller::Outside), outside, "{text}");
                assert_eq!(of(text, listener, &known), inside, "{text}");
            }
            // Another node has looked at it already.
            assert_eq!(of(text, Listener::Peer, &Caller::Outside), inside, "{text}");
        }
        assert_eq!(Priority::of(None, Listener::Peer, &known), Priority::Normal);
    }

    #[test]
    fn what_matters_more_has_places_that_what_matters_less_never_fills() {
        for most in 6..2000 {
            let shares = Priority::ALL.map(|priority| priority.share_of(most));
            assert!(
                shares.is_sorted_by(|a, b| a < b) && shares[2] == most,
                "{most}"
            );
        }
    }
}
