use std::fmt;

use hydrant_contracts::{Code, Error, Fault};

use crate::config::InvalidUrl;

const LATE: &str = "the database did not answer in time";

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The database does not answer; later it may.
    Unavailable,
    /// Others changed the same, again and again; later it may go.
    Conflict,
    /// The data would break a rule of its table.
    Constraint(Constraint),
    /// The answer to a commit did not come: it has happened, or it has not.
    Uncertain,
    /// This process may not write here: another database is the primary, or may be.
    Fenced,
    /// A mistake of the program, of the configuration or of the database; a repeat won't help.
    Broken,
}

/// A rule of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A key is there already.
    Unique,
    /// A row that is referred to is missing, or one that is referred to would go.
    Reference,
    /// A column may not be empty.
    NotNull,
    /// A check of the table fails.
    Check,
}

/// A failure. Its text has no SQL, no value and no secret in it; these are at most in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsError {
    kind: Kind,
    message: String,
}

impl RecordsError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::new(Kind::Broken, message)
    }

    pub(crate) fn fenced(message: impl Into<String>) -> Self {
        Self::new(Kind::Fenced, message)
    }

    pub(crate) fn late() -> Self {
        Self::unavailable(LATE)
    }

    /// What tells more: the failure before, when this one says no more than that the time was over.
    pub(crate) fn or_before(self, before: Option<Self>) -> Self {
        match before {
            Some(before) if self.message == LATE => before,
            _ => self,
        }
    }

    pub(crate) fn uncertain() -> Self {
        let message = "the database did not answer to a commit: it may have happened or not";
        Self::new(Kind::Uncertain, message)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a key is there already.
    pub fn is_duplicate(&self) -> bool {
        self.kind == Kind::Constraint(Constraint::Unique)
    }

    /// Whether all may be well when it is tried again, and nothing has happened yet.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Conflict)
    }
}

impl fmt::Display for RecordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RecordsError {}

impl From<InvalidUrl> for RecordsError {
    fn from(error: InvalidUrl) -> Self {
        Self::broken(format!("the URL of the records: {error}"))
    }
}

impl From<RecordsError> for Error {
    fn from(error: RecordsError) -> Self {
        let (code, reason, mend) = match error.kind {
            Kind::Unavailable => (Code::Unavailable, "records_unavailable", "try again later"),
            Kind::Conflict => (Code::Aborted, "records_conflict", "try again"),
            Kind::Constraint(_) => (Code::FailedPrecondition, "records_constraint", ""),
            Kind::Uncertain => (
                Code::Unknown,
                "records_uncertain",
                "look whether it has happened before you try again",
            ),
            Kind::Fenced => (
                Code::Unavailable,
                "records_fenced",
                "try again; `hydrant submissions primary` tells operators more",
            ),
            Kind::Broken => (
                Code::Internal,
                "records_broken",
                "the log of the service says more",
            ),
        };
        let fault = match error.kind {
            Kind::Unavailable | Kind::Uncertain => Fault::Theirs,
            _ => Fault::Ours,
        };
        Error::new(code, reason, error.message)
            .fault(fault)
            .mend(mend)
    }
}

/// Sorts what the driver says, and logs what may not be shown.
pub(crate) fn sort(error: sqlx::Error) -> RecordsError {
    let sorted = match &error {
        sqlx::Error::Database(told) => sort_answer(&**told),
        // So comes what TLS itself refuses.
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => not_trusted(),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            RecordsError::unavailable("the connection to the database broke")
        }
        // What comes over a connection that breaks in the middle of a message, too.
        sqlx::Error::Protocol(_) => {
            RecordsError::unavailable("the database answered something that is not understood")
        }
        sqlx::Error::Tls(_) => not_trusted(),
        _ => RecordsError::broken("the database was asked wrongly"),
    };
    match sorted.kind {
        Kind::Broken => tracing::error!(reason = %text(&error), "{sorted}"),
        _ => tracing::debug!(reason = %text(&error), "{sorted}"),
    }
    sorted
}

fn not_trusted() -> RecordsError {
    RecordsError::unavailable("the database's TLS is not as configured")
}

/// What came from the database, on one line.
fn text(error: &sqlx::Error) -> String {
    error.to_string().escape_debug().to_string()
}

fn sort_answer(told: &dyn sqlx::error::DatabaseError) -> RecordsError {
    if let Some(answer) = told.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return sort_mariadb(answer.number(), answer.message());
    }
    let code = told.code().and_then(|code| code.parse().ok());
    sort_sqlite(code.unwrap_or(1), told.message())
}

/// Codes of SQLite: the low byte is the kind, the rest says more.
fn sort_sqlite(code: i32, message: &str) -> RecordsError {
    match code & 0xff {
        5 | 6 => RecordsError::new(Kind::Conflict, "another process writes to the database"),
        10 | 14 => RecordsError::unavailable("the file of the database can't be read or written"),
        13 => RecordsError::unavailable("the disk of the database is full"),
        8 => RecordsError::broken("the file of the database may not be written"),
        11 | 26 => RecordsError::broken("the file of the database is damaged, or is none"),
        19 => sort_sqlite_constraint(code, message),
        _ => RecordsError::broken("the database refused a statement"),
    }
}

fn sort_sqlite_constraint(code: i32, message: &str) -> RecordsError {
    let constraint = match code >> 8 {
        6 | 8 | 10 => Constraint::Unique,
        3 => Constraint::Reference,
        5 => Constraint::NotNull,
        _ => Constraint::Check,
    };
    // `UNIQUE constraint failed: table.column, table.column`.
    let which = message.split_once("failed: ").map_or("", |(_, name)| name);
    broken_rule(constraint, which)
}

/// Numbers of MariaDB's errors.
fn sort_mariadb(number: u16, message: &str) -> RecordsError {
    match number {
        // A deadlock, which also is how Galera tells of a failed certification.
        1213 | 1020 => {
            RecordsError::new(Kind::Conflict, "others changed the same at the same time")
        }
        1205 => RecordsError::new(Kind::Conflict, "others held the same for too long"),
        1062 | 1586 => broken_rule(Constraint::Unique, quoted_end(message)),
        1216 | 1217 | 1451 | 1452 => broken_rule(Constraint::Reference, ""),
        1048 | 1364 => broken_rule(Constraint::NotNull, quoted(message)),
        4025 => broken_rule(Constraint::Check, quoted(message)),
        1045 | 1044 | 1698 => {
            RecordsError::unavailable("the database refuses the user or its password")
        }
        1049 => RecordsError::unavailable("the database is not there"),
        // Too many connections; shutting down; gone; a node of Galera that is not in the primary
        // component; killed by its own limits.
        1040
        | 1203
        | 1053
        | 1077
        | 1152
        | 1158..=1161
        | 1184
        | 1927
        | 1317
        | 1969
        | 2006
        | 2013
        | 1047
        | 1180 => RecordsError::unavailable("the database is not ready"),
        1290 | 1792 | 1836 => RecordsError::unavailable("the database is read-only"),
        1021 | 1114 => RecordsError::unavailable("the disk of the database is full"),
        _ if message.contains("WSREP") => {
            RecordsError::new(Kind::Conflict, "the cluster of the database is not ready")
        }
        _ => RecordsError::broken("the database refused a statement"),
    }
}

fn broken_rule(constraint: Constraint, which: &str) -> RecordsError {
    let rule = match constraint {
        Constraint::Unique => "such a row is there already",
        Constraint::Reference => "a row that others refer to is missing or in use",
        Constraint::NotNull => "a value is missing",
        Constraint::Check => "a value is not allowed",
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-., ".contains(c);
    let message = if which.is_empty() || !which.chars().all(is_name) {
        rule.to_owned()
    } else {
        format!("{rule} ({which})")
    };
    RecordsError::new(Kind::Constraint(constraint), message)
}

/// The name in the first quotes: `Column 'name' cannot be null`.
fn quoted(message: &str) -> &str {
    let mut parts = message.split(['\'', '`']);
    parts.nth(1).unwrap_or_default()
}

/// The name in the last quotes: in front of it stands the value, which may not be shown.
fn quoted_end(message: &str) -> &str {
    let mut parts = message.rsplit('\'');
    parts.nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_rule_is_named_and_its_value_is_not() {
        let told = sort_mariadb(1062, "Duplicate entry 'it's secret' for key 'PRIMARY'");
        assert!(told.is_duplicate());
        assert_eq!(told.to_string(), "such a row is there already (PRIMARY)");
        let told = sort_sqlite(2067, "UNIQUE constraint failed: person.name");
        assert_eq!(
            told.to_string(),
            "such a row is there already (person.name)"
        );
        let told = sort_mariadb(1064, "You have an error in your SQL syntax near 'secret'");
        assert_eq!(told.to_string(), "the database refused a statement");
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        assert!(sort_sqlite(517, "database is locked").is_passing());
        assert!(sort_mariadb(1213, "Deadlock found").is_passing());
        assert!(sort_mariadb(1047, "WSREP has not yet prepared node").is_passing());
        assert!(!sort_mariadb(1146, "Table 'x' doesn't exist").is_passing());
        assert!(!sort_sqlite(11, "malformed").is_passing());
        assert!(!RecordsError::uncertain().is_passing());
    }
}
