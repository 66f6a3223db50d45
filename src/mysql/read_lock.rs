//! The global read lock, asked for so that nobody waits behind it for long.
//!
//! ```text
//!   FLUSH TABLES WITH READ LOCK   1 no new writers ─ 2 close all tables ─ 3 no commits
//!                                   waits for running   waits for every
//!                                   writers             statement that uses a table
//! ```
//! A try that fails in part 1 is over when it fails. One that fails in part 2 is not (measured on MySQL 9.7.4): the
//! tables that a long statement uses stay closed to all others until that statement ends, whatever becomes of the
//! try, even if its connection is killed. So a try is made only while no statement that uses tables is older than a
//! moment; a long query is waited for before, not behind, the lock. What remains is a statement that began in that
//! moment and then runs long: the moment is as short as the server's load lets it be.
//!
//! Each try waits at most one second in each part, and is killed after [`TRY_PATIENCE`] as a whole.

use std::time::{Duration, Instant};

use super::error::{LockKind, MysqlError, code};
use super::kept::Kept;
use super::options::ConnectOptions;
use super::session::{Refusal, Session};

/// A statement older than this is not likely to end within a try. The first is asked for in the first half of the
/// time, the second then: on a busy server there may always be a statement that is a little older.
const OLD_STATEMENT_MS: [u32; 2] = [20, 200];
/// How long one try may take.
const TRY_PATIENCE: Duration = Duration::from_millis(1500);
/// How often to look whether a try would succeed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The first pause after a try that failed; doubled each time, so that the stalls are a small share of the time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between tries; the observer is silent as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const ACT: &str = "lock all tables for reading";

/// Gets the lock on a kept connection within `patience`; between two tries its keeper may ping. Returns since when nothing could be written.
///
/// When this fails, no part of the lock is held; when it is dropped half-way, the session must be closed.
pub(super) async fn acquire(kept: &Kept, options: &ConnectOptions, patience: Duration) -> Result<Instant, MysqlError> {
    let started = Instant::now();
    let mut observer = Observer::connect(options, kept.connection_id()).await?;
    let mut pause = FIRST_PAUSE;
    kept.lock().await.execute(ACT, "SET SESSION lock_wait_timeout=1").await?;
    loop {
        let [strict, lenient] = OLD_STATEMENT_MS;
        let old = if started.elapsed() < patience / 2 { strict } else { lenient };
        let mut blocker = observer.long_statement(old).await?;
        let mut next = LOOK_INTERVAL;
        if blocker.is_none() {
            let asked = Instant::now();
            if try_once(&mut *kept.lock().await, &mut observer.session).await? {
                observer.session.close().await;
                return Ok(asked);
            }
            blocker = observer.user_since_before(asked.elapsed()).await?;
            next = pause;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
        if started.elapsed().saturating_add(next) >= patience {
            return Err(MysqlError::LockTimeout { lock: LockKind::GlobalRead, waited: started.elapsed(), blocker });
        }
        tokio::time::sleep(next).await;
    }
}

/// One try. False when it was not granted; then nothing of it is held.
async fn try_once(session: &mut Session, observer: &mut Session) -> Result<bool, MysqlError> {
    let id = session.connection_id();
    let limit = Duration::from_secs(20);
    let answer = {
        let lock = session.try_statement(ACT, "FLUSH TABLES WITH READ LOCK", limit);
        tokio::pin!(lock);
        tokio::select! {
            answer = &mut lock => answer,
            () = tokio::time::sleep(TRY_PATIENCE) => {
                observer.kill_query(id).await?;
                lock.await
            }
        }
    };
    match answer? {
        Ok(()) => return Ok(true),
        Err(Refusal { code: code::LOCK_WAIT_TIMEOUT | code::QUERY_INTERRUPTED, .. }) => {}
        Err(refusal) => return Err(refusal.into_error()),
    }
    // A try that failed in part 2 may have kept part 1.
    session.execute(ACT, "UNLOCK TABLES").await?;
    Ok(false)
}

/// Looks who would be in the way, over a connection of its own.
struct Observer {
    session: Session,
    own: u32,
    sees_tables: bool,
}

const LOOK: &str = "look who uses tables";

impl Observer {
    async fn connect(options: &ConnectOptions, own: u32) -> Result<Self, MysqlError> {
        let mut session = Session::connect(options).await?;
        let sql = "SELECT COUNT(*) FROM performance_schema.setup_instruments \
                   WHERE NAME = 'wait/lock/table/sql/handler' AND ENABLED = 'YES'";
        let sees_tables = session.row(LOOK, sql).await?.text_or_empty(0) != "0";
        Ok(Self { session, own, sees_tables })
    }

    /// Somebody whose use of a table would make a try fail in part 2: a statement older than `old_ms`, or tables
    /// locked between two statements. Who only writes is held off in part 1, so a replica's applier, which may have
    /// its tables open all the time, does not count.
    async fn long_statement(&mut self, old_ms: u32) -> Result<Option<String>, MysqlError> {
        let reads = "COALESCE(h.EXTERNAL_LOCK, '') <> 'WRITE EXTERNAL'";
        if self.sees_tables {
            let old = format!("e.TIMER_WAIT > {old_ms} * 1000000000");
            let user = "COALESCE(t.PROCESSLIST_USER, '') <> 'system user'";
            self.table_user(&format!("({old} AND ({user} OR {reads})) OR (e.TIMER_WAIT IS NULL AND {reads})")).await
        } else {
            self.statement().await
        }
    }

    /// Somebody who uses a table for longer than the try took: not one who only waited behind it.
    async fn user_since_before(&mut self, try_took: Duration) -> Result<Option<String>, MysqlError> {
        if self.sees_tables {
            let took_ms = try_took.as_millis();
            self.table_user(&format!("e.TIMER_WAIT IS NULL OR e.TIMER_WAIT > {took_ms} * 1000000000")).await
        } else {
            self.statement().await
        }
    }

    async fn table_user(&mut self, which: &str) -> Result<Option<String>, MysqlError> {
        let own = self.own;
        let sql = format!(
            "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, ROUND(e.TIMER_WAIT / 1000000000000, 1) \
             FROM performance_schema.table_handles AS h \
             JOIN performance_schema.threads AS t ON t.THREAD_ID = h.OWNER_THREAD_ID \
             LEFT JOIN performance_schema.events_statements_current AS e \
               ON e.THREAD_ID = t.THREAD_ID AND e.END_EVENT_ID IS NULL AND e.NESTING_EVENT_LEVEL = 0 \
             WHERE h.OWNER_THREAD_ID <> 0 AND t.PROCESSLIST_ID NOT IN (CONNECTION_ID(), {own}) AND ({which}) \
             ORDER BY e.TIMER_WAIT DESC LIMIT 1"
        );
        self.first(&sql).await
    }

    /// On a server that does not show who uses tables: any statement that runs for a second or more.
    async fn statement(&mut self) -> Result<Option<String>, MysqlError> {
        let own = self.own;
        let sql = format!(
            "SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_TIME FROM performance_schema.threads \
             WHERE PROCESSLIST_COMMAND IN ('Query', 'Execute') AND PROCESSLIST_TIME >= 1 \
               AND PROCESSLIST_USER <> 'system user' AND PROCESSLIST_ID NOT IN (CONNECTION_ID(), {own}) \
             ORDER BY PROCESSLIST_TIME DESC LIMIT 1"
        );
        self.first(&sql).await
    }

    async fn first(&mut self, sql: &str) -> Result<Option<String>, MysqlError> {
        let rows = self.session.rows(LOOK, sql).await?;
        Ok(rows.first().map(|row| {
            let [id, user] = [0, 1].map(|column| row.text(column).unwrap_or("?"));
            match row.text(2) {
                Some(seconds) => format!("a statement of connection {id} (user {user}, running for {seconds} s)"),
                None => format!("connection {id} (user {user}) with LOCK TABLES"),
            }
        }))
    }
}
