//! What apps saw and measured, in the service's tables. Counts are kept beside it, in the same
//! transaction, so that a report need not count a million rows.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_records::{Migration, RecordsError, Sql, Transaction, Value, params};

pub(super) const MIGRATIONS: &[Migration] = &[FIRST, RETENTION];

const FIRST: Migration = Migration {
    version: 1,
    statements: &[
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_exposures (\
             experiment VARCHAR(100) NOT NULL, subject VARCHAR(190) NOT NULL, \
             arm VARCHAR(100) NOT NULL, at_unix_ms BIGINT NOT NULL, epoch BIGINT NOT NULL, \
             PRIMARY KEY (experiment, subject, arm))",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS mobile_exposures_by_subject ON mobile_exposures (subject)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_exposure_counts (\
             experiment VARCHAR(100) NOT NULL, epoch BIGINT NOT NULL, arm VARCHAR(100) NOT NULL, \
             people BIGINT NOT NULL, compared BIGINT NOT NULL, \
             PRIMARY KEY (experiment, epoch, arm))",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_measured (\
             subject VARCHAR(190) NOT NULL, metric VARCHAR(100) NOT NULL, id VARCHAR(100) NOT NULL, \
             PRIMARY KEY (subject, metric, id))",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_metric_people (\
             experiment VARCHAR(100) NOT NULL, metric VARCHAR(100) NOT NULL, \
             subject VARCHAR(190) NOT NULL, arm VARCHAR(100) NOT NULL, total DOUBLE NOT NULL, \
             PRIMARY KEY (experiment, metric, subject, arm))",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_metric_sums (\
             experiment VARCHAR(100) NOT NULL, metric VARCHAR(100) NOT NULL, \
             arm VARCHAR(100) NOT NULL, people BIGINT NOT NULL, total DOUBLE NOT NULL, \
             squares DOUBLE NOT NULL, PRIMARY KEY (experiment, metric, arm))",
        ),
    ],
};

/// Since when experiments are over, and when measurements came.
const RETENTION: Migration = Migration {
    version: 2,
    statements: &[
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_experiments_ended (\
             experiment VARCHAR(100) PRIMARY KEY, at_unix_ms BIGINT NOT NULL, \
             forgotten BIGINT NOT NULL)",
        ),
        Sql::each(
            "ALTER TABLE mobile_measured ADD COLUMN at_unix_ms BIGINT NOT NULL DEFAULT 0",
            "ALTER TABLE mobile_measured ADD COLUMN IF NOT EXISTS at_unix_ms BIGINT NOT NULL DEFAULT 0",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS mobile_measured_by_time ON mobile_measured (at_unix_ms)",
        ),
    ],
};

/// How many subjects one statement asks for; it has as many question marks.
const AT_ONCE: usize = 20;
const EXPOSED: &str = "SELECT experiment, subject, arm, at_unix_ms FROM mobile_exposures \
    WHERE subject IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Somebody was shown an arm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exposed {
    pub(super) experiment: String,
    pub(super) subject: String,
    pub(super) arm: String,
    pub(super) at_unix_ms: i64,
    /// The revision that began the epoch in which they were.
    pub(super) epoch: u64,
    /// Whether it is compared with the weights, if the subject is new.
    pub(super) compared: bool,
}

/// Something was measured of somebody.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    /// Empty when it always counts.
    pub(super) id: String,
    pub(super) metric: String,
    pub(super) subject: String,
    /// Only of this experiment.
    pub(super) experiment: Option<String>,
    pub(super) value: f64,
}

/// How many people saw an arm in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) epoch: u64,
    pub(super) arm: String,
    pub(super) people: u64,
    /// Those of them who say something about the draw.
    pub(super) compared: u64,
}

/// What was measured in an arm.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    pub(super) metric: String,
    pub(super) arm: String,
    /// People of whom something was measured.
    pub(super) people: u64,
    pub(super) total: f64,
    /// The sum of the squares of each one's total.
    pub(super) squares: f64,
}

/// Keeps exposures, each experiment, subject and arm once.
pub(super) async fn expose(tx: &mut Transaction, exposed: &[&Exposed]) -> Result<(), RecordsError> {
    let arms = arms_of(tx, exposed.iter().map(|one| one.subject.as_str())).await?;
    let mut seen: BTreeSet<(&str, &str, Option<&str>)> = BTreeSet::new();
    for seen_before in arms.values().flatten() {
        let (experiment, subject) = (&seen_before.experiment, &seen_before.subject);
        seen.insert((experiment, subject, None));
        seen.insert((experiment, subject, Some(&seen_before.arm)));
    }
    let mut rows = Vec::new();
    let mut counts: BTreeMap<(&str, u64, &str), (i64, i64)> = BTreeMap::new();
    for one in exposed {
        let is_new_person = seen.insert((&one.experiment, &one.subject, None));
        if !seen.insert((&one.experiment, &one.subject, Some(&one.arm))) {
            continue;
        }
        let (experiment, arm) = (one.experiment.as_str(), one.arm.as_str());
        let count = counts.entry((experiment, one.epoch, arm)).or_default();
        count.0 += 1;
        count.1 += i64::from(is_new_person && one.compared);
        let epoch = one.epoch as i64;
        rows.push(params![
            experiment,
            &one.subject,
            arm,
            one.at_unix_ms,
            epoch
        ]);
    }
    let columns = ["experiment", "subject", "arm", "at_unix_ms", "epoch"];
    tx.insert_new("mobile_exposures", &columns, &rows).await?;
    for ((experiment, epoch, arm), more) in counts {
        count(tx, experiment, epoch, arm, more).await?;
    }
    Ok(())
}

async fn count(
    tx: &mut Transaction,
    experiment: &str,
    epoch: u64,
    arm: &str,
    (people, compared): (i64, i64),
) -> Result<(), RecordsError> {
    let key = params![experiment, epoch as i64, arm];
    let known = tx
        .lock(
            "SELECT people, compared FROM mobile_exposure_counts \
             WHERE experiment = ? AND epoch = ? AND arm = ?",
            &key,
        )
        .await?;
    let (mut row, known) = (key.to_vec(), known.first());
    let had = |column| known.map_or(Ok(0), |row| row.get::<i64>(column));
    row.extend(params![had(0)? + people, had(1)? + compared]);
    let (keys, values) = (["experiment", "epoch", "arm"], ["people", "compared"]);
    tx.upsert("mobile_exposure_counts", &keys, &values, &[row])
        .await
}

/// What each of the subjects has seen.
async fn arms_of<'a>(
    tx: &mut Transaction,
    subjects: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Vec<Exposed>>, RecordsError> {
    let subjects: Vec<&str> = subjects.collect::<BTreeSet<_>>().into_iter().collect();
    let mut found: BTreeMap<String, Vec<Exposed>> = BTreeMap::new();
    for some in subjects.chunks(AT_ONCE) {
        // Where there are fewer, the last one stands in for the rest.
        let filled = (0..AT_ONCE).map(|at| some[at.min(some.len() - 1)]);
        let params: Vec<Value> = filled.map(Value::from).collect();
        for row in tx.query(EXPOSED, &params).await? {
            let subject: String = row.get(1)?;
            found.entry(subject.clone()).or_default().push(Exposed {
                experiment: row.get(0)?,
                subject,
                arm: row.get(2)?,
                at_unix_ms: row.get(3)?,
                epoch: 0,
                compared: false,
            });
        }
    }
    Ok(found)
}

/// What each person's total in an arm grows by, by experiment, metric, subject and arm.
type Growth<'a> = BTreeMap<(&'a str, &'a str, &'a str, &'a str), f64>;

/// Keeps measurements, each id once, in the arm that the subject saw last. Returns the places of those
/// whose subject has seen none: they are not kept.
pub(super) async fn measure(
    tx: &mut Transaction,
    measured: &[Measured],
    now: i64,
) -> Result<Vec<usize>, RecordsError> {
    let arms = arms_of(tx, measured.iter().map(|one| one.subject.as_str())).await?;
    let mut not_exposed = Vec::new();
    let mut growth = Growth::new();
    for (place, one) in measured.iter().enumerate() {
        let seen = arms.get(&one.subject).map_or(&[][..], Vec::as_slice);
        let last = last_arms(seen, one.experiment.as_deref());
        if last.is_empty() {
            not_exposed.push(place);
        } else if is_new(tx, one, now).await? {
            for (experiment, arm) in last {
                let key = (experiment, one.metric.as_str(), one.subject.as_str(), arm);
                *growth.entry(key).or_default() += one.value;
            }
        }
    }
    grow(tx, growth).await?;
    Ok(not_exposed)
}

/// The arm of each experiment that somebody saw last.
fn last_arms<'a>(seen: &'a [Exposed], only: Option<&str>) -> BTreeMap<&'a str, &'a str> {
    let mut seen: Vec<&Exposed> = seen.iter().collect();
    seen.sort_by_key(|one| one.at_unix_ms);
    let named = seen
        .into_iter()
        .filter(|one| only.is_none_or(|only| only == one.experiment));
    named
        .map(|one| (one.experiment.as_str(), one.arm.as_str()))
        .collect()
}

async fn is_new(tx: &mut Transaction, one: &Measured, now: i64) -> Result<bool, RecordsError> {
    let row = params![&one.subject, &one.metric, &one.id, now];
    let columns = ["subject", "metric", "id", "at_unix_ms"];
    Ok(tx.insert_new("mobile_measured", &columns, &[row]).await? > 0)
}

async fn grow(tx: &mut Transaction, growth: Growth<'_>) -> Result<(), RecordsError> {
    // People, total and squares, by experiment, metric and arm.
    let mut sums: BTreeMap<(&str, &str, &str), (i64, f64, f64)> = BTreeMap::new();
    for ((experiment, metric, subject, arm), more) in growth {
        let key = params![experiment, metric, subject, arm];
        let known = tx
            .lock(
                "SELECT total FROM mobile_metric_people \
                 WHERE experiment = ? AND metric = ? AND subject = ? AND arm = ?",
                &key,
            )
            .await?;
        let before = known.first().map(|row| row.get::<f64>(0)).transpose()?;
        let (is_new, before) = (before.is_none(), before.unwrap_or(0.0));
        let after = before + more;
        let mut row = key.to_vec();
        row.extend(params![after]);
        let keys = ["experiment", "metric", "subject", "arm"];
        tx.upsert("mobile_metric_people", &keys, &["total"], &[row])
            .await?;
        let sum = sums.entry((experiment, metric, arm)).or_default();
        sum.0 += i64::from(is_new);
        sum.1 += more;
        sum.2 += after * after - before * before;
    }
    for ((experiment, metric, arm), more) in sums {
        add(tx, experiment, metric, arm, more).await?;
    }
    Ok(())
}

async fn add(
    tx: &mut Transaction,
    experiment: &str,
    metric: &str,
    arm: &str,
    (people, total, squares): (i64, f64, f64),
) -> Result<(), RecordsError> {
    let key = params![experiment, metric, arm];
    let known = tx
        .lock(
            "SELECT people, total, squares FROM mobile_metric_sums \
             WHERE experiment = ? AND metric = ? AND arm = ?",
            &key,
        )
        .await?;
    let mut row = key.to_vec();
    match known.first() {
        None => row.extend(params![people, total, squares]),
        Some(known) => row.extend(params![
            known.get::<i64>(0)? + people,
            known.get::<f64>(1)? + total,
            known.get::<f64>(2)? + squares,
        ]),
    }
    let (keys, values) = (
        ["experiment", "metric", "arm"],
        ["people", "total", "squares"],
    );
    tx.upsert("mobile_metric_sums", &keys, &values, &[row])
        .await
}

/// How many people saw which arm of an experiment.
pub(super) async fn counts(
    tx: &mut Transaction,
    experiment: &str,
) -> Result<Vec<Count>, RecordsError> {
    let rows = tx
        .query(
            "SELECT epoch, arm, people, compared FROM mobile_exposure_counts \
             WHERE experiment = ? ORDER BY epoch, arm",
            &params![experiment],
        )
        .await?;
    let count = |row: &hydrant_records::Row| {
        Ok(Count {
            epoch: row.get::<i64>(0)? as u64,
            arm: row.get(1)?,
            people: row.get::<i64>(2)? as u64,
            compared: row.get::<i64>(3)? as u64,
        })
    };
    rows.iter().map(count).collect()
}

/// What was measured in an experiment.
pub(super) async fn sums(tx: &mut Transaction, experiment: &str) -> Result<Vec<Sum>, RecordsError> {
    let rows = tx
        .query(
            "SELECT metric, arm, people, total, squares FROM mobile_metric_sums \
             WHERE experiment = ? ORDER BY metric, arm",
            &params![experiment],
        )
        .await?;
    let sum = |row: &hydrant_records::Row| {
        Ok(Sum {
            metric: row.get(0)?,
            arm: row.get(1)?,
            people: row.get::<i64>(2)? as u64,
            total: row.get(3)?,
            squares: row.get(4)?,
        })
    };
    rows.iter().map(sum).collect()
}
