//! API keys and personal access tokens: hashed at rest, shown once, looked up by their public half.

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use model::{KeyId, OrganizationId, Scope, Secret, Timestamp, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _};

use crate::page::push_page;
use crate::{Page, Precondition, Store, StoreError};

/// What a valid credential allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is.
    pub kind: CredentialKind,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// An organization's API key.
    Key {
        /// Its public half.
        id: KeyId,
        /// The organization.
        organization_id: OrganizationId,
    },
    /// A person's token.
    Token {
        /// Its public half.
        id: KeyId,
        /// The person.
        user_id: UserId,
        /// The organizations the person belongs to.
        organizations: Vec<OrganizationId>,
    },
}

impl Credential {
    /// The public half, a key's or a token's.
    #[must_use]
    pub fn id(&self) -> KeyId {
        match &self.kind {
            CredentialKind::Key { id, .. } | CredentialKind::Token { id, .. } => *id,
        }
    }
}

/// A key that was made; the token is shown this once.
#[derive(Debug)]
pub struct NewKey {
    /// Public half.
    pub id: KeyId,
    /// `ak_<id>.<secret>`.
    pub token: Secret,
}

/// An API key as it can be shown: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Public half.
    pub id: KeyId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Its last use, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Creation time.
    pub created_at: Timestamp,
}

impl KeyInfo {
    /// The last change: its making, or its revocation. A use is no change.
    #[must_use]
    pub fn state(&self) -> Timestamp {
        self.revoked_at.unwrap_or(self.created_at)
    }
}

fn key_info(row: &SqliteRow) -> Result<KeyInfo, StoreError> {
    let (id, scopes): (String, String) = (row.try_get("id")?, row.try_get("scopes")?);
    let time = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp));
    Ok(KeyInfo {
        id: id.parse().map_err(|_| StoreError::Corrupt("key"))?,
        name: row.try_get("name")?,
        scopes: scopes_of_text(&scopes),
        expires_at: time("expires_at")?,
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
        created_at: Timestamp(row.try_get("created_at")?),
    })
}

fn scopes_of_text(text: &str) -> Vec<Scope> {
    text.split_whitespace().filter_map(|s| s.parse().ok()).collect()
}

/// A token that was made; it is shown this once.
#[derive(Debug)]
pub struct NewToken {
    /// Public half.
    pub id: KeyId,
    /// `pat_<id>.<secret>`.
    pub token: Secret,
}

/// At most one write of `last_used_at` a credential in this time.
const USE_NOTED_EVERY_US: i64 = 60_000_000;

/// 32 random bytes and a CRC-32, so that a mistyped secret is known without a look-up.
fn new_secret() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Secret("no randomness"))?;
    let secret = BASE64.encode(bytes);
    let check = crc32fast::hash(secret.as_bytes());
    Ok(format!("{secret}{check:08x}"))
}

fn is_whole(secret: &str) -> bool {
    let Some(at) = secret.len().checked_sub(8).filter(|at| secret.is_char_boundary(*at)) else {
        return false;
    };
    let (body, check) = secret.split_at(at);
    format!("{:08x}", crc32fast::hash(body.as_bytes())) == check
}

fn sha256(secret: &str) -> String {
    digest::digest(&digest::SHA256, secret.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn scopes_to_text(scopes: &[Scope]) -> String {
    scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")
}

impl Store {
    /// Makes an API key.
    pub async fn create_key(
        &self,
        organization: OrganizationId,
        name: &str,
        scopes: &[Scope],
        expires: Option<Timestamp>,
    ) -> Result<NewKey, StoreError> {
        self.organization(organization).await?;
        let (id, secret) = (KeyId::new(), new_secret()?);
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO api_keys (id, organization_id, name, scopes, secret_sha256, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(id.to_string())
            .bind(organization.to_string())
            .bind(name)
            .bind(scopes_to_text(scopes))
            .bind(sha256(&secret))
            .bind(expires.map(|t| t.0))
            .bind(Timestamp::now().0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(NewKey { id, token: Secret::new(format!("ak_{id}.{secret}")) })
    }

    /// Makes a personal access token; its user belongs to the organizations named, and to no other.
    pub async fn create_token(
        &self,
        email: &str,
        organizations: &[OrganizationId],
        scopes: &[Scope],
        expires: Option<Timestamp>,
    ) -> Result<NewToken, StoreError> {
        for organization in organizations {
            self.organization(*organization).await?;
        }
        let (id, secret, now) = (KeyId::new(), new_secret()?, Timestamp::now());
        let mut transaction = self.begin().await?;
        let user: String = sqlx::query_scalar("INSERT INTO users (id, email, created_at) VALUES ($1, $2, $3) ON CONFLICT (email) DO UPDATE SET email = excluded.email RETURNING id")
            .bind(UserId::new().to_string())
            .bind(email.to_lowercase())
            .bind(now.0)
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM memberships WHERE user_id = $1")
            .bind(&user)
            .execute(&mut *transaction)
            .await?;
        for organization in organizations {
            sqlx::query(
                "INSERT INTO memberships (user_id, organization_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(&user)
            .bind(organization.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query("INSERT INTO tokens (id, user_id, scopes, secret_sha256, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(id.to_string())
            .bind(&user)
            .bind(scopes_to_text(scopes))
            .bind(sha256(&secret))
            .bind(expires.map(|t| t.0))
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(NewToken { id, token: Secret::new(format!("pat_{id}.{secret}")) })
    }

    /// An organization's keys, newest first, revoked ones included.
    pub async fn keys(&self, organization: OrganizationId, page: Page) -> Result<Vec<KeyInfo>, StoreError> {
        let mut query = QueryBuilder::new("SELECT * FROM api_keys WHERE organization_id = ");
        query.push_bind(organization.to_string());
        push_page(&mut query, &page, "id");
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(key_info).collect()
    }

    /// One key of an organization.
    pub async fn key(&self, organization: OrganizationId, id: KeyId) -> Result<KeyInfo, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1 AND organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_one(&self.read)
            .await?;
        key_info(&row)
    }

    /// Revokes a key of an organization, at once. One that is revoked stays so.
    pub async fn revoke_own_key(
        &self,
        organization: OrganizationId,
        id: KeyId,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1 AND organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        precondition.check(key_info(&row)?.state())?;
        sqlx::query("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
            .bind(id.to_string())
            .bind(Timestamp::now().0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Every token, newest first, with its user's address.
    pub async fn tokens(&self) -> Result<Vec<(KeyInfo, String)>, StoreError> {
        let rows = sqlx::query("SELECT t.*, u.email AS name FROM tokens t JOIN users u ON u.id = t.user_id ORDER BY t.created_at DESC, t.id DESC")
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(|row| Ok((key_info(row)?, row.try_get("name")?))).collect()
    }

    /// Revokes an API key, at once.
    pub async fn revoke_key(&self, id: KeyId) -> Result<(), StoreError> {
        self.revoke("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1", id).await
    }

    /// Revokes a token, at once.
    pub async fn revoke_token(&self, id: KeyId) -> Result<(), StoreError> {
        self.revoke("UPDATE tokens SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1", id).await
    }

    async fn revoke(&self, statement: &'static str, id: KeyId) -> Result<(), StoreError> {
        let done =
            sqlx::query(statement).bind(id.to_string()).bind(Timestamp::now().0).execute(&self.write).await?;
        if done.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Looks a presented credential up. `None` when it is unknown, malformed, expired or revoked.
    pub async fn authenticate(
        &self,
        presented: &str,
        now: Timestamp,
    ) -> Result<Option<Credential>, StoreError> {
        let (is_key, rest) = match (presented.strip_prefix("ak_"), presented.strip_prefix("pat_")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Ok(None),
        };
        let Some((id, secret)) = rest.split_once('.') else { return Ok(None) };
        let Ok(id) = id.parse::<KeyId>() else { return Ok(None) };
        if !is_whole(secret) {
            return Ok(None);
        }
        let statement = if is_key {
            "SELECT secret_sha256, scopes, expires_at, revoked_at, last_used_at, organization_id AS owner FROM api_keys WHERE id = $1"
        } else {
            "SELECT secret_sha256, scopes, expires_at, revoked_at, last_used_at, user_id AS owner FROM tokens WHERE id = $1"
        };
        let Some(row) = sqlx::query(statement).bind(id.to_string()).fetch_optional(&self.read).await? else {
            return Ok(None);
        };
        let stored: String = row.try_get("secret_sha256")?;
        let (expires, revoked): (Option<i64>, Option<i64>) =
            (row.try_get("expires_at")?, row.try_get("revoked_at")?);
        let equal =
            constant_time::verify_slices_are_equal(stored.as_bytes(), sha256(secret).as_bytes()).is_ok();
        if !equal || revoked.is_some() || expires.is_some_and(|at| at <= now.0) {
            return Ok(None);
        }
        let used: Option<i64> = row.try_get("last_used_at")?;
        if used.is_none_or(|at| now.0 - at > USE_NOTED_EVERY_US) {
            self.note_use(is_key, id, now);
        }
        let scopes: String = row.try_get("scopes")?;
        let scopes = scopes_of_text(&scopes);
        let owner: String = row.try_get("owner")?;
        let corrupt = || StoreError::Corrupt("credential");
        let kind = if is_key {
            CredentialKind::Key { id, organization_id: owner.parse().map_err(|_| corrupt())? }
        } else {
            let organizations: Vec<String> =
                sqlx::query_scalar("SELECT organization_id FROM memberships WHERE user_id = $1")
                    .bind(&owner)
                    .fetch_all(&self.read)
                    .await?;
            CredentialKind::Token {
                id,
                user_id: owner.parse().map_err(|_| corrupt())?,
                organizations: organizations.iter().filter_map(|o| o.parse().ok()).collect(),
            }
        };
        Ok(Some(Credential { kind, scopes }))
    }

    /// Whether a key or token is still neither revoked nor expired, and still acts in the organization.
    pub async fn is_good(
        &self,
        id: KeyId,
        organization: OrganizationId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT (SELECT COUNT(*) FROM api_keys WHERE id = $1 AND organization_id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)) + (SELECT COUNT(*) FROM tokens t JOIN memberships m ON m.user_id = t.user_id WHERE t.id = $1 AND m.organization_id = $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $3))")
            .bind(id.to_string())
            .bind(organization.to_string())
            .bind(now.0)
            .fetch_one(&self.read)
            .await?;
        Ok(count > 0)
    }

    /// Notes the use beside the request, not before its answer; a lost note is no harm.
    fn note_use(&self, is_key: bool, id: KeyId, now: Timestamp) {
        let statement = if is_key {
            "UPDATE api_keys SET last_used_at = $2 WHERE id = $1"
        } else {
            "UPDATE tokens SET last_used_at = $2 WHERE id = $1"
        };
        let write = self.write.clone();
        tokio::spawn(async move {
            let _ = sqlx::query(statement).bind(id.to_string()).bind(now.0).execute(&write).await;
        });
    }
}
