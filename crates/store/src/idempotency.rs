//! `Idempotency-Key`: the first answer to a request, kept for a day and sealed.

use model::{OrganizationId, Secret, Timestamp};
use sqlx::Row as _;

use crate::{Store, StoreError};

/// How long an answer is kept.
const KEPT_US: i64 = 24 * 3_600 * 1_000_000;
/// A request still in progress after this long died with its node.
const LEASE_US: i64 = 120 * 1_000_000;

/// What a key stands for.
#[derive(Debug)]
pub enum Idempotency {
    /// The key is new and now this request's: carry it out, then [`Store::finish_idempotent`].
    Begun,
    /// The first answer, as text.
    Answered {
        /// HTTP status.
        status: u16,
        /// What was kept of the answer.
        answer: Secret,
    },
    /// The key was used for another request.
    Other,
    /// The first request is still in progress.
    InProgress,
}

fn place(organization: &str, key: &str) -> String {
    format!("{organization}|idempotency|{key}|1")
}

impl Store {
    /// Takes a key for a request, told by the hash of its method, path and body.
    pub async fn begin_idempotent(
        &self,
        organization: OrganizationId,
        key: &str,
        request_sha256: &str,
    ) -> Result<Idempotency, StoreError> {
        let (owner, now) = (organization.to_string(), Timestamp::now().0);
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM idempotency WHERE created_at < $1 OR (status IS NULL AND created_at < $2)")
            .bind(now - KEPT_US)
            .bind(now - LEASE_US)
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query(
            "SELECT request_sha256, status, answer FROM idempotency WHERE organization_id = $1 AND key = $2",
        )
        .bind(&owner)
        .bind(key)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            sqlx::query("INSERT INTO idempotency (organization_id, key, request_sha256, created_at) VALUES ($1, $2, $3, $4)")
                .bind(&owner)
                .bind(key)
                .bind(request_sha256)
                .bind(now)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            return Ok(Idempotency::Begun);
        };
        if row.try_get::<String, _>("request_sha256")? != request_sha256 {
            return Ok(Idempotency::Other);
        }
        let (status, answer): (Option<i64>, Option<String>) =
            (row.try_get("status")?, row.try_get("answer")?);
        let (Some(status), Some(answer)) = (status, answer) else { return Ok(Idempotency::InProgress) };
        let opened = self.data_key(&mut transaction, &owner).await?.open(&answer, &place(&owner, key))?;
        let status = u16::try_from(status).map_err(|_| StoreError::Corrupt("answer"))?;
        Ok(Idempotency::Answered { status, answer: opened })
    }

    /// Keeps the answer, or with `None` gives the key back: nothing was done.
    pub async fn finish_idempotent(
        &self,
        organization: OrganizationId,
        key: &str,
        answer: Option<(u16, Secret)>,
    ) -> Result<(), StoreError> {
        let owner = organization.to_string();
        let mut transaction = self.begin().await?;
        match answer {
            Some((status, answer)) => {
                let sealed =
                    self.data_key(&mut transaction, &owner).await?.seal(&answer, &place(&owner, key))?;
                sqlx::query(
                    "UPDATE idempotency SET status = $3, answer = $4 WHERE organization_id = $1 AND key = $2",
                )
                .bind(&owner)
                .bind(key)
                .bind(i64::from(status))
                .bind(sealed)
                .execute(&mut *transaction)
                .await?;
            }
            None => {
                sqlx::query(
                    "DELETE FROM idempotency WHERE organization_id = $1 AND key = $2 AND status IS NULL",
                )
                .bind(&owner)
                .bind(key)
                .execute(&mut *transaction)
                .await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Gives back the keys of requests that a crash cut off.
    pub async fn release_idempotent(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM idempotency WHERE status IS NULL").execute(&self.write).await?;
        Ok(())
    }
}
