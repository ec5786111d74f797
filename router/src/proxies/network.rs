use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that begin alike, as `10.0.0.0/8`; one without a length is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

/// It is not written as a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no address, or the length is none for it.
    #[error(
        "it is not a network: write an address, or one with a length, as 10.0.0.0/8 or fd00::/8"
    )]
    Malformed,
    /// The address has bits behind its length.
    #[error("the address goes on behind its length: write where the network begins, as {0}")]
    Inside(Network),
}

impl Network {
    fn new(address: IpAddr, bits: u8) -> Self {
        let first = match address {
            IpAddr::V4(v4) => IpAddr::from(
                (v4.to_bits() & mask(u128::from(u32::MAX), 32, bits) as u32).to_be_bytes(),
            ),
            IpAddr::V6(v6) => {
                IpAddr::from((v6.to_bits() & mask(u128::MAX, 128, bits)).to_be_bytes())
            }
        };
        Self { first, bits }
    }

    /// Whether an address, which is no mapped one, is of it.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
            && Self::new(address, self.bits).first == self.first
    }
}

/// The first `bits` of `width`.
fn mask(all: u128, width: u8, bits: u8) -> u128 {
    all & all.checked_shl(u32::from(width - bits)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => width,
            Some(text) => (Some(text)
                .filter(is_number)
                .and_then(|text| text.parse().ok()))
            .filter(|bits| *bits <= width)
            .ok_or(NetworkError::Malformed)?,
        };
        let network = Self::new(address, bits);
        match network.first == address {
            true => Ok(network),
            false => Err(NetworkError::Inside(network)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_has_what_begins_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("::/0", "::1", "1.2.3.4"),
            ("fd00::/8", "fd12::1", "fe00::1"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
        ] {
            let has = |address: &str| {
                network
                    .parse::<Network>()
                    .unwrap()
                    .has(address.parse().unwrap())
            };
            assert!(has(inside) && !has(outside), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        for text in [
            "",
            "x",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0/8",
            "1.2.3.4/8/8",
        ] {
            assert_eq!(
                text.parse::<Network>(),
                Err(NetworkError::Malformed),
                "{text}"
            );
        }
        let error = "10.1.0.0/8".parse::<Network>().unwrap_err();
        assert!(error.to_string().ends_with("as 10.0.0.0/8"), "{error}");
    }

    proptest! {
        #[test]
        fn each_address_is_in_the_network_that_is_made_of_it(address: u128, bits in 0..=128_u8) {
            let address = IpAddr::from(address.to_be_bytes());
            prop_assert!(Network::new(address, bits).has(address));
            prop_assert_eq!(Network::new(address, bits).to_string().parse(), Ok(Network::new(address, bits)));
        }
    }
}
