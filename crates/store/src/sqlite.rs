//! The database file: opening, migrations, and the two ways to it.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::page::folded;
use crate::{KeyRing, Seq, StoreError};

/// Readers at once.
const READERS: u32 = 4;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes in a page of a new file: the records and traces of several calls, each page a write of its own.
const PAGE_SIZE: u32 = 16 << 10;
/// Pages in the write-ahead log before it goes into the file: 16 MiB. Pages that are written again and again, those of
/// indices, go once.
const CHECKPOINT_PAGES: &str = "1000";

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) read: SqlitePool,
    /// One connection: writers take turns here instead of at the file's lock.
    pub(crate) write: SqlitePool,
    pub(crate) keys: KeyRing,
}

impl Store {
    /// Opens `sqlite:<path>`, making the file and bringing it up to date. What a write acknowledges has reached the
    /// disk (WAL, `synchronous=FULL`).
    pub async fn open(url: &str, keys: KeyRing) -> Result<Self, StoreError> {
        let path = url.strip_prefix("sqlite:").map(|p| p.trim_start_matches("//")).filter(|p| !p.is_empty());
        let path =
            path.ok_or_else(|| StoreError::Unavailable(format!("store.url {url:?} is not sqlite:<path>")))?;
        make_private(Path::new(path)).map_err(|e| StoreError::Unavailable(format!("{path}: {e}")))?;
        let options = SqliteConnectOptions::from_str(&format!("sqlite:{path}"))
            .map_err(|e| StoreError::Unavailable(e.to_string()))?
            .create_if_missing(true)
            .page_size(PAGE_SIZE)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            // What a statement of many rows would undo; in files, it would be as much as the rows themselves.
            .pragma("temp_store", "MEMORY")
            .foreign_keys(true);
        // A connection to a file neither dies nor grows stale: testing and renewing it would only take time.
        let pool = |most: u32| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .min_connections(most)
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
                .max_lifetime(None)
                .idle_timeout(None)
        };
        let write = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!().run(&write).await.map_err(|e| match e {
            sqlx::migrate::MigrateError::VersionMissing(_) => StoreError::NewerSchema,
            other => StoreError::Unavailable(other.to_string()),
        })?;
        fold_names(&write).await?;
        let read = pool(READERS).connect_with(options).await?;
        Ok(Self { read, write, keys })
    }

    /// Begins a write: the lock is taken at once, so that a transaction that has read never fails to write.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        Ok(())
    }
}

/// Makes the file readable to its owner alone before anything is in it.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        return Ok(());
    }
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(|_| ())
}

/// Gives names of an earlier release the form that lists search.
async fn fold_names(write: &SqlitePool) -> Result<(), StoreError> {
    for (unfolded, fold) in [
        (
            "SELECT id, name FROM trunks WHERE name_folded IS NULL",
            "UPDATE trunks SET name_folded = $2 WHERE id = $1",
        ),
        (
            "SELECT id, name FROM agents WHERE name_folded IS NULL",
            "UPDATE agents SET name_folded = $2 WHERE id = $1",
        ),
    ] {
        let mut transaction = write.begin_with("BEGIN IMMEDIATE").await?;
        let rows: Vec<(String, String)> = sqlx::query_as(unfolded).fetch_all(&mut *transaction).await?;
        for (id, name) in rows {
            sqlx::query(fold).bind(id).bind(folded(&name)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// Appends to the change log inside the change's own transaction.
pub(crate) async fn log(
    connection: &mut SqliteConnection,
    kind: &str,
    reference: &str,
) -> Result<Seq, StoreError> {
    let seq: i64 = sqlx::query_scalar("INSERT INTO changes (seq, kind, ref) SELECT COALESCE(MAX(seq), 0) + 1, $1, $2 FROM changes RETURNING seq")
        .bind(kind)
        .bind(reference)
        .fetch_one(connection)
        .await?;
    Ok(seq)
}
