//! Where the documents are kept: the service's own tables, where it has a database.

use hydrant_records::{Migration, Schema, Sql};

/// The tables of the service.
pub(crate) const TABLES: Schema = Schema {
    service: "mobile",
    migrations: MIGRATIONS,
    without: "nothing can be changed",
    while_away: "try again later; apps are answered as before",
};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_head (\
             id BIGINT PRIMARY KEY, revision BIGINT NOT NULL)",
        ),
        Sql::each(
            "INSERT OR IGNORE INTO mobile_head (id, revision) VALUES (1, 0)",
            "INSERT IGNORE INTO mobile_head (id, revision) VALUES (1, 0)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_revisions (\
             number BIGINT PRIMARY KEY, author LONGTEXT NOT NULL, reason LONGTEXT NOT NULL, \
             at_unix_ms BIGINT NOT NULL, reverts_to BIGINT)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_changes (\
             kind VARCHAR(32) NOT NULL, name VARCHAR(100) NOT NULL, revision BIGINT NOT NULL, \
             before_text LONGTEXT, after_text LONGTEXT, PRIMARY KEY (kind, name, revision))",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS mobile_changes_by_revision ON mobile_changes (revision)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_documents (\
             kind VARCHAR(32) NOT NULL, name VARCHAR(100) NOT NULL, revision BIGINT NOT NULL, \
             body LONGTEXT NOT NULL, PRIMARY KEY (kind, name))",
        ),
    ],
}];
