//! SQLite: the file, its settings, and its migrations.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::ConnectOptions as _;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::StoreError;
use crate::db::Db;

/// Readers at once.
const READERS: u32 = 4;
/// How long a request waits for its turn, and then for another process that holds the file's lock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long opening waits for another process that is opening the same new file.
const OPENING: Duration = Duration::from_secs(10);
/// Pause between attempts to open.
const PAUSE: Duration = Duration::from_millis(20);
/// What the log may keep of its size after a checkpoint, in bytes.
const MAX_IDLE_LOG: &str = "67108864";
/// Prepared statements kept a connection: more than the crate has, lists with their filters included.
const STATEMENTS: usize = 256;

const BUSY: i32 = 5;
const LOCKED: i32 = 6;

/// Opens `sqlite:<path>`, making the file and bringing its schema up to date.
pub(crate) async fn open(url: &str) -> Result<Db, StoreError> {
    let path = path_of(url)?;
    make_private(&path).map_err(|e| StoreError::Unavailable(format!("{}: {e}", path.display())))?;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE)
        .foreign_keys(true)
        .pragma("journal_size_limit", MAX_IDLE_LOG)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging();
    let deadline = Instant::now() + OPENING;
    let write = loop {
        // Turning to the write-ahead log takes a lock that SQLite does not wait for.
        match prepare(options.clone().journal_mode(SqliteJournalMode::Wal)).await {
            Err(StoreError::Unavailable(_)) if is_wal_race(&path) && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            done => break done?,
        }
    };
    sync_directory(&path).map_err(|e| StoreError::Unavailable(format!("{}: {e}", path.display())))?;
    let read = pool(READERS).connect_with(options).await?;
    Ok(Db::Sqlite { read, write })
}
