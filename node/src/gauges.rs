//! What services count of themselves, shown on the node's page of metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::{Code, Error, ServiceId, proto};
use tokio::time::Instant;

/// The most gauges of one service, and the most services.
const MOST: usize = 64;
const MOST_SERVICES: usize = 1024;
/// The longest name, in letters, and the longest `of`, in bytes.
const MAX_NAME: usize = 60;
const MAX_OF: usize = 100;
const LONGEST: Duration = Duration::from_secs(3600);

/// The gauges of all services that said some. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Gauges(Arc<Mutex<BTreeMap<ServiceId, Said>>>);

struct Said {
    gauges: Vec<Gauge>,
    until: Instant,
}

/// One number that a service said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gauge {
    pub(crate) name: String,
    pub(crate) of: String,
    pub(crate) value: f64,
}

impl Gauges {
    /// Takes what a service says now, in the place of what it said before.
    pub(crate) fn take(
        &self,
        service: &ServiceId,
        gauges: &[proto::Gauge],
        ttl: Duration,
    ) -> Result<(), Error> {
        if gauges.len() > MOST {
            return Err(invalid(format!("more than {MOST} gauges")));
        }
        let gauges = gauges.iter().map(checked).collect::<Result<Vec<_>, _>>()?;
        let until = Instant::now() + ttl.min(LONGEST);
        let mut said = self.said();
        said.retain(|_, said| Instant::now() < said.until);
        if said.len() >= MOST_SERVICES && !said.contains_key(service) {
            let message = format!("{MOST_SERVICES} services have gauges already");
            return Err(Error::new(
                Code::ResourceExhausted,
                "too_many_gauges",
                message,
            ));
        }
        said.insert(service.clone(), Said { gauges, until });
        Ok(())
    }

    /// All that is still true, by service.
    pub(crate) fn all(&self) -> Vec<(ServiceId, Gauge)> {
        let mut said = self.said();
        said.retain(|_, said| Instant::now() < said.until);
        said.iter()
            .flat_map(|(service, said)| {
                said.gauges.iter().map(|one| (service.clone(), one.clone()))
            })
            .collect()
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked(gauge: &proto::Gauge) -> Result<Gauge, Error> {
    let is_letter = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '_');
    if gauge.name.is_empty() || gauge.name.len() > MAX_NAME || !gauge.name.chars().all(is_letter) {
        let name = gauge.name.chars().take(MAX_NAME).collect::<String>();
        return Err(invalid(format!(
            "the gauge `{}` has a name that is not of a to z, 0 to 9 and _, or longer than {MAX_NAME}",
            name.escape_debug()
        )));
    }
    if gauge.of.len() > MAX_OF || gauge.of.chars().any(char::is_control) {
        return Err(invalid(format!(
            "the gauge `{}` has an `of` that can't be",
            gauge.name
        )));
    }
    if !gauge.value.is_finite() {
        return Err(invalid(format!("the gauge `{}` is no number", gauge.name)));
    }
    Ok(Gauge {
        name: gauge.name.clone(),
        of: gauge.of.clone(),
        value: gauge.value,
    })
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, "invalid_gauge", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(name: &str, of: &str, value: f64) -> proto::Gauge {
        proto::Gauge {
            name: name.into(),
            of: of.into(),
            value,
            ..Default::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gauge_is_shown_until_its_time_is_over_or_another_is_said() {
        let gauges = Gauges::default();
        let service: ServiceId = "service/shop".parse().unwrap();
        let ttl = Duration::from_secs(60);
        let say = |value| gauges.take(&service, &[gauge("waiting", "mail", value)], ttl);
        say(1.0).unwrap();
        say(2.0).unwrap();
        let shown = gauges.all();
        assert_eq!((shown.len(), shown[0].1.value), (1, 2.0));
        tokio::time::advance(ttl).await;
        assert!(gauges.all().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_gauge_is_refused_whole() {
        let gauges = Gauges::default();
        let service: ServiceId = "service/shop".parse().unwrap();
        let good = gauge("waiting", "", 1.0);
        for bad in [
            gauge("", "", 1.0),
            gauge("Waiting", "", 1.0),
            gauge("a\nb", "", 1.0),
            gauge(&"a".repeat(61), "", 1.0),
            gauge("a", &"a".repeat(101), 1.0),
            gauge("a", "a\nb", 1.0),
            gauge("a", "", f64::NAN),
        ] {
            let both = [good.clone(), bad];
            gauges.take(&service, &both, LONGEST).unwrap_err();
        }
        let many = vec![good; MOST + 1];
        gauges.take(&service, &many, LONGEST).unwrap_err();
        assert!(gauges.all().is_empty());
    }
}
