//! What apps report, as every database has to keep it, and what the leader makes of it.

use std::time::{Duration, UNIX_EPOCH};

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_records::{Config, Records};
use hydrant_runtime::Clock;
use hydrant_sdk::Code;
use serde_json::{Value, json};

use super::observe::Observations;
use super::{Standing, Watch};
use crate::alarms::Alarms;
use crate::documents::{DocumentId, Kind};
use crate::proto::{
    ExposeRequest, Exposure, MeasureRequest, Measurement, ObservedResponse, ReportRequest,
    ReportResponse, WhoRequest,
};
use crate::service::{Desk, Edit, desk_on};

/// A service with one experiment, and a clock that can be moved.
pub(super) struct Office {
    pub(super) observations: Observations,
    alarms: Alarms,
    pub(super) clock: Clock,
    _folder: Option<tempfile::TempDir>,
}

impl Office {
    pub(super) async fn sqlite(experiment: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/mobile.db", folder.path().display());
        let office = Self::on(Config::new(&url).unwrap(), experiment).await;
        Self {
            _folder: Some(folder),
            ..office
        }
    }

    pub(super) async fn on(config: Config, experiment: Value) -> Self {
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000));
        let desk = desk_on(Records::open(config), clock.clone());
        let office = Self {
            observations: Observations::new(desk),
            alarms: Alarms::new(clock.clone()),
            clock,
            _folder: None,
        };
        let flags = json!({"flags": {"new-checkout": {
            "state": "ENABLED", "variants": {"off": false, "on": true}, "defaultVariant": "off",
        }}});
        office.put(Kind::Flags, "demo", flags).await;
        office.put(Kind::Experiment, "checkout", experiment).await;
        office
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.observations.desk
    }

    pub(super) async fn put(&self, kind: Kind, name: &str, body: Value) {
        let edit = Edit {
            id: DocumentId::new(kind, name).unwrap(),
            body: Some(format!("{body:#}")),
        };
        self.desk()
            .apply("ann", "a test", vec![edit])
            .await
            .unwrap();
    }

    /// Another leader over the same tables.
    fn watch(&self) -> Watch {
        Watch {
            observations: self.observations.clone(),
            alarms: self.alarms.clone(),
        }
    }

    async fn look(&self) {
        self.watch().look().await.unwrap();
    }

    async fn arm(&self, subject: &str) -> String {
        let request = WhoRequest {
            subject: subject.into(),
            ..Default::default()
        };
        let who = self.observations.who(request).await.unwrap();
        who.standings
            .first()
            .map_or(String::new(), |one| one.arm.clone())
    }

    /// The arms of many, without a question for each.
    pub(super) async fn arms(&self, people: std::ops::Range<usize>) -> Vec<(String, String)> {
        let current = self.desk().current().await.unwrap();
        let running = current.experiments.on("new-checkout").unwrap();
        let attributes = serde_json::Map::new();
        let arm = |person: String| {
            let context = hydrant_flags::Context {
                targeting_key: Some(&person),
                attributes: &attributes,
                now_unix: 0,
            };
            let Standing::In(_, arm) = running.standing(&context) else {
                panic!("everybody is in it");
            };
            (arm.to_owned(), person.clone())
        };
        people.map(|n| arm(format!("user-{n}"))).collect()
    }

    pub(super) async fn expose(&self, exposures: Vec<Exposure>) -> ObservedResponse {
        let request = ExposeRequest {
            exposures,
            ..Default::default()
        };
        self.observations.expose(request).await.unwrap()
    }

    /// Exposes people to the arms that they are in.
    pub(super) async fn expose_all(&self, people: &[(String, String)]) {
        for some in people.chunks(1000) {
            let exposures = some
                .iter()
                .map(|(arm, person)| exposure(person, arm))
                .collect();
            assert!(self.expose(exposures).await.refused.is_empty());
        }
    }

    pub(super) async fn measure(&self, measurements: Vec<Measurement>) -> ObservedResponse {
        let request = MeasureRequest {
            measurements,
            ..Default::default()
        };
        self.observations.measure(request).await.unwrap()
    }

    /// One of so many people of each arm has an error.
    async fn errors(&self, people: &[(String, String)], arm: &str, one_of: usize) {
        let of_arm = people.iter().filter(|(of, _)| of == arm).enumerate();
        let unlucky = of_arm.filter(|(at, _)| at % one_of == 0);
        let all: Vec<Measurement> = unlucky
            .map(|(_, (_, person))| error(person, &format!("{arm}-{person}")))
            .collect();
        for some in all.chunks(500) {
            assert!(self.measure(some.to_vec()).await.refused.is_empty());
        }
    }

    pub(super) async fn report(&self) -> ReportResponse {
        let request = ReportRequest {
            name: "checkout".into(),
            ..Default::default()
        };
        self.observations.report(request).await.unwrap()
    }

    /// How many people each arm has, the control first.
    pub(super) async fn people(&self) -> Vec<u64> {
        let report = self.report().await;
        report
            .experiment
            .arms
            .iter()
            .map(|arm| arm.people)
            .collect()
    }

    /// Percent of the arm `on`.
    async fn weight(&self) -> u32 {
        self.report().await.experiment.arms[1].slots / 100
    }
}

pub(super) fn exposure(subject: &str, arm: &str) -> Exposure {
    Exposure {
        experiment: "checkout".into(),
        subject: subject.into(),
        arm: arm.into(),
        ..Default::default()
    }
}

pub(super) fn error(subject: &str, id: &str) -> Measurement {
    Measurement {
        id: id.into(),
        metric: "checkout_error".into(),
        subject: subject.into(),
        value: 1.0,
        ..Default::default()
    }
}

pub(super) fn running(on: u32) -> Value {
    json!({
        "flag": "new-checkout", "state": "running", "control": "off",
        "arms": {"off": 100 - on, "on": on},
    })
}

pub(super) fn reasons(answer: &ObservedResponse) -> Vec<(u32, &str)> {
    let refused = answer.refused.iter();
    refused
        .map(|one| (one.index, one.reason.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposures_count_once_in_sqlite() {
    counts_once(&Office::sqlite(running(50)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposures_count_once_in_mariadb() {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => return hydrant_harness::skipped(&missing),
    };
    let mut config = Config::new(&server.url(DATABASE)).unwrap();
    config.password_file = Some(server.password_file());
    counts_once(&Office::on(config, running(50)).await).await;
}

/// Eight apps report the same, again and again, at the same time.
async fn counts_once(office: &Office) {
    let people = office.arms(0..200).await;
    let both = |(arm, person): &(String, String)| [exposure(person, arm), exposure(person, arm)];
    let exposures: Vec<Exposure> = people.iter().flat_map(both).collect();
    let apps = (0..8).map(|app| {
        let (observations, mut exposures) = (office.observations.clone(), exposures.clone());
        tokio::spawn(async move {
            fastrand::Rng::with_seed(app).shuffle(&mut exposures);
            for some in exposures.chunks(100).chain(exposures.chunks(130)) {
                let request = ExposeRequest {
                    exposures: some.to_vec(),
                    ..Default::default()
                };
                // Who is told to come again does.
                while let Err(error) = observations.expose(request.clone()).await {
                    assert!(error.retryable, "{error}");
                }
            }
        })
    });
    for app in futures::future::join_all(apps).await {
        app.unwrap();
    }
    let on = people.iter().filter(|(arm, _)| arm == "on").count() as u64;
    assert_eq!(office.people().await, [200 - on, on]);
    let report = office.report().await;
    let new: u64 = report.epochs[0].arms.iter().map(|arm| arm.people).sum();
    assert_eq!(new, 200, "each is compared once");
    measures_once(office, &people).await;
}

/// And measure the same, at the same time.
async fn measures_once(office: &Office, people: &[(String, String)]) {
    let all: Vec<Measurement> = people.iter().map(|(_, id)| error(id, "m-1")).collect();
    let apps = (0..4).map(|_| {
        let (observations, measurements) = (office.observations.clone(), all.clone());
        tokio::spawn(async move {
            let request = MeasureRequest {
                measurements,
                ..Default::default()
            };
            while let Err(error) = observations.measure(request.clone()).await {
                assert!(error.retryable, "{error}");
            }
        })
    });
    for app in futures::future::join_all(apps).await {
        app.unwrap();
    }
    let second = all.iter().map(|one| Measurement {
        id: "m-2".into(),
        value: 2.0,
        ..one.clone()
    });
    office.measure(second.collect()).await;
    let report = office.report().await;
    for arm in &report.metrics[0].arms {
        assert_eq!(arm.people, arm.people_with_value);
        assert_eq!(
            (arm.mean, arm.low, arm.high),
            (3.0, 3.0, 3.0),
            "one and two of each"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_item_by_item_and_a_repeat_is_answered_alike() {
    let office = Office::sqlite(running(50)).await;
    let (arm, other) = match office.arm("ann").await.as_str() {
        "on" => ("on", "off"),
        _ => ("off", "on"),
    };
    let unknown = Exposure {
        experiment: "none".into(),
        ..exposure("ann", arm)
    };
    let items = vec![
        unknown,
        exposure("ann", arm),
        exposure("ann", "maybe"),
        exposure("ann", other),
        exposure("", arm),
        exposure(&"x".repeat(191), arm),
    ];
    let expected = [
        (0, "unknown_experiment"),
        (2, "unknown_arm"),
        (3, "not_in_arm"),
        (4, "bad_subject"),
        (5, "bad_subject"),
    ];
    for _ in 0..2 {
        assert_eq!(reasons(&office.expose(items.clone()).await), expected);
    }
    assert_eq!(office.people().await.iter().sum::<u64>(), 1);
    let bad = |change: fn(&mut Measurement)| {
        let mut one = error("ann", "m-1");
        change(&mut one);
        one
    };
    let measured = office.measure(vec![
        error("bob", "m-1"),
        bad(|one| one.metric = "a b".into()),
        bad(|one| one.value = f64::NAN),
        bad(|one| one.experiment = "none".into()),
        bad(|one| one.id = "x".repeat(101)),
        error("ann", "m-1"),
    ]);
    let expected = [
        (0, "not_exposed"),
        (1, "bad_metric"),
        (2, "bad_value"),
        (3, "unknown_experiment"),
        (4, "bad_id"),
    ];
    assert_eq!(reasons(&measured.await), expected);
    let many = vec![exposure("ann", arm); 2001];
    let request = ExposeRequest {
        exposures: many,
        ..Default::default()
    };
    let error = office.observations.expose(request).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_phone_that_was_offline_reports_days_later() {
    let office = Office::sqlite(running(5)).await;
    let people = office.arms(0..400).await;
    let then = office.clock.unix_ms();
    office.clock.advance(Duration::from_secs(3 * 86_400));
    office.put(Kind::Experiment, "checkout", running(50)).await;
    office.clock.advance(Duration::from_secs(60));
    let mut stopped = running(50);
    stopped["state"] = json!("stopped");
    office.put(Kind::Experiment, "checkout", stopped).await;
    let exposures = people.iter().map(|(arm, person)| Exposure {
        at_unix_ms: Some(then + 1),
        ..exposure(person, arm)
    });
    let answer = office.expose(exposures.collect()).await;
    assert!(answer.refused.is_empty(), "{:?}", answer.refused);
    let report = office.report().await;
    let on = people.iter().filter(|(arm, _)| arm == "on").count() as u64;
    assert_eq!(
        report.epochs[0].arms[1].people, on,
        "as it was when they saw it"
    );
    assert_eq!(
        report.epochs[1]
            .arms
            .iter()
            .map(|arm| arm.people)
            .sum::<u64>(),
        0
    );
}

fn ramped() -> Value {
    let at = |seconds: i64| {
        jiff::Timestamp::from_second(1_000_000 + seconds)
            .unwrap()
            .to_string()
    };
    let mut experiment = running(5);
    experiment["ramp"] = json!([
        {"at": at(3600), "arms": {"off": 90, "on": 10}},
        {"at": at(7200), "arms": {"off": 80, "on": 20}},
        {"at": at(10_800), "arms": {"off": 50, "on": 50}},
    ]);
    experiment
}

#[tokio::test]
async fn a_step_is_taken_once_whoever_leads_and_made_up_for_when_all_were_down() {
    let office = Office::sqlite(ramped()).await;
    office.look().await;
    assert_eq!(
        (
            office.weight().await,
            office.report().await.ramp[0].state.as_str()
        ),
        (5, "next")
    );
    office.clock.advance(Duration::from_secs(3601));
    // The old leader and the new one at the same time, and once more.
    let (old, new) = (office.watch(), office.watch());
    let (one, other) = tokio::join!(old.look(), new.look());
    one.unwrap();
    other.unwrap();
    office.look().await;
    assert_eq!(office.weight().await, 10);
    let revision = office.desk().current().await.unwrap().revision;
    assert_eq!(revision, 3, "one revision for the step");
    // What people change meanwhile stays until the next step.
    let mut changed = ramped();
    changed["arms"] = json!({"off": 97, "on": 3});
    office.put(Kind::Experiment, "checkout", changed).await;
    office.look().await;
    assert_eq!(office.weight().await, 3);
    // Everything is down while two steps go by.
    office.clock.advance(Duration::from_secs(10_000));
    office.look().await;
    office.look().await;
    assert_eq!(office.weight().await, 50);
    let revision = office.desk().current().await.unwrap().revision;
    assert_eq!(revision, 5, "only the last one");
}

#[tokio::test]
async fn a_revert_does_not_take_a_step_again() {
    let office = Office::sqlite(ramped()).await;
    office.clock.advance(Duration::from_secs(3601));
    office.look().await;
    assert_eq!(office.weight().await, 10);
    office.put(Kind::Experiment, "checkout", ramped()).await;
    office.look().await;
    assert_eq!(office.weight().await, 5, "what people put is what they get");
}

fn guarded() -> Value {
    let mut experiment = ramped();
    experiment["arms"] = json!({"off": 50, "on": 50});
    experiment["guards"] = json!([
        {"metric": "checkout_error", "worse": "higher", "limit": 0.02, "minimum": 200},
    ]);
    experiment
}

#[tokio::test]
async fn an_arm_that_does_harm_loses_everybody() {
    let office = Office::sqlite(guarded()).await;
    let people = office.arms(0..2000).await;
    office.expose_all(&people[..300]).await;
    office.errors(&people[..300], "on", 4).await;
    office.look().await;
    assert_eq!(
        office.weight().await,
        50,
        "fewer than 200 people in each arm say nothing"
    );
    assert_eq!(office.report().await.guards[0].arms[0].verdict, "few");
    office.expose_all(&people[300..]).await;
    office.errors(&people[300..], "on", 8).await;
    office.errors(&people, "off", 50).await;
    office.look().await;
    assert_eq!(office.weight().await, 0);
    let bundle = office.desk().newest().await.unwrap();
    let document = bundle.get(Kind::Experiment, "checkout").unwrap();
    assert!(!document.contains("ramp"), "{document}");
    let revision = bundle.revision;
    office.look().await;
    assert_eq!(
        office.desk().current().await.unwrap().revision,
        revision,
        "once"
    );
    let alarm = &office.alarms.list()[0];
    assert_eq!(alarm.name, "experiment/checkout");
    assert!(
        alarm.message.contains("`checkout_error` is higher in `on`"),
        "{}",
        alarm.message
    );
    // The ramp has ended.
    office.clock.advance(Duration::from_secs(20_000));
    office.look().await;
    assert_eq!(office.weight().await, 0);
    let mut stopped = guarded();
    stopped["state"] = json!("stopped");
    office.put(Kind::Experiment, "checkout", stopped).await;
    office.look().await;
    assert!(
        office.alarms.list().is_empty(),
        "nobody has to look at what is over"
    );
}

#[tokio::test]
async fn an_arm_that_is_a_little_worse_or_better_keeps_its_people() {
    let office = Office::sqlite(guarded()).await;
    let people = office.arms(0..2000).await;
    office.expose_all(&people).await;
    office.errors(&people, "off", 20).await;
    office.errors(&people, "on", 16).await;
    office.look().await;
    assert_eq!(office.report().await.guards[0].arms[0].verdict, "well");
    assert_eq!(office.weight().await, 50);
}

#[tokio::test]
async fn reports_that_get_lost_in_one_arm_raise_an_alarm() {
    let office = Office::sqlite(running(20)).await;
    let people = office.arms(0..3000).await;
    office.expose_all(&people).await;
    office.look().await;
    assert!(
        office.alarms.list().is_empty(),
        "{:?}",
        office.alarms.list()
    );
    // From five to ten percent is no alarm, though the arm gets people of the control.
    office.clock.advance(Duration::from_secs(60));
    office.put(Kind::Experiment, "checkout", running(40)).await;
    office.clock.advance(Duration::from_secs(60));
    office.expose_all(&office.arms(0..3000).await).await;
    office.look().await;
    assert!(
        office.alarms.list().is_empty(),
        "{:?}",
        office.alarms.list()
    );
    // A third of the arm crashes before it reports.
    let more = office.arms(3000..6000).await;
    let reporting = more
        .iter()
        .enumerate()
        .filter(|(at, (arm, _))| arm == "off" || at % 3 > 0);
    let reporting: Vec<_> = reporting.map(|(_, one)| one.clone()).collect();
    office.expose_all(&reporting).await;
    office.look().await;
    let alarm = &office.alarms.list()[0];
    assert!(
        alarm.message.starts_with("sample ratio: since revision 3"),
        "{}",
        alarm.message
    );
    let report = office.report().await;
    assert_eq!(
        (report.epochs[0].alarm, report.epochs[1].alarm),
        (false, true)
    );
    assert_eq!(report.experiment.alarms.len(), 1);
}
