//! What previews keep in the tables of the service: the secret that signs their links, and which
//! links are revoked.

use hydrant_records::{Migration, Records, RecordsError, Sql, params, read, transaction};
use sha2::{Digest as _, Sha256};

use crate::content::preview::token::Signer;

/// The tables of previews.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_preview_secret \
             (id BIGINT PRIMARY KEY, secret LONGBLOB NOT NULL)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_preview_revoked \
             (entry VARCHAR(100) PRIMARY KEY, until_ms BIGINT NOT NULL)",
        ),
    ],
}];

const SECRET: &str = "SELECT secret FROM mobile_preview_secret WHERE id = 1";
const REVOKED: &str = "SELECT until_ms FROM mobile_preview_revoked WHERE entry = ?";

/// Makes the tables of previews when they are missing.
pub(crate) async fn make_tables(records: &Records) -> Result<(), RecordsError> {
    records.migrate("mobile-content", MIGRATIONS).await
}

/// Keeps what previews need.
#[derive(Clone)]
pub(crate) struct Vault(Records);

impl Vault {
    /// Makes the tables when they are missing.
    ///
    /// # Errors
    ///
    /// As [`Records::migrate`].
    pub(crate) async fn open(records: Records) -> Result<Self, RecordsError> {
        make_tables(&records).await?;
        Ok(Self(records))
    }

    /// Signs with the secret, which the first process that asks makes.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn signer(&self) -> Result<Signer, RecordsError> {
        let records = &self.0;
        let fresh = fresh_secret();
        let known = read!(records, |tx| tx.query(SECRET, &[]).await)?;
        if let Some(row) = known.first() {
            return Ok(Signer::new(&row.get::<Vec<u8>>(0)?));
        }
        let secret = transaction!(records, |tx| {
            let row = params![1_i64, fresh.clone()];
            tx.insert_new("mobile_preview_secret", &["id", "secret"], &[row])
                .await?;
            let rows = tx.query(SECRET, &[]).await?;
            rows.first().map_or(Ok(fresh.clone()), |row| row.get(0))
        })?;
        Ok(Signer::new(&secret))
    }

    /// Ends all links to an entry that were made until now.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn revoke(&self, entry: &str, now: i64) -> Result<(), RecordsError> {
        let records = &self.0;
        transaction!(records, |tx| {
            let row = params![entry, now];
            tx.upsert("mobile_preview_revoked", &["entry"], &["until_ms"], &[row])
                .await
        })
    }

    /// Whether a link to an entry that was made at this time is revoked.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn is_revoked(&self, entry: &str, made: i64) -> Result<bool, RecordsError> {
        let records = &self.0;
        let rows = read!(records, |tx| tx.query(REVOKED, &params![entry]).await)?;
        let until = rows.first().map(|row| row.get::<i64>(0)).transpose()?;
        Ok(until.is_some_and(|until| made <= until))
    }
}

/// 32 bytes that nobody can guess: of four random UUIDs, which come from the system's own source.
fn fresh_secret() -> Vec<u8> {
    let parts = [(); 4].map(|()| uuid::Uuid::new_v4());
    let hash = parts.iter().fold(Sha256::new(), |hash, part| {
        hash.chain_update(part.as_bytes())
    });
    hash.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use hydrant_records::Config;

    use super::*;
    use crate::content::preview::token::Claims;

    #[tokio::test]
    async fn the_secret_is_made_once_and_links_are_revoked_by_when_they_were_made() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("records.db").display());
        let open = async || {
            Vault::open(Records::open(Config::new(&url).unwrap()))
                .await
                .unwrap()
        };
        let (one, two) = (open().await, open().await);
        let claims = Claims {
            entry: "fresh".into(),
            revision: None,
            made: 5,
            expires: 10,
        };
        let (first, second) = tokio::join!(one.signer(), two.signer());
        let token = first.unwrap().sign(&claims);
        assert_eq!(second.unwrap().open(&token, 9), Ok(claims));
        assert!(!one.is_revoked("fresh", 5).await.unwrap());
        for until in [5, 7] {
            two.revoke("fresh", until).await.unwrap();
        }
        assert!(one.is_revoked("fresh", 7).await.unwrap());
        assert!(!one.is_revoked("fresh", 8).await.unwrap());
        assert!(!one.is_revoked("other", 5).await.unwrap());
    }
}
