use hydrant_contracts::{Caller, TokenKey};

use crate::refusal::{Reason, Refusal};
use crate::visitors::Seat;

/// Who calls, and the text that instances see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Who calls.
    pub caller: Caller,
    /// The value of the header `hydrant-caller`.
    pub text: Box<str>,
}

impl Who {
    fn new(caller: Caller) -> Self {
        let text = caller.to_string().into();
        Self { caller, text }
    }
}

/// Says who calls on one connection. The last token is remembered, since a connection usually
/// has one caller: checking it again costs a comparison. Takes no memory without a token.
#[derive(Debug, Default)]
pub struct Identities {
    last: Option<Box<Proved>>,
}

#[derive(Debug)]
struct Proved {
    token: Box<[u8]>,
    who: Who,
    /// Where the connection counts as one of the caller's.
    _seat: Option<CallerSeat>,
}

/// A connection of a caller, by the text that instances see of it.
pub(crate) type CallerSeat = Seat<Box<str>>;

impl Identities {
    /// A connection on which nobody has called yet.
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// The last token that proved who calls.
    pub(crate) fn token(&self) -> Option<&[u8]> {
        self.last.as_ref().map(|last| &*last.token)
    }

    /// Who sent a request with this value of the header `hydrant-token`.
    pub fn resolve<'a>(
        &'a mut self,
        key: &TokenKey,
        token: Option<&[u8]>,
    ) -> Result<&'a Who, Refusal> {
        self.admit(key, token, |_| Ok(None))
    }

    /// The same; whoever is new on the connection has to find a seat.
    pub(crate) fn admit<'a>(
        &'a mut self,
        key: &TokenKey,
        token: Option<&[u8]>,
        seat: impl FnOnce(&Who) -> Result<Option<CallerSeat>, Refusal>,
    ) -> Result<&'a Who, Refusal> {
        let Some(token) = token else {
            return Ok(outside());
        };
        let known = self.last.as_ref().is_some_and(|last| *last.token == *token);
        if !known {
            let who = verified(key, token)?;
            self.last = None;
            self.last = Some(Box::new(Proved {
                token: token.into(),
                _seat: seat(&who)?,
                who,
            }));
        }
        Ok(match &self.last {
            Some(last) => &last.who,
            None => outside(),
        })
    }
}

fn verified(key: &TokenKey, token: &[u8]) -> Result<Who, Refusal> {
    let text = std::str::from_utf8(token).unwrap_or("");
    let identity = key.verify(text).map_err(|_| {
        let message = "the token was not made by this node or its fleet";
        Refusal::new(Reason::InvalidToken, message)
            .mend("make one with `hydrant token SERVICE`, or send none")
    })?;
    Ok(Who::new(Caller::Known(identity)))
}

fn outside() -> &'static Who {
    static OUTSIDE: std::sync::LazyLock<Who> =
        std::sync::LazyLock::new(|| Who::new(Caller::Outside));
    &OUTSIDE
}

#[cfg(test)]
mod tests {
    use hydrant_contracts::Identity;

    use super::*;

    #[test]
    fn a_token_names_its_caller_again_and_again() {
        let (key, mut identities) = (TokenKey::new(&[1; 32]), Identities::new());
        let token = key.issue(&Identity::Service("api/mobile".parse().unwrap()));
        for _ in 0..2 {
            let who = identities.resolve(&key, Some(token.as_bytes())).unwrap();
            assert_eq!(&*who.text, "api/mobile");
        }
        assert_eq!(&*identities.resolve(&key, None).unwrap().text, "outside");
        let operator = key.issue(&Identity::Operator);
        let who = identities.resolve(&key, Some(operator.as_bytes())).unwrap();
        assert_eq!(who.caller, Caller::Known(Identity::Operator));
    }

    #[test]
    fn a_false_token_is_refused_also_after_a_true_one() {
        let (key, mut identities) = (TokenKey::new(&[1; 32]), Identities::new());
        let token = key.issue(&Identity::Operator);
        identities.resolve(&key, Some(token.as_bytes())).unwrap();
        for bad in [
            &token.as_bytes()[1..],
            b"",
            b"\xff\xfe",
            b"h1.operator.AAAA",
        ] {
            let refusal = identities.resolve(&key, Some(bad)).unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidToken);
        }
    }
}
