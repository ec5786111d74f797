//! What is forgotten of experiments, when, and what never is.

use std::time::Duration;

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_records::{Config, RecordsError, read};
use serde_json::{Value, json};

use super::Retention;
use super::observed::{Office, error, exposure, reasons, running};
use crate::documents::Kind;

const DAY: Duration = Duration::from_secs(86_400);

fn stopped() -> Value {
    let mut stopped = running(50);
    stopped["state"] = json!("stopped");
    stopped
}

impl Office {
    /// What a leader does, whichever.
    async fn retain(&self) {
        self.retention().look().await.unwrap();
    }

    fn retention(&self) -> Retention {
        Retention {
            observations: self.observations.clone(),
        }
    }

    /// How many rows tell of single people: exposures, their totals, and ids of measurements.
    async fn rows(&self) -> [i64; 3] {
        let records = self.observations.records().await.unwrap();
        let rows: Result<_, RecordsError> = read!(records, |tx| {
            let mut counts = [0; 3];
            let tables = [
                "SELECT COUNT(*) FROM mobile_exposures",
                "SELECT COUNT(*) FROM mobile_metric_people",
                "SELECT COUNT(*) FROM mobile_measured",
            ];
            for (count, table) in counts.iter_mut().zip(tables) {
                *count = tx.query(table, &[]).await?[0].get(0)?;
            }
            Ok(counts)
        });
        rows.unwrap()
    }

    /// People see an arm, and something is measured of each.
    async fn see_and_measure(&self, people: std::ops::Range<usize>) {
        let people = self.arms(people).await;
        self.expose_all(&people).await;
        let errors = people.iter().map(|(_, person)| error(person, "m-1"));
        for some in errors.collect::<Vec<_>>().chunks(500) {
            assert!(self.measure(some.to_vec()).await.refused.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_forgotten_a_while_after_the_end_in_sqlite() {
    forgets(&Office::sqlite(running(50)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_forgotten_a_while_after_the_end_in_mariadb() {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => return hydrant_harness::skipped(&missing),
    };
    let mut config = Config::new(&server.url(DATABASE)).unwrap();
    config.password_file = Some(server.password_file());
    forgets(&Office::on(config, running(50)).await).await;
}

async fn forgets(office: &Office) {
    office.see_and_measure(0..1200).await;
    office.retain().await;
    office.clock.advance(200 * DAY);
    office.retain().await;
    assert_eq!(
        office.rows().await,
        [1200, 1200, 0],
        "a running experiment keeps its people; an old id is counted no more"
    );
    office.see_and_measure(1200..1210).await;
    let (arm, _) = office.arms(5000..5001).await.remove(0);

    office.put(Kind::Experiment, "checkout", stopped()).await;
    office.retain().await;
    office.clock.advance(89 * DAY);
    office.retain().await;
    assert_eq!(office.rows().await, [1210, 1210, 10]);
    let late = office.expose(vec![exposure("user-5000", &arm)]).await;
    assert!(
        reasons(&late).is_empty(),
        "whose phone was offline for long"
    );
    let before = office.report().await;

    office.clock.advance(2 * DAY);
    office.retain().await;
    assert_eq!(office.rows().await, [0; 3]);
    let after = office.report().await;
    assert_eq!(after, before, "the numbers are as they were");
    let late = office.expose(vec![exposure("user-5000", &arm)]).await;
    assert_eq!(reasons(&late), [(0, "over")]);
    let late = office.measure(vec![error("user-0", "m-2")]).await;
    assert_eq!(reasons(&late), [(0, "not_exposed")]);

    // Who starts it again has people again, at once.
    office.put(Kind::Experiment, "checkout", running(50)).await;
    office.see_and_measure(0..20).await;
    office.retain().await;
    office.clock.advance(200 * DAY);
    office.retain().await;
    assert_eq!(office.rows().await[0], 20);
}

#[tokio::test]
async fn a_setting_says_for_how_long() {
    let office = Office::sqlite(running(50)).await;
    let settings = json!({"observations": {"keepDays": 3}});
    office.put(Kind::Settings, "settings", settings).await;
    office.see_and_measure(0..10).await;
    office.put(Kind::Experiment, "checkout", stopped()).await;
    office.retain().await;
    office.clock.advance(2 * DAY);
    office.retain().await;
    assert_eq!(office.rows().await, [10; 3]);
    office.clock.advance(DAY);
    office.retain().await;
    assert_eq!(office.rows().await, [0; 3]);
}

#[tokio::test]
async fn who_is_in_an_experiment_that_was_started_again_meanwhile_stays() {
    let office = Office::sqlite(running(50)).await;
    office.see_and_measure(0..10).await;
    office.put(Kind::Experiment, "checkout", stopped()).await;
    let seen = office.desk().current().await.unwrap();
    office.put(Kind::Experiment, "checkout", running(50)).await;
    let retention = office.retention();
    retention.forget(&seen, "checkout").await.unwrap();
    assert_eq!(office.rows().await, [10; 3]);
}
