use std::collections::BTreeSet;

use hydrant_records::{Config, params, transaction};

use super::seal::Sealing;
use super::*;
use crate::proto::{Finding, StoreDay};
use crate::service::office::{Office, on_each_database};

impl Office {
    fn tables(&self, desk: usize) -> &Tables {
        &self.desks[desk].0.tables
    }

    /// Seals all that is there.
    async fn seal(&self) {
        let sealing = Sealing::new(self.tables(0).clone());
        while sealing.seal().await.unwrap() > 0 {}
    }

    /// What is found when all seals are followed, a few at a time.
    async fn verify(&self) -> (u64, Vec<String>) {
        let (mut good, mut findings) = (0, Vec::new());
        let mut request = VerifySealsRequest {
            limit: 7,
            ..Default::default()
        };
        loop {
            let told = verify::seals(self.tables(1), &request).await.unwrap();
            good += told.good;
            let said = |finding: &Finding| format!("{} {}", finding.kind, finding.number);
            findings.extend(told.findings.iter().map(said));
            if told.done {
                return (good, findings);
            }
            (request.after_number, request.after_hash) = (told.number, told.hash);
        }
    }

    async fn broken_receipts(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut request = VerifyReceiptsRequest {
            limit: 3,
            ..Default::default()
        };
        loop {
            let told = verify::receipts(self.tables(1), &request).await.unwrap();
            let said = |finding: &Finding| format!("{} {}", finding.kind, finding.number);
            found.extend(told.findings.iter().map(said));
            if told.done {
                return found;
            }
            request.after = told.last;
        }
    }
}

on_each_database!(
    what_was_changed_or_taken_away_is_found,
    what_was_changed_or_taken_away_is_found_on_mariadb,
    tampering
);

async fn tampering(office: &Office) {
    for name in 0..20 {
        office.accept(&format!("Ada {name}")).await;
    }
    office.seal().await;
    assert_eq!(office.verify().await, (20, vec![]));
    office
        .tamper("UPDATE audit_events SET store = 'store-8' WHERE id = (SELECT event FROM audit_seals WHERE number = 3)")
        .await;
    assert_eq!(
        office.verify().await,
        (19, vec!["changed_event 3".to_owned()])
    );
    office
        .tamper(
            "DELETE FROM audit_events WHERE id = (SELECT event FROM audit_seals WHERE number = 9)",
        )
        .await;
    let expected = ["changed_event 3", "missing_event 9"].map(str::to_owned);
    assert_eq!(office.verify().await, (18, expected.into()));
    office
        .tamper("DELETE FROM audit_seals WHERE number = 14")
        .await;
    let (good, findings) = office.verify().await;
    let expected = ["changed_event 3", "missing_event 9", "missing_seal 14"];
    assert_eq!((good, findings), (16, expected.map(str::to_owned).into()));
}

on_each_database!(
    an_event_that_appears_late_is_sealed_too,
    an_event_that_appears_late_is_sealed_too_on_mariadb,
    late
);

async fn late(office: &Office) {
    for name in 0..3 {
        office.accept(&format!("Ada {name}")).await;
    }
    // The second got its number, and is committed after the others were sealed.
    office
        .tamper("UPDATE audit_events SET id = id + 1000 WHERE id % 2 = 0")
        .await;
    office.seal().await;
    office.tamper("INSERT INTO audit_events (id, at_ms, kind, outcome, submission, form, store, person, session, detail) \
                   VALUES (2, 1, 'accepted', 'ok', '', '', '', '', '', '{}')").await;
    office.seal().await;
    assert_eq!(office.verify().await, (4, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_receipt_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    let office = Office::on(&Config::new(&url).unwrap());
    for name in 0..10 {
        let id = office.accept(&format!("Ada {name}")).await;
        office.submit(&id).await.unwrap();
    }
    assert!(office.broken_receipts().await.is_empty());
    for (sql, expected) in [
        (
            "UPDATE submission_hops SET record = '{}' WHERE number = 0 AND submission = (SELECT MIN(id) FROM submissions)",
            "changed_hop 0",
        ),
        (
            "DELETE FROM submission_hops WHERE number = 1 AND submission = (SELECT id FROM submissions ORDER BY id LIMIT 1 OFFSET 4)",
            "missing_hop 1",
        ),
        (
            "DELETE FROM submission_hops WHERE number = 0 AND submission = (SELECT MAX(id) FROM submissions)",
            "missing_hop 0",
        ),
    ] {
        office.tamper(sql).await;
        let found = office.broken_receipts().await;
        assert!(found.iter().any(|one| one == expected), "{sql}: {found:?}");
    }
}

on_each_database!(
    of_two_who_seal_at_once_each_event_gets_one_seal,
    of_two_who_seal_at_once_each_event_gets_one_seal_on_mariadb,
    two_seal
);

async fn two_seal(office: &Office) {
    let sealing = |desk: usize| {
        let sealing = Sealing::new(office.tables(desk).clone());
        async move {
            for _ in 0..30 {
                // Who is too late is refused, and comes again.
                let _ = sealing.seal().await;
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
        }
    };
    let accepting = async {
        for name in 0..60 {
            office.accept(&format!("Ada {name}")).await;
        }
    };
    tokio::join!(sealing(0), sealing(1), accepting);
    office.seal().await;
    assert_eq!(office.verify().await, (60, vec![]));
}

on_each_database!(
    the_report_of_a_day_counts_sessions_by_store,
    the_report_of_a_day_counts_sessions_by_store_on_mariadb,
    reports
);

async fn reports(office: &Office) {
    let put = "INSERT INTO submissions (id, nonce, form, state, version, fingerprint, fields, store, person, \
               session, accepted_ms, hops, hop_hash) VALUES (?, '', 'demo', ?, 1, '', '{}', ?, '', ?, ?, 0, '')";
    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 100 * 24 * HOUR;
    office.count("SELECT COUNT(*) FROM submissions").await;
    let rows = [
        ("1", "delivered", "s1", "a", DAY),
        ("2", "delivered", "s1", "a", DAY + HOUR),
        ("3", "parked", "s1", "b", DAY + HOUR),
        ("4", "delivered", "s1", "b", DAY + 2 * HOUR),
        ("5", "open", "s1", "", DAY),
        ("6", "submitted", "s1", "", DAY + 24 * HOUR - 1),
        ("7", "dropped", "s2", "a", DAY),
        ("8", "delivered", "s2", "z", DAY - 1),
        ("9", "delivered", "s2", "z", DAY + 24 * HOUR),
    ];
    for (id, state, store, session, at) in rows {
        let params = params![id, state, store, session, at];
        let done = transaction!(office.records, |tx| tx.execute(put, &params).await);
        done.map_err(|error: hydrant_records::RecordsError| error)
            .unwrap();
    }
    let day = ReportDayRequest {
        from_unix_ms: DAY,
        until_unix_ms: DAY + 24 * HOUR,
        ..Default::default()
    };
    let told = report::day(office.tables(0), &day).await.unwrap();
    let [one, two] = &told.stores[..] else {
        panic!("{told:?}");
    };
    let sessions = |store: &StoreDay| {
        [
            store.sessions,
            store.succeeded,
            store.failed,
            store.unfinished,
        ]
    };
    assert_eq!(sessions(one), [4, 1, 1, 2]);
    assert_eq!(sessions(two), [1, 0, 1, 0]);
    assert_eq!((one.submissions, one.delivered, one.parked), (6, 3, 1));
    assert_eq!((one.under_way, one.open, two.dropped), (1, 1, 1));
    let hours: Vec<_> = told
        .hours
        .iter()
        .map(|hour| (hour.hour, hour.delivered, hour.failed, hour.unfinished))
        .collect();
    assert_eq!(
        hours,
        [(0, 1, 1, 1), (1, 1, 1, 0), (2, 1, 0, 0), (23, 0, 0, 1)]
    );
    let no_day = ReportDayRequest::default();
    assert_eq!(
        report::day(office.tables(0), &no_day)
            .await
            .unwrap_err()
            .reason,
        "invalid_request"
    );
}

on_each_database!(
    events_are_found_by_what_is_asked,
    events_are_found_by_what_is_asked_on_mariadb,
    queries
);

async fn queries(office: &Office) {
    let mut ids = Vec::new();
    for name in 0..5 {
        ids.push(office.accept(&format!("Ada {name}")).await);
    }
    office.submit(&ids[2]).await.unwrap();
    let ask = |request: ListEventsRequest| async move {
        let told = query::list(office.tables(0), &request).await.unwrap();
        let of = told
            .events
            .iter()
            .map(|event| format!("{} {}", event.kind, event.submission));
        (of.collect::<BTreeSet<_>>(), told.more)
    };
    let base = ListEventsRequest::default;
    let (all, more) = ask(base()).await;
    assert_eq!((all.len(), more), (6, false));
    let of_one = ListEventsRequest {
        submission: ids[2].clone(),
        ..base()
    };
    let expected = ["accepted", "submitted"].map(|kind| format!("{kind} {}", ids[2]));
    assert_eq!(ask(of_one).await.0, expected.into());
    let submitted = ListEventsRequest {
        kind: "submitted".into(),
        store: "store-7".into(),
        ..base()
    };
    assert_eq!(ask(submitted).await.0.len(), 1);
    let elsewhere = ListEventsRequest {
        store: "store-8".into(),
        ..base()
    };
    assert!(ask(elsewhere).await.0.is_empty());
    let early = ListEventsRequest {
        until_unix_ms: Some(1),
        ..base()
    };
    assert!(ask(early).await.0.is_empty());
    let (some, more) = ask(ListEventsRequest { limit: 2, ..base() }).await;
    assert_eq!((some.len(), more), (2, true));
}
