//! The one seam to the engines. Everything else in this crate writes one SQL text and one body per query; which engine
//! answers is a closed enum that is matched here and nowhere else.

use std::fmt::Write as _;
use std::str::FromStr;

use model::{
    AgentId, AgentVersionId, ConversationId, DecisionId, E164, KeyId, OrganizationId, Timestamp, TrunkId,
    UserId,
};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row as _, SqlSafeStr as _, SqlStr, Sqlite, Transaction};

use crate::StoreError;

/// The engines. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Db {
    /// One file. A single connection writes, so that writers queue in order in memory instead of at the file's lock.
    Sqlite { read: SqlitePool, write: SqlitePool },
}

impl Db {
    /// A connection for single reads, each of which sees the latest state.
    pub(crate) async fn reader(&self) -> Result<Connection, sqlx::Error> {
        let Self::Sqlite { read, .. } = self;
        Ok(Connection::Sqlite(read.acquire().await?))
    }

    /// A connection whose reads all see one state.
    pub(crate) async fn snapshot(&self) -> Result<Connection, sqlx::Error> {
        let Self::Sqlite { read, .. } = self;
        Ok(Connection::SqliteTransaction(read.begin().await?))
    }

    /// A transaction that writes. The lock is taken at once, so that what it has read still holds when it writes; it
    /// rolls back unless it is committed.
    pub(crate) async fn writer(&self) -> Result<Connection, sqlx::Error> {
        let Self::Sqlite { write, .. } = self;
        Ok(Connection::SqliteTransaction(write.begin_with("BEGIN IMMEDIATE").await?))
    }

    /// Waits for what is under way and closes.
    pub(crate) async fn close(&self) {
        let Self::Sqlite { read, write } = self;
        read.close().await;
        write.close().await;
    }
}

/// A way to the database, with or without a transaction.
pub(crate) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    SqliteTransaction(Transaction<'static, Sqlite>),
}

macro_rules! run {
    ($connection:expr, $query:expr, $fetch:ident) => {{
        let query = $query.into().for_sqlite()?;
        match $connection {
            Connection::Sqlite(connection) => query.$fetch(&mut **connection).await,
            Connection::SqliteTransaction(transaction) => query.$fetch(&mut **transaction).await,
        }
    }};
}

impl Connection {
    /// Every row.
    pub(crate) async fn all(&mut self, query: impl Into<Query>) -> Result<Vec<Row>, sqlx::Error> {
        Ok(run!(self, query, fetch_all)?.into_iter().map(Row::Sqlite).collect())
    }

    /// The first row, when there is one.
    pub(crate) async fn optional(&mut self, query: impl Into<Query>) -> Result<Option<Row>, sqlx::Error> {
        Ok(run!(self, query, fetch_optional)?.map(Row::Sqlite))
    }

    /// The first row; [`sqlx::Error::RowNotFound`] without one.
    pub(crate) async fn one(&mut self, query: impl Into<Query>) -> Result<Row, sqlx::Error> {
        self.optional(query).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// How many rows were written.
    pub(crate) async fn execute(&mut self, query: impl Into<Query>) -> Result<u64, sqlx::Error> {
        Ok(run!(self, query, execute)?.rows_affected())
    }

    /// Makes what was written last. With SQLite it has reached the disk when this returns.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::SqliteTransaction(transaction) => transaction.commit().await,
        }
    }
}

/// A statement that stands as it is in the source; made by [`statements!`](crate::db::statements) alone, which also
/// lists it for the test that prepares every one.
#[derive(Clone, Copy)]
pub(crate) struct Statement(pub(crate) &'static str);

impl Statement {
    /// With its first value.
    pub(crate) fn bind(self, value: impl Into<Value>) -> Query {
        Query::from(self).bind(value)
    }
}

/// Names the statements of a module.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:literal;)+) => {
        $($(#[$doc])* const $name: crate::db::Statement = crate::db::Statement($sql);)+

        #[cfg(test)]
        pub(crate) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $sql)),+];
    };
}
pub(crate) use statements;

/// A statement and its values.
pub(crate) struct Query {
    text: Text,
    values: Vec<Value>,
}

enum Text {
    Fixed(SqlStr),
    Built(String),
}

impl From<Statement> for Query {
    fn from(statement: Statement) -> Self {
        Self { text: Text::Fixed(statement.0.into_sql_str()), values: Vec::new() }
    }
}

impl Query {
    /// A text that is built once and used again, with all its values.
    pub(crate) fn prepared(text: SqlStr, values: Vec<Value>) -> Self {
        Self { text: Text::Fixed(text), values }
    }

    /// A text that grows by [`Query::push`].
    pub(crate) fn list(start: &'static str) -> Self {
        Self { text: Text::Built(start.to_owned()), values: Vec::new() }
    }

    /// The next value of a fixed text.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// More text; never anything a client sent.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        if let Text::Built(built) = &mut self.text {
            built.push_str(text);
        }
        self
    }

    /// More text: the place of a value.
    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let place = self.values.len();
        if let Text::Built(built) = &mut self.text {
            // Writing to a string does not fail.
            let _ = write!(built, "${place}");
        }
        self
    }

    fn for_sqlite(self) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        Arguments::reserve(&mut arguments, self.values.len(), 0);
        for value in self.values {
            match value {
                Value::Text(value) => Arguments::add(&mut arguments, value),
                Value::Int(value) => Arguments::add(&mut arguments, value),
                Value::Real(value) => Arguments::add(&mut arguments, value),
                Value::Bool(value) => Arguments::add(&mut arguments, value),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        let text = match self.text {
            Text::Fixed(text) => text,
            Text::Built(text) => AssertSqlSafe(text).into_sql_str(),
        };
        Ok(sqlx::query_with(text, arguments))
    }
}

/// A bound value. The null of each type is apart, because PostgreSQL tells them apart.
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(f64),
    Bool(bool),
}

macro_rules! text_values {
    ($($id:ty),+) => {
        $(impl From<$id> for Value {
            fn from(id: $id) -> Self {
                Self::Text(Some(id.to_string()))
            }
        }
        impl From<Option<$id>> for Value {
            fn from(id: Option<$id>) -> Self {
                Self::Text(id.map(|id| id.to_string()))
            }
        })+
    };
}

text_values!(
    AgentId,
    AgentVersionId,
    ConversationId,
    DecisionId,
    KeyId,
    OrganizationId,
    TrunkId,
    UserId,
    &E164,
    &str
);

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Int(Some(at.0))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(at: Option<Timestamp>) -> Self {
        Self::Int(at.map(|at| at.0))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// One row of an answer. A column that does not hold what it should is [`StoreError::Corrupt`].
pub(crate) enum Row {
    Sqlite(SqliteRow),
}

macro_rules! get {
    ($row:expr, $column:expr) => {{
        let Row::Sqlite(row) = $row;
        row.try_get($column).map_err(|_| StoreError::Corrupt($column))
    }};
}

impl Row {
    pub(crate) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        get!(self, column)
    }

    pub(crate) fn text_or_null(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        get!(self, column)
    }

    pub(crate) fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        get!(self, column)
    }

    pub(crate) fn int_or_null(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        get!(self, column)
    }

    pub(crate) fn bool(&self, column: &'static str) -> Result<bool, StoreError> {
        get!(self, column)
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.int(column).map(Timestamp)
    }

    pub(crate) fn time_or_null(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.int_or_null(column)?.map(Timestamp))
    }

    /// A text in the form of `T`.
    pub(crate) fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| StoreError::Corrupt(column))
    }

    /// A text in the form of `T`, or null.
    pub(crate) fn parse_or_null<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text = self.text_or_null(column)?;
        text.map(|text| text.parse()).transpose().map_err(|_| StoreError::Corrupt(column))
    }

    /// A text of JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| StoreError::Corrupt(column))
    }
}
