//! A busy database: many kinds of tables, writers that never rest, and promises that can be checked afterwards.
//!
//! ```text
//!   writer (steady) ─ BEGIN ─ sequence n ─ move money ─ 2..6 changes to any tables ─ COMMIT ─► acknowledged (n, when)
//!   writer (slow)   ─ BEGIN ─ sequence n ─ inserts ──── seconds ──── more inserts ─ COMMIT or ROLLBACK
//!   writer (plain)  ─ one statement to MyISAM, CSV, ARCHIVE or MERGE at a time
//! ```
//!
//! Two invariants hold at every commit, so in every backup: the accounts' sum stays what it was, and the numbers that a
//! writer has inserted have no gap. What a client was told to be committed is recorded with its times, so a test can
//! say which commits a backup must hold and which it must not.
//!
//! Everything is safe to replicate with GTIDs: rows are logged, transactional and other tables never share a
//! transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use text::Random;
use writer::Writer;

mod check;
pub mod schema;
pub mod text;
mod writer;

pub use check::{check_cut, check_invariants};

/// What a workload has, and how hard it works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tables outside of the data directory. Needs `innodb_directories`, which a server has by default.
    pub external: bool,
    /// Encrypted tables and tablespaces. Needs a server with a keyring.
    pub encrypted: bool,
    /// MyISAM, CSV, ARCHIVE, MERGE.
    pub plain: bool,
    /// An undo tablespace of its own.
    pub undo_tablespace: bool,
    /// Rows in each table at the start.
    pub rows: u64,
    /// How long a steady writer rests between two transactions.
    pub pause: Duration,
    /// Writers of transactions that stay open for seconds.
    pub slow_writers: usize,
    pub accounts: u64,
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            external: true,
            encrypted: false,
            plain: true,
            undo_tablespace: true,
            rows: 60,
            pause: Duration::from_millis(4),
            slow_writers: 1,
            accounts: 100,
            seed: 1,
        }
    }
}

/// Money that each account has at the start.
const BALANCE: u64 = 1000;

/// The tables, filled, on one server.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kinds: Vec<schema::Kind>,
    options: Options,
    connect: mysql_async::Opts,
    committed: AtomicU64,
    stop: CancellationToken,
}

impl Workload {
    /// Makes all tables on a server and fills each a little.
    pub async fn create(server: &Server, options: &Options) -> Self {
        let workload = Self::attach(server, options);
        let mut conn = server.connect().await;
        let mut statements = schema::surroundings(server, options);
        // Only while tables are made, a sync for each of hundreds of statements is left out.
        let durable = ["innodb_flush_log_at_trx_commit", "sync_binlog"];
        statements.splice(0..0, durable.map(|name| format!("SET GLOBAL {name} = 0")));
        statements.extend(workload.shared.kinds.iter().flat_map(|kind| kind.create.clone()));
        if options.plain {
            statements.extend(schema::plain());
        }
        let accounts: Vec<String> = (0..options.accounts).map(|id| format!("({id}, {BALANCE}, NOW(6))")).collect();
        statements.push(format!("INSERT INTO {}.accounts VALUES {}", schema::MAIN, accounts.join(", ")));
        statements.extend(schema::stored_code());
        for statement in statements {
            conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        }
        let mut random = Random::new(options.seed);
        for kind in &workload.shared.kinds {
            let insert = writer::insert(kind, &mut random, options.rows);
            conn.query_drop(&insert).await.unwrap_or_else(|error| panic!("{error}\nin: {}", kind.name));
            kind.highest.fetch_max(options.rows, Ordering::Relaxed);
        }
        for statement in schema::sync_full_text() {
            conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        }
        for name in durable {
            conn.query_drop(format!("SET GLOBAL {name} = DEFAULT")).await.unwrap();
        }
        conn.disconnect().await.ok();
        workload
    }

    /// The workload of a server that has its tables already: a restored one, or one that was restarted.
    pub fn attach(server: &Server, options: &Options) -> Self {
        let shared = Shared {
            kinds: schema::transactional(server, options),
            options: options.clone(),
            connect: server.opts().into(),
            committed: AtomicU64::new(0),
            stop: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts `threads` steady writers beside the slow and the plain ones.
    pub async fn start(&self, threads: usize) -> Running {
        let options = &self.shared.options;
        let shared = Arc::new(Shared {
            kinds: schema_copy(&self.shared.kinds),
            options: options.clone(),
            connect: self.shared.connect.clone(),
            committed: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let mut conn = mysql_async::Conn::new(shared.connect.clone()).await.expect("cannot connect");
        let query = format!("SELECT COALESCE(MAX(writer), 0) FROM {}.sequence", schema::MAIN);
        let used: u32 = conn.query_first(query).await.unwrap().unwrap();
        conn.disconnect().await.ok();
        let roles = std::iter::repeat_n(writer::Role::Steady, threads)
            .chain(std::iter::repeat_n(writer::Role::Slow, options.slow_writers))
            .chain(options.plain.then_some(writer::Role::Plain));
        let writers = (used + 1..).zip(roles).map(|(id, role)| {
            let writer = Writer::new(id, role, Arc::clone(&shared));
            tokio::spawn(writer.run())
        });
        Running { writers: writers.collect(), shared }
    }

    /// Adds a table `sf.bulk_<n>` of about `bytes` bytes, by several connections and past the binary log.
    pub async fn fill(&self, bytes: u64) {
        fill(&self.shared.connect, &format!("{}.bulk", schema::MAIN), bytes, self.shared.options.seed).await;
    }
}

fn schema_copy(kinds: &[schema::Kind]) -> Vec<schema::Kind> {
    kinds.iter().map(schema::Kind::copy).collect()
}

/// Fills a table with about `bytes` bytes of rows of half a page; makes it if it is not there.
pub async fn fill(connect: &mysql_async::Opts, table: &str, bytes: u64, seed: u64) {
    const CONNECTIONS: u64 = 2;
    const ROWS: u64 = 256;
    const ROW: u64 = 4096;
    let mut conn = mysql_async::Conn::new(connect.clone()).await.expect("cannot connect");
    // Past the binary log: it would double the bytes to write, and a backup holds the rows anyway.
    let make = [
        "SET sql_log_bin = 0".to_owned(),
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
             k INT NOT NULL, pad VARCHAR(300) NOT NULL, body TEXT, KEY k (k))"
        ),
    ];
    for statement in make {
        conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
    }
    conn.disconnect().await.ok();
    let one = |number: u64| {
        let (connect, table) = (connect.clone(), table.to_owned());
        async move {
            let mut random = Random::new(seed * 100 + number);
            let mut conn = mysql_async::Conn::new(connect).await.expect("cannot connect");
            conn.query_drop("SET sql_log_bin = 0").await.unwrap();
            for _ in 0..(bytes / CONNECTIONS).div_ceil(ROWS * ROW) {
                let row =
                    |_| format!("({}, '{}', '{}')", random.below(1 << 30), random.text(100), random.text(ROW - 200));
                let rows: Vec<String> = (0..ROWS).map(row).collect();
                let insert = format!("INSERT INTO {table} (k, pad, body) VALUES {}", rows.join(", "));
                conn.query_drop(insert).await.unwrap_or_else(|error| panic!("{error}\nwhile filling {table}"));
            }
            conn.disconnect().await.ok();
        }
    };
    let tasks: Vec<JoinHandle<()>> = (0..CONNECTIONS).map(|number| tokio::spawn(one(number))).collect();
    for task in tasks {
        task.await.expect("filling failed");
    }
}

/// Writers at work. Dropping it tells them to stop.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<WriterStats>>,
}

impl Running {
    /// Transactions committed so far.
    pub fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Relaxed)
    }

    /// Waits until so many transactions more are committed. Panics when that takes minutes.
    pub async fn wait_for(&self, more: u64) {
        let (target, deadline) = (self.committed() + more, Instant::now() + Duration::from_mins(3));
        while self.committed() < target {
            assert!(Instant::now() < deadline, "the writers do not get on: {} of {target}", self.committed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the writers and says what they did. Panics if one of them met an error of the server's, other than
    /// deadlocks and lost connections.
    pub async fn stop(mut self) -> Stats {
        self.shared.stop.cancel();
        let mut stats = Stats { writers: Vec::new() };
        for writer in std::mem::take(&mut self.writers) {
            stats.writers.push(writer.await.expect("a writer panicked"));
        }
        let errors: Vec<&String> = stats.writers.iter().flat_map(|writer| &writer.errors).collect();
        assert!(errors.is_empty(), "writers met errors: {errors:#?}");
        stats
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// A commit that the client was told of.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub seq: u64,
    /// Before the transaction began.
    pub started: Instant,
    /// After the server had said that it is committed.
    pub done: Instant,
}

/// A row that was inserted into a table without transactions.
#[derive(Debug, Clone, Copy)]
pub struct PlainRow {
    pub table: &'static str,
    pub id: u64,
    /// Before the statement.
    pub started: Instant,
    /// After the server had answered.
    pub done: Instant,
}

/// What one writer did.
#[derive(Debug, Clone, Default)]
pub struct WriterStats {
    /// 0 for the writer of plain tables.
    pub writer: u32,
    pub commits: Vec<Acknowledged>,
    pub rollbacks: u64,
    /// Ended by the server, to be tried again: deadlocks.
    pub retries: u64,
    /// Rows of the writer of plain tables.
    pub plain_rows: Vec<PlainRow>,
    /// The longest that one transaction, or one plain statement, took. Slow writers leave it at zero.
    pub slowest: Duration,
    /// The connection was lost: whether the last transaction is committed is not known.
    pub lost: bool,
    pub errors: Vec<String>,
}

/// What all writers did.
#[derive(Debug, Clone)]
pub struct Stats {
    pub writers: Vec<WriterStats>,
}

impl Stats {
    pub fn commits(&self) -> usize {
        self.writers.iter().map(|writer| writer.commits.len()).sum()
    }

    /// The longest that any steady transaction took: nothing may block them.
    pub fn slowest_transaction(&self) -> Duration {
        self.writers.iter().filter(|writer| writer.writer != 0).map(|writer| writer.slowest).max().unwrap_or_default()
    }

    /// The longest that a statement to a table without redo took: the global read lock blocks them.
    pub fn slowest_plain_statement(&self) -> Duration {
        self.writers.iter().filter(|writer| writer.writer == 0).map(|writer| writer.slowest).max().unwrap_or_default()
    }
}
