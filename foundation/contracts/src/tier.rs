use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::InvalidName;
use crate::proto;

/// Which services a service may call: each tier calls only those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The only tier that the outside reaches.
    Api,
    /// Flows that cross services.
    Orchestration,
    /// Alone owns data, and calls no other service.
    Service,
}

impl Tier {
    /// Every tier, from the outside inwards.
    pub const ALL: [Tier; 3] = [Tier::Api, Tier::Orchestration, Tier::Service];

    /// The tier as it stands in a path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Api => "api",
            Tier::Orchestration => "orchestration",
            Tier::Service => "service",
        }
    }

    /// Whether a service of this tier may call one of `callee`.
    pub const fn may_call(self, callee: Tier) -> bool {
        matches!(
            (self, callee),
            (Tier::Api, Tier::Orchestration | Tier::Service) | (Tier::Orchestration, Tier::Service)
        )
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Tier {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Tier::ALL
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or_else(|| {
                InvalidName::new("tier", text, "it is one of api, orchestration and service")
            })
    }
}

impl From<Tier> for proto::Tier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Api => proto::Tier::TIER_API,
            Tier::Orchestration => proto::Tier::TIER_ORCHESTRATION,
            Tier::Service => proto::Tier::TIER_SERVICE,
        }
    }
}

impl TryFrom<proto::Tier> for Tier {
    type Error = InvalidName;

    fn try_from(tier: proto::Tier) -> Result<Self, InvalidName> {
        match tier {
            proto::Tier::TIER_API => Ok(Tier::Api),
            proto::Tier::TIER_ORCHESTRATION => Ok(Tier::Orchestration),
            proto::Tier::TIER_SERVICE => Ok(Tier::Service),
            proto::Tier::TIER_UNSPECIFIED => Err(InvalidName::new(
                "tier",
                "",
                "it is one of api, orchestration and service",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_calls_only_those_below() {
        let allowed: Vec<_> = Tier::ALL
            .into_iter()
            .flat_map(|from| Tier::ALL.map(|to| (from, to)))
            .filter(|(from, to)| from.may_call(*to))
            .collect();
        assert_eq!(
            allowed,
            [
                (Tier::Api, Tier::Orchestration),
                (Tier::Api, Tier::Service),
                (Tier::Orchestration, Tier::Service),
            ]
        );
    }

    #[test]
    fn an_unknown_tier_says_which_there_are() {
        let error = "backend".parse::<Tier>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`backend` is not a tier: it is one of api, orchestration and service"
        );
    }
}
