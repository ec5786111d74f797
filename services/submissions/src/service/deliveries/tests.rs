use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

use hydrant_records::{RecordsError, params, read, transaction};
use hydrant_runtime::Clock;
use serde_json::Value as Json;

use super::claim::Turns;
use super::*;
use crate::proto::report_request::Outcome;
use crate::proto::{Delivered, Failed, Lease, Origin, ParkedStep, Status, SubmitRequest, Task};
use crate::service::office::{Office, new_id, on_each_database, sent};
use crate::service::{hops, status, submit};

/// Two processes of the service on one database, with one clock that is moved.
struct Floor {
    desks: Vec<(Desk, Turns)>,
    clock: Clock,
}

impl Floor {
    fn new(office: &Office) -> Self {
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let desk = |(desk, _): &(Desk, _)| {
            let mut desk = desk.clone();
            desk.clock = clock.clone();
            (desk, Turns::default())
        };
        Self {
            desks: office.desks.iter().map(desk).collect(),
            clock,
        }
    }

    /// A submission of a store, on its way.
    async fn submit(&self, office: &Office, store: &str) -> String {
        let id = new_id();
        let mut request = sent(&id, "Ada");
        request.origin = Origin {
            store: store.into(),
            ..Default::default()
        }
        .into();
        office.desks[0].1.accept(request).await.unwrap();
        let request = SubmitRequest {
            id: id.clone(),
            ..Default::default()
        };
        submit::submit(&self.desks[0].0, &request).await.unwrap();
        self.clock.advance(Duration::from_millis(1));
        id
    }

    async fn claim(&self, at: usize, consumer: &str, limit: u32) -> Vec<Task> {
        self.wait(at, consumer, limit, Duration::ZERO).await
    }

    async fn wait(&self, at: usize, consumer: &str, limit: u32, wait: Duration) -> Vec<Task> {
        let request = ClaimRequest {
            consumer: consumer.into(),
            worker: format!("worker-{at}"),
            limit,
            lease_ms: 30_000,
            wait_ms: wait.as_millis() as u32,
            ..Default::default()
        };
        let (desk, turns) = &self.desks[at];
        claim::claim(desk, turns, &request).await.unwrap().tasks
    }

    async fn report(&self, task: &Task, outcome: Outcome) -> bool {
        let request = ReportRequest {
            lease: lease(task).into(),
            outcome: Some(outcome),
            ..Default::default()
        };
        let kept = report::report(&self.desks[1].0, request).await;
        kept.unwrap().kept
    }

    async fn status(&self, id: &str) -> Status {
        let records = self.desks[0].0.tables.ready().await.unwrap();
        let status = read!(records, |tx| status::read(tx, id).await);
        status
            .map_err(|error: RecordsError| error)
            .unwrap()
            .unwrap()
    }

    async fn events(&self, id: &str) -> Vec<(String, Json)> {
        let records = self.desks[0].0.tables.ready().await.unwrap();
        let select = "SELECT kind, detail FROM audit_events WHERE submission = ? ORDER BY id";
        let rows = read!(records, |tx| tx.query(select, &params![id]).await);
        let rows = rows.map_err(|error: RecordsError| error).unwrap();
        let read = |row: &hydrant_records::Row| {
            let detail: String = row.get(1).unwrap();
            (row.get(0).unwrap(), serde_json::from_str(&detail).unwrap())
        };
        rows.iter().map(read).collect()
    }

    async fn kinds(&self, id: &str) -> Vec<String> {
        let events = self.events(id).await.into_iter();
        events.map(|(kind, _)| kind).collect()
    }

    async fn decide(&self, ids: &[&str], decision: decide::Decision) -> DecideResponse {
        let request = DecideRequest {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            author: "ann".into(),
            reason: "the shop is mended".into(),
            ..Default::default()
        };
        decide::decide(&self.desks[0].0, &request, decision)
            .await
            .unwrap()
    }

    async fn parked(&self) -> Vec<ParkedStep> {
        let request = ListParkedRequest::default();
        parked::list(&self.desks[0].0, &request)
            .await
            .unwrap()
            .parked
    }
}

fn lease(task: &Task) -> Lease {
    Lease {
        id: task.id.clone(),
        step: task.step,
        epoch: task.epoch,
        ..Default::default()
    }
}

fn delivered(reference: Option<&str>) -> Outcome {
    Delivered {
        reference: reference.map(str::to_owned),
        evidence: r#"{"status":201}"#.into(),
        ..Default::default()
    }
    .into()
}

fn failed(reason: &str, is_final: bool, not_counted: bool) -> Outcome {
    Failed {
        reason: reason.into(),
        is_final,
        not_counted,
        retry_in_ms: 1000,
        ..Default::default()
    }
    .into()
}

const REST: &str = "demo-consumer";
const FOLDER: &str = "demo-folder";

on_each_database!(
    a_step_begins_only_when_the_one_before_is_done_and_carries_its_reference,
    a_step_begins_only_when_the_one_before_is_done_and_carries_its_reference_on_mariadb,
    order
);

async fn order(office: &Office) {
    let floor = Floor::new(office);
    let id = floor.submit(office, "7").await;
    assert!(floor.claim(0, FOLDER, 9).await.is_empty(), "REST is first");
    let [rest] = &floor.claim(0, REST, 9).await[..] else {
        panic!("one step is ready");
    };
    assert!(
        floor.claim(0, FOLDER, 9).await.is_empty(),
        "REST is under way"
    );
    assert_eq!(
        (rest.attempt, rest.epoch, rest.reference.clone()),
        (1, 1, None)
    );
    assert!(floor.report(rest, delivered(Some("R-1"))).await);
    assert!(floor.report(rest, delivered(Some("R-1"))).await, "a repeat");

    let files = floor.claim(1, FOLDER, 9).await;
    assert_eq!(files[0].reference.as_deref(), Some("R-1"));
    assert_eq!(floor.status(&id).await.state, "submitted");
    assert!(floor.report(&files[0], delivered(None)).await);
    let status = floor.status(&id).await;
    assert_eq!(
        (&*status.state, status.reference.as_deref()),
        ("delivered", Some("R-1"))
    );

    let receipt = hops::receipt(&floor.desks[0].0, &id).await.unwrap();
    let kinds: Vec<_> = receipt.hops.iter().map(|hop| &*hop.kind).collect();
    assert_eq!(kinds, ["accepted", "submitted", "delivered", "delivered"]);
    let mut before = String::new();
    for hop in &receipt.hops {
        before = crate::receipt::hash(&before, &hop.kind, hop.at_unix_ms, &hop.record);
        assert_eq!(hop.hash, before);
    }
    let expected = [
        "accepted",
        "submitted",
        "delivered",
        "referenced",
        "delivered",
    ];
    assert_eq!(floor.kinds(&id).await, expected);
}

on_each_database!(
    only_the_newest_lease_is_heard,
    only_the_newest_lease_is_heard_on_mariadb,
    epochs
);

async fn epochs(office: &Office) {
    let floor = Floor::new(office);
    let id = floor.submit(office, "7").await;
    let stale = floor.claim(0, REST, 1).await.remove(0);
    floor.clock.advance(Duration::from_secs(29));
    assert!(floor.claim(1, REST, 1).await.is_empty(), "it is held");
    let renew = RenewRequest {
        leases: vec![lease(&stale)],
        lease_ms: 30_000,
        ..Default::default()
    };
    let renewing = async || claim::renew(&floor.desks[0].0, &renew).await.unwrap().lost;
    assert!(renewing().await.is_empty());
    floor.clock.advance(Duration::from_secs(29));
    assert!(
        floor.claim(1, REST, 1).await.is_empty(),
        "it was held for longer"
    );
    floor.clock.advance(Duration::from_secs(2));
    let newest = floor.claim(1, REST, 1).await.remove(0);
    assert_eq!((stale.epoch, newest.epoch), (1, 2));
    assert_eq!(renewing().await, [lease(&stale)]);

    assert!(!floor.report(&stale, delivered(Some("R-old"))).await);
    assert!(!floor.report(&stale, failed("no", true, false)).await);
    assert_eq!(floor.status(&id).await.reference, None);
    assert!(floor.report(&newest, delivered(Some("R-new"))).await);
    assert!(!floor.report(&stale, delivered(Some("R-old"))).await);
    assert_eq!(floor.status(&id).await.reference.as_deref(), Some("R-new"));
    assert!(renewing().await.len() == 1);
}

on_each_database!(
    of_many_that_claim_at_once_each_step_is_held_by_one,
    of_many_that_claim_at_once_each_step_is_held_by_one_on_mariadb,
    claims
);

async fn claims(office: &Office) {
    let floor = Floor::new(office);
    for number in 0..30 {
        floor.submit(office, &format!("{}", number % 4)).await;
    }
    let mut held = Vec::new();
    for _ in 0..20 {
        let claims = (0..6).map(|number| floor.claim(number % 2, REST, 3));
        held.extend(
            futures::future::join_all(claims)
                .await
                .into_iter()
                .flatten(),
        );
    }
    let ids: HashSet<_> = held.iter().map(|task| &task.id).collect();
    assert_eq!((ids.len(), held.len()), (30, 30));
}

on_each_database!(
    stores_take_turns_and_each_has_its_oldest_first,
    stores_take_turns_and_each_has_its_oldest_first_on_mariadb,
    turns
);

async fn turns(office: &Office) {
    let floor = Floor::new(office);
    let mut big = Vec::new();
    for _ in 0..6 {
        big.push(floor.submit(office, "big").await);
    }
    let small = floor.submit(office, "small").await;
    let nameless = floor.submit(office, "").await;
    let ids = async |limit| {
        let tasks = floor.claim(0, REST, limit).await.into_iter();
        tasks.map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(2).await, [nameless, big[0].clone()]);
    assert_eq!(
        ids(2).await,
        [small, big[1].clone()],
        "it goes on behind the last"
    );
    assert_eq!(ids(9).await, big[2..]);
}

on_each_database!(
    an_outage_of_hours_is_one_event_and_no_attempt,
    an_outage_of_hours_is_one_event_and_no_attempt_on_mariadb,
    outage
);

async fn outage(office: &Office) {
    let floor = Floor::new(office);
    let id = floor.submit(office, "7").await;
    for _ in 0..20 {
        let task = floor.claim(0, REST, 1).await.remove(0);
        assert_eq!(task.attempt, 1);
        assert!(
            floor
                .report(&task, failed("it can't be reached", false, true))
                .await
        );
        assert!(floor.claim(0, REST, 1).await.is_empty(), "it is not due");
        floor.clock.advance(Duration::from_secs(1));
    }
    let version = floor.status(&id).await.version;
    assert!(version < 5, "followers hear of what changes: {version}");
    assert_eq!(floor.kinds(&id).await, ["accepted", "submitted", "failing"]);
    let step = &floor.status(&id).await.steps[0];
    assert_eq!(
        (step.attempts, step.reason.as_deref()),
        (0, Some("it can't be reached"))
    );
}

on_each_database!(
    what_is_parked_waits_for_people_who_are_remembered,
    what_is_parked_waits_for_people_who_are_remembered_on_mariadb,
    parking
);

async fn parking(office: &Office) {
    let floor = Floor::new(office);
    let (one, two) = (
        floor.submit(office, "7").await,
        floor.submit(office, "8").await,
    );
    for task in floor.claim(0, REST, 9).await {
        assert!(
            floor
                .report(&task, failed("it answered 422", true, false))
                .await
        );
    }
    assert!(floor.claim(0, REST, 9).await.is_empty());
    let parked = floor.parked().await;
    let shown: Vec<_> = parked
        .iter()
        .map(|step| (&*step.id, &*step.reason))
        .collect();
    assert_eq!(
        shown,
        [(&*one, "it answered 422"), (&*two, "it answered 422")]
    );

    let retried = floor.decide(&[&one, "none"], decide::Decision::Retry).await;
    assert_eq!(
        (&retried.ids[..], &retried.others[..]),
        (&[one.clone()][..], &["none".to_owned()][..])
    );
    let task = floor.claim(0, REST, 9).await.remove(0);
    assert_eq!((task.id.clone(), task.attempt), (one.clone(), 1));

    let dropped = floor.decide(&[&two, &one], decide::Decision::GiveUp).await;
    assert_eq!(
        (&dropped.ids[..], &dropped.others[..]),
        (&[two.clone()][..], &[one.clone()][..])
    );
    let status = floor.status(&two).await;
    let states: Vec<_> = status.steps.iter().map(|step| &*step.state).collect();
    assert_eq!(
        (&*status.state, &states[..]),
        ("dropped", &["dropped", "dropped"][..])
    );
    let events = floor.events(&two).await;
    let (kind, detail) = events.last().unwrap();
    assert_eq!(
        (&**kind, &detail["author"], &detail["reason"]),
        ("dropped", &"ann".into(), &"the shop is mended".into())
    );
    let backlog = backlog::backlog(&floor.desks[0].0).await.unwrap();
    let counts = backlog.consumers.iter().map(|one| {
        (
            &*one.consumer,
            one.ready,
            one.leased,
            one.waiting,
            one.parked,
        )
    });
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [(REST, 0, 1, 0, 0), (FOLDER, 0, 0, 1, 0)]
    );
}

on_each_database!(
    who_decided_is_heard_before_who_held_it,
    who_decided_is_heard_before_who_held_it_on_mariadb,
    decisions
);

async fn decisions(office: &Office) {
    let floor = Floor::new(office);
    let id = floor.submit(office, "7").await;
    let task = floor.claim(0, REST, 1).await.remove(0);
    assert!(
        floor
            .report(&task, failed("it answered 422", true, false))
            .await
    );
    floor.decide(&[&id], decide::Decision::Retry).await;
    assert!(
        !floor
            .report(&task, failed("it answered 422", true, false))
            .await,
        "too late"
    );
    assert_eq!(floor.claim(0, REST, 1).await.len(), 1);
}

on_each_database!(
    who_waits_for_work_has_it_at_once_also_from_another_process,
    who_waits_for_work_has_it_at_once_also_from_another_process_on_mariadb,
    waiting
);

async fn waiting(office: &Office) {
    let floor = Floor::new(office);
    floor.claim(1, REST, 1).await;
    for at in [0, 1] {
        let begun = tokio::time::Instant::now();
        let wait = floor.wait(at, REST, 1, Duration::from_secs(25));
        let (tasks, _) = tokio::join!(wait, floor.submit(office, "7"));
        println!("process {at} had work after {:?}", begun.elapsed());
        assert_eq!(tasks.len(), 1);
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    let office = Office::on(&hydrant_records::Config::new(&url).unwrap());
    let (desk, turns) = (&office.desks[0].0, Turns::default());
    let good = ClaimRequest {
        consumer: REST.into(),
        worker: "w".into(),
        limit: 1,
        lease_ms: 1000,
        ..Default::default()
    };
    for wrong in [
        ClaimRequest {
            consumer: "none".into(),
            ..good.clone()
        },
        ClaimRequest {
            worker: String::new(),
            ..good.clone()
        },
        ClaimRequest {
            limit: 0,
            ..good.clone()
        },
        ClaimRequest {
            limit: 65,
            ..good.clone()
        },
        ClaimRequest {
            lease_ms: 1,
            ..good.clone()
        },
        ClaimRequest {
            lease_ms: 601_000,
            ..good.clone()
        },
    ] {
        assert!(
            claim::claim(desk, &turns, &wrong).await.is_err(),
            "{wrong:?}"
        );
    }
    let lease = Lease::default();
    for outcome in [
        Delivered {
            evidence: "[]".into(),
            ..Default::default()
        },
        Delivered {
            reference: Some(String::new()),
            ..Default::default()
        },
        Delivered {
            reference: Some("a\nb".into()),
            ..Default::default()
        },
        Delivered {
            evidence: format!("{{\"a\":\"{}\"}}", "x".repeat(300_000)),
            ..Default::default()
        },
    ] {
        let request = ReportRequest {
            lease: lease.clone().into(),
            outcome: Some(outcome.into()),
            ..Default::default()
        };
        assert!(report::report(desk, request).await.is_err());
    }
    for (author, reason) in [
        ("", "why"),
        ("ann", ""),
        ("ann", " "),
        (&*"a".repeat(101), "why"),
    ] {
        let request = DecideRequest {
            ids: vec!["x".into()],
            author: author.into(),
            reason: reason.into(),
            ..Default::default()
        };
        let refused = decide::decide(desk, &request, decide::Decision::Retry).await;
        assert!(refused.is_err(), "{author} {reason}");
    }
}

/// 40,000 steps of 200 stores: a claim looks at some of them, not at all.
#[tokio::test]
async fn a_claim_is_quick_whatever_waits() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    let office = Office::on(&hydrant_records::Config::new(&url).unwrap());
    let floor = Floor::new(&office);
    floor.submit(&office, "0").await;
    let records = &office.records;
    let now = floor.clock.unix_ms();
    let rows: Vec<_> = (0..40_000_i64)
        .map(|number| {
            let store = format!("{}", number % 200);
            params![
                format!("{number:036}"),
                0,
                REST,
                "rest",
                "ready",
                store,
                now - 1 - number,
                0,
                0,
                0
            ]
        })
        .collect();
    let columns = [
        "submission",
        "step",
        "consumer",
        "kind",
        "state",
        "store",
        "submitted_ms",
        "attempts",
        "due_ms",
        "epoch",
    ];
    transaction!(records, |tx| tx
        .insert_new("submission_steps", &columns, &rows)
        .await)
    .map_err(|error: RecordsError| error)
    .unwrap();
    let submissions = "INSERT INTO submissions SELECT submission, '', 'demo', 'submitted', 1, '', '{}', store, '', '', 0, \
                       submitted_ms, NULL, NULL, 0, '' FROM submission_steps WHERE submission NOT IN (SELECT id FROM submissions)";
    office.tamper(submissions).await;
    let begun = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(floor.claim(0, REST, 16).await.len(), 16);
    }
    let each = begun.elapsed() / 20;
    println!("a claim of 16 out of 40,000 takes {each:?}");
    assert!(each < Duration::from_secs(2), "{each:?}");
}
