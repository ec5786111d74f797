//! The service on a database of its own, for tests.

use std::sync::Arc;

use hydrant_records::{Config, Records, RecordsError, read, transaction};
use hydrant_runtime::Clock;
use hydrant_sdk::Error;
use serde_json::json;
use uuid::Uuid;

use super::TABLES;
use super::deliveries::Work;
use super::intake::Intake;
use super::status::Changes;
use super::{Desk, submit};
use crate::forms::Forms;
use crate::proto::{AcceptRequest, Origin, Status, SubmitRequest};
use crate::sites::Tables;

/// Processes of the service on one database.
pub(crate) struct Office {
    pub(crate) records: Records,
    pub(crate) desks: Vec<(Desk, Intake)>,
    _folder: tempfile::TempDir,
}

impl Office {
    pub(crate) fn on(config: &Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let forms = crate::install_demo(folder.path()).unwrap();
        let desks = (0..2).map(|_| {
            let desk = Desk {
                tables: Tables::of(&TABLES, Some(Records::open(config.clone()))),
                forms: Arc::new(Forms::load(&forms, Some("http://host")).unwrap()),
                clock: Clock::system(),
                changes: Changes::default(),
                work: Work::default(),
            };
            let (intake, writing) = Intake::new(&desk);
            tokio::spawn(writing);
            (desk, intake)
        });
        Self {
            records: Records::open(config.clone()),
            desks: desks.collect(),
            _folder: folder,
        }
    }

    /// The number that a question has as its answer.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        TABLES.make(&self.records).await.unwrap();
        let rows = read!(self.records, |tx| tx.query(sql, &[]).await);
        rows.map_err(|error: RecordsError| error).unwrap()[0]
            .get(0)
            .unwrap()
    }

    /// Takes a submission in and tells its id.
    pub(crate) async fn accept(&self, name: &str) -> String {
        let id = new_id();
        self.desks[0].1.accept(sent(&id, name)).await.unwrap();
        id
    }

    /// Changes something behind the service's back.
    pub(crate) async fn tamper(&self, sql: &'static str) {
        let done = transaction!(self.records, |tx| tx.execute(sql, &[]).await);
        let changed = done.map_err(|error: RecordsError| error).unwrap();
        assert!(changed > 0, "{sql}");
    }

    pub(crate) async fn submit(&self, id: &str) -> Result<Status, Error> {
        let request = SubmitRequest {
            id: id.into(),
            ..Default::default()
        };
        submit::submit(&self.desks[0].0, &request).await
    }
}

/// Does something on a new SQLite, and on a new MariaDB where there is one.
macro_rules! on_each_database {
    ($name:ident, $mariadb:ident, $work:path) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}", folder.path().join("records.db").display());
            $work(&$crate::service::office::Office::on(
                &::hydrant_records::Config::new(&url).unwrap(),
            ))
            .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $mariadb() {
            let server = match ::hydrant_harness::mariadb::MariaDb::start(
                ::hydrant_harness::mariadb::Options::default(),
            ) {
                Ok(server) => server,
                Err(missing) => return hydrant_harness::skipped(&missing),
            };
            let mut config =
                ::hydrant_records::Config::new(&server.url(::hydrant_harness::mariadb::DATABASE))
                    .unwrap();
            config.password_file = Some(server.password_file());
            $work(&$crate::service::office::Office::on(&config)).await;
        }
    };
}
pub(crate) use on_each_database;

/// A submission of the demo as it comes in.
pub(crate) fn sent(id: &str, name: &str) -> AcceptRequest {
    AcceptRequest {
        id: id.into(),
        form: "demo".into(),
        fields: json!({ "name": name }).to_string(),
        origin: Origin {
            store: "store-7".into(),
            ..Default::default()
        }
        .into(),
        ..Default::default()
    }
}

pub(crate) fn new_id() -> String {
    Uuid::new_v4().to_string()
}
