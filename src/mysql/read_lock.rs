//! The global read lock, asked for so that nobody waits behind it for long.
//!
//! ```text
//!   FLUSH TABLES WITH READ LOCK   1 no new writers ─ 2 close all tables ─ 3 no commits
//!                                   waits for running   waits for every
//!                                   writers             statement that uses a table
//! ```
//! A try that fails in part 1 is over when it fails. One that fails in part 2 is not (measured on MySQL 9.7.4): the
//! tables that a long statement uses stay closed to all others until that statement ends, whatever becomes of the
//! try, even if its connection is killed. So a try is made only while no statement that uses tables is older than
//! [`OLD_STATEMENT_MS`]; a long query is waited for before, not behind, the lock. What remains is a statement that
//! began in that last moment and then runs long.
//!
//! Each try waits at most one second in each part, and is killed after [`TRY_PATIENCE`] as a whole.

use std::time::{Duration, Instant};

use super::error::{LockKind, MysqlError, code};
use super::options::ConnectOptions;
use super::session::{Refusal, Session};

/// A statement older than this is not likely to end within a try.
const OLD_STATEMENT_MS: u32 = 200;
/// How long one try may take.
const TRY_PATIENCE: Duration = Duration::from_millis(1500);
/// How often to look whether a try would succeed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The first pause after a try that failed; doubled each time, so that the stalls are a small share of the time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const ACT: &str = "lock all tables for reading";

/// Gets the lock on `session` within `patience`. Returns since when nothing could be written.
///
/// When this fails, no part of the lock is held; when it is dropped half-way, the session must be closed.
pub(super) async fn acquire(
    session: &mut Session,
    options: &ConnectOptions,
    patience: Duration,
) -> Result<Instant, MysqlError> {
    let started = Instant::now();
    let mut observer = Session::connect(options).await?;
    let mut pause = FIRST_PAUSE;
    session.execute(ACT, "SET SESSION lock_wait_timeout=1").await?;
    loop {
        let mut blocker = long_statement(&mut observer, session.connection_id()).await?;
        let next = if blocker.is_none() {
            let asked = Instant::now();
            if try_once(session, &mut observer).await? {
                observer.close().await;
                return Ok(asked);
            }
            blocker = long_statement(&mut observer, session.connection_id()).await?;
            let next = pause;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            next
        } else {
            LOOK_INTERVAL
        };
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

/// Somebody whose use of a table would make a try fail: a statement that runs for some time already, or tables
/// locked between two statements.
async fn long_statement(observer: &mut Session, own: u32) -> Result<Option<String>, MysqlError> {
    let sql = format!(
        "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, ROUND(e.TIMER_WAIT / 1000000000000, 1) \
         FROM performance_schema.table_handles AS h \
         JOIN performance_schema.threads AS t ON t.THREAD_ID = h.OWNER_THREAD_ID \
         LEFT JOIN performance_schema.events_statements_current AS e \
           ON e.THREAD_ID = t.THREAD_ID AND e.END_EVENT_ID IS NULL AND e.NESTING_EVENT_LEVEL = 0 \
         WHERE h.OWNER_THREAD_ID <> 0 AND t.PROCESSLIST_ID NOT IN (CONNECTION_ID(), {own}) \
           AND (e.TIMER_WAIT > {OLD_STATEMENT_MS} * 1000000000 \
                OR (e.TIMER_WAIT IS NULL AND COALESCE(h.EXTERNAL_LOCK, '') <> 'WRITE EXTERNAL')) \
         ORDER BY e.TIMER_WAIT DESC LIMIT 1"
    );
    let rows = observer.rows("look who uses tables", &sql).await?;
    Ok(rows.first().map(|row| {
        let [id, user] = [0, 1].map(|column| row.text(column).unwrap_or("?"));
        match row.text(2) {
            Some(seconds) => format!("a statement of connection {id} (user {user}, running for {seconds} s)"),
            None => format!("connection {id} (user {user}) with LOCK TABLES"),
        }
    }))
}
