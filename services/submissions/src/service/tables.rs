//! The tables of `service/submissions`.

use hydrant_records::{Migration, Schema, Sql};

/// The tables of the service.
pub(crate) const TABLES: Schema = Schema {
    service: "submissions",
    migrations: MIGRATIONS,
    without: "submissions can't be kept",
    while_away: "try again later under the same Correlation-Id",
};

const MIGRATIONS: &[Migration] = &[FIRST, COPIES];

const FIRST: Migration = Migration {
    version: 1,
    statements: &[
        // `nonce` tells an attempt to insert apart from others of the same id; `version` grows with each
        // change; `hops` and `hop_hash` are the number of hops of its receipt and the hash of the last one.
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submissions (\
             id VARCHAR(36) PRIMARY KEY, nonce VARCHAR(36) NOT NULL, form VARCHAR(63) NOT NULL, \
             state VARCHAR(16) NOT NULL, version BIGINT NOT NULL, fingerprint VARCHAR(64) NOT NULL, \
             fields LONGTEXT NOT NULL, store VARCHAR(100) NOT NULL, person VARCHAR(100) NOT NULL, \
             session VARCHAR(100) NOT NULL, accepted_ms BIGINT NOT NULL, submitted_ms BIGINT, \
             ended_ms BIGINT, reference VARCHAR(200), hops BIGINT NOT NULL, hop_hash VARCHAR(64) NOT NULL)",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS submissions_by_state ON submissions (state, accepted_ms)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_hops (\
             submission VARCHAR(36) NOT NULL, number BIGINT NOT NULL, kind VARCHAR(16) NOT NULL, \
             at_ms BIGINT NOT NULL, record LONGTEXT NOT NULL, hash VARCHAR(64) NOT NULL, \
             PRIMARY KEY (submission, number))",
        ),
        // The steps of each submission; `due_ms` is when its turn comes, `epoch` grows with each lease.
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_steps (\
             submission VARCHAR(36) NOT NULL, step BIGINT NOT NULL, consumer VARCHAR(63) NOT NULL, \
             kind VARCHAR(16) NOT NULL, state VARCHAR(16) NOT NULL, store VARCHAR(100) NOT NULL, \
             submitted_ms BIGINT NOT NULL, attempts BIGINT NOT NULL, due_ms BIGINT NOT NULL, \
             epoch BIGINT NOT NULL, worker VARCHAR(100), lease_until_ms BIGINT, reason LONGTEXT, \
             ended_ms BIGINT, PRIMARY KEY (submission, step))",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS submission_steps_by_turn \
             ON submission_steps (state, consumer, store, submitted_ms)",
        ),
        // What is attached, while it comes in and after. `position` is the order of creation; `hash_state` is
        // the SHA-256 of what came so far, to go on with; `places` are the stores that have pieces of it.
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_uploads (\
             id VARCHAR(36) PRIMARY KEY, submission VARCHAR(36) NOT NULL, position BIGINT NOT NULL, \
             state VARCHAR(16) NOT NULL, name VARCHAR(255) NOT NULL, media VARCHAR(255) NOT NULL, \
             metadata LONGTEXT NOT NULL, concat LONGTEXT, length BIGINT, received BIGINT NOT NULL, \
             pieces BIGINT NOT NULL, hash_state LONGBLOB, sha256 VARCHAR(64), epoch BIGINT NOT NULL, \
             created_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL, places VARCHAR(100) NOT NULL)",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS submission_uploads_by_submission \
             ON submission_uploads (submission, position)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_pieces (\
             upload VARCHAR(36) NOT NULL, number BIGINT NOT NULL, start BIGINT NOT NULL, \
             size BIGINT NOT NULL, object VARCHAR(100) NOT NULL, place VARCHAR(16) NOT NULL, \
             sha256 VARCHAR(64) NOT NULL, PRIMARY KEY (upload, number))",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS submission_uploads_by_end \
             ON submission_uploads (state, expires_ms)",
        ),
        // Objects that no piece names: about to be written, or to be removed. A row is here before its object
        // is, and goes in the transaction that makes it a piece.
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_loose (\
             object VARCHAR(100) PRIMARY KEY, place VARCHAR(16) NOT NULL, state VARCHAR(16) NOT NULL, \
             since_ms BIGINT NOT NULL)",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS submission_loose_by_time ON submission_loose (since_ms)",
        ),
        // What happened, for the business. Nothing is ever changed here; the seals chain it afterwards.
        Sql::each(
            "CREATE TABLE IF NOT EXISTS audit_events (\
             id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms BIGINT NOT NULL, kind VARCHAR(32) NOT NULL, \
             outcome VARCHAR(16) NOT NULL, submission VARCHAR(36) NOT NULL, form VARCHAR(63) NOT NULL, \
             store VARCHAR(100) NOT NULL, person VARCHAR(100) NOT NULL, session VARCHAR(100) NOT NULL, \
             detail LONGTEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS audit_events (\
             id BIGINT PRIMARY KEY AUTO_INCREMENT, at_ms BIGINT NOT NULL, kind VARCHAR(32) NOT NULL, \
             outcome VARCHAR(16) NOT NULL, submission VARCHAR(36) NOT NULL, form VARCHAR(63) NOT NULL, \
             store VARCHAR(100) NOT NULL, person VARCHAR(100) NOT NULL, session VARCHAR(100) NOT NULL, \
             detail LONGTEXT NOT NULL)",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS audit_events_by_submission ON audit_events (submission)",
        ),
        Sql::both("CREATE INDEX IF NOT EXISTS audit_events_by_time ON audit_events (at_ms)"),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS audit_events_by_store ON audit_events (store, at_ms)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS audit_seals (\
             site VARCHAR(63) NOT NULL, number BIGINT NOT NULL, event BIGINT NOT NULL, \
             hash VARCHAR(64) NOT NULL, PRIMARY KEY (site, number))",
        ),
        Sql::both("CREATE UNIQUE INDEX IF NOT EXISTS audit_seals_by_event ON audit_seals (event)"),
    ],
};

/// Pieces are copied into the other data centre's store.
const COPIES: Migration = Migration {
    version: 2,
    statements: &[
        // The pieces that are to be in two stores. `copy` and `place` are where the copy is, empty while there is
        // none; `due_ms` is when it is tried next.
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_copies (\
             object VARCHAR(100) PRIMARY KEY, copy VARCHAR(100) NOT NULL, place VARCHAR(16) NOT NULL, \
             since_ms BIGINT NOT NULL, due_ms BIGINT NOT NULL)",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS submission_copies_by_turn ON submission_copies (place, due_ms)",
        ),
        // How far the database of the other data centre was known to follow.
        Sql::both(
            "CREATE TABLE IF NOT EXISTS submission_follower (\
             id BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL)",
        ),
    ],
};
