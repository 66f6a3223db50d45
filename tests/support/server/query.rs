//! SQL on a server: connections as root over its socket, statements, values.

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, OptsBuilder};

use super::Server;

impl Server {
    /// Connects as root over the socket.
    pub async fn connect(&self) -> Conn {
        self.try_connect().await.unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.error_log().text))
    }

    pub async fn try_connect(&self) -> Result<Conn, mysql_async::Error> {
        self.connect_as("root", None).await
    }

    /// Connects over the socket as another user.
    pub async fn connect_as(&self, user: &str, password: Option<&str>) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.opts().user(Some(user)).pass(password)).await
    }

    /// Options of a connection as root over the socket.
    pub fn opts(&self) -> OptsBuilder {
        OptsBuilder::default()
            .socket(Some(self.socket().display().to_string()))
            .user(Some("root"))
            // Two sizes of packets: LOBs of the workload are large.
            .max_allowed_packet(Some(64 << 20))
            .stmt_cache_size(16)
    }

    /// Runs statements, one by one, on a connection of its own. Panics with the statement when one fails.
    pub async fn sql(&self, statements: &str) {
        let mut conn = self.connect().await;
        for statement in split_statements(statements) {
            conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        }
        conn.disconnect().await.ok();
    }

    /// All rows of a query.
    pub async fn rows<T: FromRow + Send + 'static>(&self, query: &str) -> Vec<T> {
        let mut conn = self.connect().await;
        let rows = conn.query(query).await.unwrap_or_else(|error| panic!("{error}\nin: {query}"));
        conn.disconnect().await.ok();
        rows
    }

    /// The first row of a query.
    pub async fn row<T: FromRow + Send + 'static>(&self, query: &str) -> T {
        self.rows(query).await.into_iter().next().unwrap_or_else(|| panic!("no row from: {query}"))
    }

    /// A global variable as text, e.g. `variable("gtid_executed")`.
    pub async fn variable(&self, name: &str) -> String {
        let (value,): (Option<String>,) = self.row(&format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)")).await;
        value.unwrap_or_default()
    }

    /// `gtid_executed` without line breaks.
    pub async fn gtid_executed(&self) -> String {
        self.variable("gtid_executed").await.replace('\n', "")
    }

    /// The LSN up to which redo is on disk.
    pub async fn flushed_lsn(&self) -> u64 {
        let (value,): (String,) = self
            .row(
                "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
                 WHERE VARIABLE_NAME = 'Innodb_redo_log_flushed_to_disk_lsn'",
            )
            .await;
        value.parse().expect("an LSN is a number")
    }
}

/// Statements at line ends: a semicolon inside of a line does not end one.
pub fn split_statements(text: &str) -> impl Iterator<Item = &str> {
    text.split(";\n").map(|part| part.trim().trim_end_matches(';')).filter(|part| !part.is_empty())
}
