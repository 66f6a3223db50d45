//! Work that is hard to recover: one file for each family of it. All of it is random in what it does to which rows, and
//! the same for the same seed as far as a server with its own threads can be.

use mysql_async::prelude::Queryable as _;

use crate::support::server::Server;
use crate::support::workload::text::Random;

pub mod compressed;
pub mod files;
pub mod lobs;
pub mod rows;
pub mod trees;
pub mod versions;
pub mod zipped;

/// What a scenario works on.
pub struct Work<'s> {
    pub server: &'s Server,
    pub random: Random,
    /// How much it does: 1 takes seconds.
    pub scale: u64,
    conn: mysql_async::Conn,
}

impl<'s> Work<'s> {
    pub async fn new(server: &'s Server, seed: u64, scale: u64) -> Self {
        let mut conn = server.connect().await;
        for statement in [
            "CREATE DATABASE IF NOT EXISTS n",
            "USE n",
            "SET cte_max_recursion_depth = 1000000, sql_mode = ''",
            // Durable it must be only at the end, when all of it is flushed.
            "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
        ] {
            conn.query_drop(statement).await.unwrap();
        }
        Self { server, random: Random::new(seed), scale, conn }
    }

    /// Runs a statement. Panics with it when it fails.
    pub async fn run(&mut self, statement: impl AsRef<str>) {
        let statement = statement.as_ref();
        self.conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement:.2000}"));
    }

    pub async fn run_all<S: AsRef<str>>(&mut self, statements: impl IntoIterator<Item = S>) {
        for statement in statements {
            self.run(statement).await;
        }
    }

    pub fn page_size(&self) -> u64 {
        u64::from(self.server.page_size())
    }
}

/// Numbers to select from, as `s.n`.
pub fn numbers(from: u64, count: u64) -> String {
    format!(
        "(WITH RECURSIVE s(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {from} + {count}) \
         SELECT n FROM s) AS s"
    )
}

/// Waits until purge has removed what was deleted: until its list does not get shorter any more. It keeps a few
/// entries when it is idle.
pub async fn wait_for_purge(server: &Server) {
    let (mut least, mut quiet) = (u64::MAX, 0);
    while quiet < 15 && least > 1 {
        let query = "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'";
        let (length,): (u64,) = server.row(query).await;
        quiet = if length < least { 0 } else { quiet + 1 };
        least = least.min(length);
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
}

/// Row formats that every page size has.
pub const FORMATS: [&str; 3] = ["DYNAMIC", "COMPACT", "REDUNDANT"];
