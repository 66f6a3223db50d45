//! One writer: transactions, one after the other, until told to stop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};

use super::schema::{Kind, MAIN, PLAIN, holder};
use super::text::Random;
use super::{Acknowledged, PlainRow, Shared, WriterStats};

/// What a writer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Short transactions, many.
    Steady,
    /// Transactions that stay open for seconds.
    Slow,
    /// Statements to tables without transactions, few.
    Plain,
}

#[derive(Debug)]
pub struct Writer {
    id: u32,
    role: Role,
    shared: Arc<Shared>,
    random: Random,
    /// The statement to a table of the workload that came last.
    last: String,
    stats: WriterStats,
}

/// How a transaction ended.
enum End {
    Committed,
    RolledBack,
}

impl Writer {
    pub fn new(id: u32, role: Role, shared: Arc<Shared>) -> Self {
        let random = Random::new(shared.options.seed * 1000 + u64::from(id));
        let writer = if role == Role::Plain { 0 } else { id };
        Self { id, role, shared, random, last: String::new(), stats: WriterStats { writer, ..WriterStats::default() } }
    }

    pub async fn run(mut self) -> WriterStats {
        if let Err(error) = self.work().await {
            match error {
                Error::Io(_) | Error::Driver(_) => self.stats.lost = true,
                // The server shuts down.
                Error::Server(e) if matches!(e.code, 1053 | 3169) => self.stats.lost = true,
                other => {
                    let last: String = self.last.chars().take(300).collect();
                    self.stats
                        .errors
                        .push(format!("writer {} ({:?}): {other}, in or after: {last}", self.id, self.role));
                }
            }
        }
        self.stats
    }

    async fn work(&mut self) -> Result<(), Error> {
        let mut conn = Conn::new(self.shared.connect.clone()).await?;
        match self.role {
            Role::Plain => self.write_plain(&mut conn).await?,
            Role::Steady | Role::Slow => self.write_transactions(&mut conn).await?,
        }
        conn.disconnect().await
    }

    async fn write_transactions(&mut self, conn: &mut Conn) -> Result<(), Error> {
        conn.query_drop(format!("CREATE TEMPORARY TABLE {MAIN}.scratch (a INT PRIMARY KEY, b TEXT)")).await?;
        let mut seq = 1;
        while !self.shared.stop.is_cancelled() {
            let started = Instant::now();
            match self.transaction(conn, seq).await {
                Ok(End::Committed) => {
                    let done = Instant::now();
                    self.stats.commits.push(Acknowledged { seq, started, done });
                    self.shared.committed.fetch_add(1, Ordering::Relaxed);
                    seq += 1;
                }
                Ok(End::RolledBack) => self.stats.rollbacks += 1,
                Err(Error::Server(error)) if matches!(error.code, 1205 | 1213) => {
                    self.stats.retries += 1;
                    conn.query_drop("ROLLBACK").await?;
                }
                Err(error) => return Err(error),
            }
            if self.role == Role::Steady {
                self.stats.slowest = self.stats.slowest.max(started.elapsed());
            }
            tokio::time::sleep(self.shared.options.pause).await;
        }
        Ok(())
    }

    async fn transaction(&mut self, conn: &mut Conn, seq: u64) -> Result<End, Error> {
        let slow = self.role == Role::Slow;
        let begin = if slow { "START TRANSACTION WITH CONSISTENT SNAPSHOT" } else { "BEGIN" };
        conn.query_drop(begin).await?;
        conn.query_drop(format!("INSERT INTO {MAIN}.sequence (writer, seq) VALUES ({}, {seq})", self.id)).await?;
        if slow {
            for round in 0..3 {
                for _ in 0..3 {
                    self.change(conn, true).await?;
                }
                if round < 2 {
                    let rest = Duration::from_millis(300 + self.random.below(1_200));
                    tokio::select! { () = self.shared.stop.cancelled() => (), () = tokio::time::sleep(rest) => () }
                }
            }
        } else {
            self.move_money(conn).await?;
            for _ in 0..2 + self.random.below(5) {
                self.change(conn, false).await?;
            }
        }
        if self.random.chance(10) {
            conn.query_drop("SAVEPOINT half").await?;
            self.change(conn, slow).await?;
            self.change(conn, slow).await?;
            conn.query_drop("ROLLBACK TO SAVEPOINT half").await?;
        }
        if self.random.chance(10) {
            let text = self.random.text(2_000);
            conn.query_drop(format!("REPLACE INTO {MAIN}.scratch VALUES ({seq} % 100, '{text}')")).await?;
        }
        if self.random.chance(if slow { 30 } else { 5 }) {
            conn.query_drop("ROLLBACK").await?;
            return Ok(End::RolledBack);
        }
        conn.query_drop("COMMIT").await?;
        Ok(End::Committed)
    }

    async fn move_money(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let accounts = self.shared.options.accounts;
        let (from, to) = (self.random.below(accounts), self.random.below(accounts));
        let amount = i64::try_from(self.random.below(50)).unwrap();
        // In the order of ids, or writers would mostly wait for each other's deadlocks.
        let mut changes = [(from, -amount), (to, amount)];
        changes.sort_unstable();
        for (account, by) in changes {
            let update =
                format!("UPDATE {MAIN}.accounts SET balance = balance + {by}, moved = NOW(6) WHERE id = {account}");
            conn.query_drop(update).await?;
        }
        Ok(())
    }

    /// One change to any table. A transaction that stays open only inserts: it must not keep others waiting.
    async fn change(&mut self, conn: &mut Conn, insert_only: bool) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let mut kind = self.random.pick(&shared.kinds);
        while insert_only && kind.name.ends_with("`child`") {
            kind = self.random.pick(&shared.kinds);
        }
        let id = 1 + self.random.below(kind.highest.load(Ordering::Relaxed));
        let name = &kind.name;
        self.last = match if insert_only { 0 } else { self.random.below(100) } {
            0..45 => {
                let rows = 1 + self.random.below(4);
                self.last = insert(kind, &mut self.random, rows);
                conn.query_drop(&self.last).await?;
                kind.highest.fetch_max(conn.last_insert_id().unwrap_or(0), Ordering::Relaxed);
                return Ok(());
            }
            45..65 => {
                format!("UPDATE {name} SET {} WHERE id = {id}", (kind.assign)(&mut self.random, kind.longest_body))
            }
            65..75 => {
                let body = self.random.body(kind.longest_body);
                format!("UPDATE {name} SET body = '{body}' WHERE id = {id}")
            }
            75..80 => format!("UPDATE {name} SET body = INSERT(body, 20, 8, 'in place') WHERE id = {id}"),
            80..82 => format!("UPDATE {name} SET body = NULL WHERE id BETWEEN {id} AND {id} + 3"),
            82..98 => format!("DELETE FROM {name} WHERE id = {id}"),
            _ => format!("DELETE FROM {name} WHERE id BETWEEN {id} AND {id} + 10"),
        };
        conn.query_drop(&self.last).await
    }

    async fn write_plain(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let mut next = Vec::new();
        for (table, _) in PLAIN {
            let holder = holder(table);
            let found: Option<Option<u64>> = conn.query_first(format!("SELECT MAX(id) FROM {MAIN}.{holder}")).await?;
            next.push(found.flatten().unwrap_or(0) + 1);
        }
        while !self.shared.stop.is_cancelled() {
            let at = usize::try_from(self.random.below(PLAIN.len() as u64)).unwrap();
            let (table, may_change) = PLAIN[at];
            let (k, len) = (self.random.below(1000), self.random.below(180));
            let text = self.random.text(len);
            let started = Instant::now();
            if may_change && self.random.chance(30) {
                let id = 1 + self.random.below(next[at]);
                let update = format!("UPDATE {MAIN}.{table} SET k = {k}, pad = '{text}' WHERE id = {id}");
                conn.query_drop(update).await?;
            } else {
                let id = next[at];
                conn.query_drop(format!("INSERT INTO {MAIN}.{table} VALUES ({id}, {k}, '{text}')")).await?;
                next[at] = id + 1;
                self.stats.plain_rows.push(PlainRow { table, id, started, done: Instant::now() });
            }
            self.stats.slowest = self.stats.slowest.max(started.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// An insert of some new rows.
pub fn insert(kind: &Kind, random: &mut Random, rows: u64) -> String {
    let row = |_| {
        let (k, len) = (random.below(1000), random.below(250));
        let (pad, body) = (random.text(len), random.body(kind.longest_body));
        format!("({k}, '{pad}', '{body}'{})", (kind.values)(random, kind.longest_body))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO {} (k, pad, body{}) VALUES {}", kind.name, kind.columns, rows.join(", "))
}
