use serde_json::{Map, Value};

/// What an evaluation knows of who asks.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who asks, as OpenFeature's `targetingKey`.
    pub targeting_key: Option<&'a str>,
    /// All that is known, `targetingKey` among it.
    pub attributes: &'a Map<String, Value>,
    /// The time, in seconds since 1970: `$flagd.timestamp`.
    pub now_unix: i64,
}

/// Why a flag has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The flag has no targeting.
    Static,
    /// Its targeting chose the variant.
    TargetingMatch,
    /// A share of people chose it: an experiment.
    Split,
    /// Its targeting chose none, or it has no default.
    Default,
    /// The flag is turned off.
    Disabled,
}

impl Reason {
    /// As OFREP writes it: `TARGETING_MATCH`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Default => "DEFAULT",
            Self::Disabled => "DISABLED",
        }
    }
}

/// What a flag is for who asks. Borrowed from the definitions: nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation<'a> {
    /// The variant; `None` when the flag is disabled or has no default.
    pub variant: Option<&'a str>,
    /// Its value; `None` means the caller's own default.
    pub value: Option<&'a Value>,
    /// Why.
    pub reason: Reason,
}

/// Why a flag has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// There is no such flag.
    #[error("there is no flag `{0}`")]
    FlagNotFound(String),
    /// Its targeting failed, or chose a variant that is not there.
    #[error("{0}")]
    General(String),
}
