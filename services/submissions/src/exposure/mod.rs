//! What exists in one data centre only, and would be lost with it: how much, and since when. It is told when
//! somebody asks, in the metrics, and on a line of the log when it lasts.

mod behind;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_records::Records;
use hydrant_sdk::{Duty, Error, Gauge, Hydrant, Service, Term, turns};
use tokio::time::Instant;

use crate::attachments::Attachments;
use crate::proto::{
    EXPOSURE_MEASURE_SPEC, Exposed, MeasureExposureRequest, MeasureExposureResponse,
};
use crate::sites::Tables;
use behind::Behind;

/// How often it is measured.
const APART: Duration = Duration::from_secs(10);
/// How long the other database may take to tell how far it is.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the gauges are shown: three turns may be missed.
const SHOWN: Duration = Duration::from_secs(40);
/// From which age on somebody should look, and how often that is said.
const ALARMING_MS: i64 = 5 * 60_000;
const SAID_AGAIN: Duration = Duration::from_secs(10 * 60);

/// Measures. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Meter {
    attachments: Attachments,
    tables: Tables,
}

impl Meter {
    pub(crate) fn new(attachments: &Attachments, tables: &Tables) -> Self {
        Self {
            attachments: attachments.clone(),
            tables: tables.clone(),
        }
    }

    pub(crate) fn serve(&self, service: Service) -> Service {
        let meter = self.clone();
        service.endpoint(EXPOSURE_MEASURE_SPEC, move |_: MeasureExposureRequest| {
            let meter = meter.clone();
            async move { meter.measure().await }
        })
    }

    /// What the leader does: it says it, to the node and in the log.
    pub(crate) fn duty(&self, hydrant: &Hydrant) -> Arc<dyn Duty> {
        Arc::new(Telling {
            meter: self.clone(),
            hydrant: hydrant.clone(),
        })
    }

    async fn measure(&self) -> Result<MeasureExposureResponse, Error> {
        let objects = self.attachments.exposed().await?;
        let objects = objects.map(|exposed| Exposed {
            count: exposed.count,
            oldest_unix_ms: exposed.oldest_ms,
            ..Default::default()
        });
        let submissions = self.submissions().await?.map(|behind| Exposed {
            count: behind.count,
            oldest_unix_ms: behind.oldest_ms,
            ..Default::default()
        });
        Ok(MeasureExposureResponse {
            submissions: submissions.into(),
            objects: objects.into(),
            ..Default::default()
        })
    }
}

impl Meter {
    /// What the database of the other data centre does not have; nothing where there is one.
    async fn submissions(&self) -> Result<Option<Behind>, Error> {
        let Some(follower) = self.follower()? else {
            return Ok(None);
        };
        let primary = self.tables.ready().await?;
        Ok(Some(behind::behind(&primary, &follower).await?))
    }

    /// Puts on record how far the other database has come.
    async fn note(&self) -> Result<(), Error> {
        if let Some(follower) = self.follower()? {
            let primary = self.tables.ready().await?;
            behind::note(&primary, &follower).await?;
        }
        Ok(())
    }

    fn follower(&self) -> Result<Option<Records>, Error> {
        let other = self.tables.other().map(|site| site.to_read());
        Ok(other.transpose()?.map(|records| records.within(PATIENCE)))
    }
}

struct Telling {
    meter: Meter,
    hydrant: Hydrant,
}

impl Duty for Telling {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async {
            let mut turns = turns(APART);
            let mut alarm = Alarm::default();
            loop {
                term.turn(&mut turns).await;
                // While the other database is away it stays as it was known.
                let _ = self.meter.note().await;
                match self.meter.measure().await {
                    Ok(measured) => self.tell(&measured, &mut alarm).await,
                    Err(error) => tracing::debug!(%error, "what is exposed can't be measured now"),
                }
            }
        })
    }
}

impl Telling {
    async fn tell(&self, measured: &MeasureExposureResponse, alarm: &mut Alarm) {
        let now = self.meter.attachments.now();
        let kinds = measured.kinds();
        if kinds.is_empty() {
            return;
        }
        let gauges: Vec<_> = kinds
            .iter()
            .flat_map(|(kind, exposed)| gauges(kind, exposed, now))
            .collect();
        if let Err(error) = self.hydrant.measure(&gauges, SHOWN).await {
            tracing::debug!(%error, "the node does not take gauges now");
        }
        alarm.look(&kinds, now);
    }
}

impl MeasureExposureResponse {
    /// What there is in two data centres, with its name: `submissions`, `objects`.
    pub fn kinds(&self) -> Vec<(&'static str, &Exposed)> {
        let submissions = self.submissions.as_option();
        let kinds = [
            ("submissions", submissions),
            ("objects", self.objects.as_option()),
        ];
        let there = kinds.into_iter();
        there
            .filter_map(|(kind, exposed)| Some((kind, exposed?)))
            .collect()
    }
}

fn gauges(kind: &str, exposed: &Exposed, now: i64) -> [Gauge; 2] {
    let seconds = exposed
        .oldest_unix_ms
        .map_or(0, |oldest| (now - oldest).max(0)) as f64
        / 1000.0;
    [
        Gauge::new("exposed", exposed.count as f64).of(kind),
        Gauge::new("exposed_oldest_seconds", seconds).of(kind),
    ]
}

/// Says it when something is exposed for long, and again while it lasts, and when it is over.
#[derive(Default)]
struct Alarm {
    said: Option<Instant>,
}

impl Alarm {
    fn look(&mut self, kinds: &[(&str, &Exposed)], now: i64) {
        let is_old = |exposed: &Exposed| {
            exposed
                .oldest_unix_ms
                .is_some_and(|at| now - at >= ALARMING_MS)
        };
        let old: Vec<_> = kinds
            .iter()
            .filter(|(_, exposed)| is_old(exposed))
            .collect();
        if old.is_empty() {
            if self.said.take().is_some() {
                tracing::info!("nothing is in one data centre only for long any more");
            }
            return;
        }
        if self.said.is_some_and(|said| said.elapsed() < SAID_AGAIN) {
            return;
        }
        self.said = Some(Instant::now());
        for (kind, exposed) in old {
            let minutes = exposed
                .oldest_unix_ms
                .map_or(0, |oldest| (now - oldest) / 60_000);
            let count = exposed.count;
            tracing::warn!(
                kind,
                count,
                minutes,
                "exposed: these are in one data centre only"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(count: u64, oldest: i64) -> Exposed {
        Exposed {
            count,
            oldest_unix_ms: (count > 0).then_some(oldest),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_not_doubled_has_no_gauge_and_what_is_has_two() {
        let measured = MeasureExposureResponse {
            objects: exposed(3, 1000).into(),
            ..Default::default()
        };
        assert_eq!(measured.kinds().len(), 1);
        let expected = [
            Gauge::new("exposed", 3.0).of("objects"),
            Gauge::new("exposed_oldest_seconds", 2.0).of("objects"),
        ];
        assert_eq!(gauges("objects", &exposed(3, 1000), 3000), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_is_said_when_it_lasts_and_not_at_every_turn() {
        let mut alarm = Alarm::default();
        alarm.look(&[("objects", &exposed(3, 0))], ALARMING_MS - 1);
        assert!(alarm.said.is_none());
        alarm.look(&[("objects", &exposed(3, 0))], ALARMING_MS);
        let first = alarm.said.expect("said");
        alarm.look(&[("objects", &exposed(3, 0))], ALARMING_MS + 1);
        assert_eq!(alarm.said, Some(first));
        tokio::time::advance(SAID_AGAIN).await;
        alarm.look(&[("objects", &exposed(3, 0))], ALARMING_MS + 2);
        assert_ne!(alarm.said, Some(first));
        alarm.look(&[("objects", &exposed(0, 0))], ALARMING_MS + 3);
        assert!(alarm.said.is_none());
    }
}
