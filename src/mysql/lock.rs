//! The backup lock, on a connection of its own.
//!
//! ```text
//!   acquire   try ≤ 3 s ─ pause ─ try ≤ 3 s ─ …     DDL that comes queues behind a waiting try, so tries are short
//!      │ granted
//!      ├── keeper pings every 5 s ───────────────► lost()
//!      ├── [global read lock]  see read_lock.rs
//!      ├── rotate ─ log_status ─ flush redo         the cut, over the same connection
//!   release   UNLOCK INSTANCE ─ close               or drop: the socket is closed, the server unlocks
//! ```
//! A cancelled wait is also ended by a KILL over a second connection: the server looks for a peer that is gone only
//! when it has an answer to send.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{LockKind, MysqlError, code};
use super::kept::Kept;
use super::log_status::LogStatus;
use super::options::ConnectOptions;
use super::read_lock;
use super::session::{Refusal, Session};
use crate::util::backoff::Backoff;

/// How long one try may make DDL queue.
const TRY_SECONDS: u64 = 3;
/// How long a cancelled wait may take to be killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long the locks were held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockTimes {
    /// DDL could not run.
    pub backup_lock: Duration,
    /// Nothing could be written.
    pub global_read_lock: Duration,
}

/// `LOCK INSTANCE FOR BACKUP`, held.
#[derive(Debug)]
pub struct BackupLock {
    kept: Kept,
    options: ConnectOptions,
    since: Instant,
    visible: bool,
    read_lock: Mutex<ReadLockTimes>,
}

/// The global read lock's share of the time.
#[derive(Debug, Default)]
struct ReadLockTimes {
    since: Option<Instant>,
    sum: Duration,
}

impl ReadLockTimes {
    fn end(&mut self) -> Duration {
        let last = self.since.take().map(|since| since.elapsed()).unwrap_or_default();
        self.sum = self.sum.saturating_add(last);
        last
    }
}

impl BackupLock {
    /// Tries to get the lock for as long as `patience`.
    pub async fn acquire(
        options: &ConnectOptions,
        patience: Duration,
        cancel: &CancellationToken,
    ) -> Result<Self, MysqlError> {
        let act = "lock the instance for backup";
        let session = tokio::select! {
            session = Session::connect(options) => session?,
            () = cancel.cancelled() => return Err(MysqlError::cancelled(act)),
        };
        let mut waiting = Waiting::new(options, session.connection_id());
        let tried = tokio::select! {
            tried = try_until(session, act, patience) => tried,
            () = cancel.cancelled() => Err(MysqlError::cancelled(act)),
        };
        let (mut session, since) = match tried {
            Ok(granted) => granted,
            Err(error) => {
                waiting.end().await;
                return Err(error);
            }
        };
        let visible = sees_backup_lock(&mut session).await?;
        waiting.disarm();
        let kept = Kept::new(session, "keep the backup lock");
        Ok(Self { kept, options: options.clone(), since, visible, read_lock: Mutex::default() })
    }

    /// The locking connection's number.
    pub fn connection_id(&self) -> u32 {
        self.kept.connection_id()
    }

    /// Resolves when the connection, and so the lock, is lost.
    pub fn lost(&self) -> impl Future<Output = MysqlError> + Send + 'static {
        self.kept.lost()
    }

    /// Adds the global read lock: nothing can be written until [`Self::unlock_tables`]. See `read_lock`.
    pub async fn global_read_lock(&self, patience: Duration, cancel: &CancellationToken) -> Result<(), MysqlError> {
        let act = "lock all tables for reading";
        let mut waiting = Waiting::new(&self.options, self.connection_id());
        let tried = tokio::select! {
            tried = read_lock::acquire(&self.kept, &self.options, patience) => tried,
            () = cancel.cancelled() => Err(MysqlError::cancelled(act)),
        };
        match tried {
            Ok(since) => {
                waiting.disarm();
                self.read_lock.lock().await.since = Some(since);
                Ok(())
            }
            Err(error @ MysqlError::LockTimeout { .. }) => {
                waiting.disarm();
                Err(error)
            }
            Err(error) => {
                waiting.end().await;
                Err(error)
            }
        }
    }

    /// Gives back the global read lock and says how long it was held. The backup lock stays.
    pub async fn unlock_tables(&self) -> Result<Duration, MysqlError> {
        self.execute("unlock the tables", "UNLOCK TABLES").await?;
        Ok(self.read_lock.lock().await.end())
    }

    /// Begins a new binary log file.
    pub async fn rotate_binlog(&self) -> Result<(), MysqlError> {
        self.execute("rotate the binary log", "FLUSH NO_WRITE_TO_BINLOG BINARY LOGS").await
    }

    /// Makes the redo up to now readable in its files.
    pub async fn flush_engine_logs(&self) -> Result<(), MysqlError> {
        self.execute("flush the redo log", "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await
    }

    /// The logs at this moment, seen from the locked connection.
    pub async fn log_status(&self) -> Result<LogStatus, MysqlError> {
        LogStatus::read(&mut *self.kept.lock().await).await
    }

    /// Fails unless the lock has been held all the time: it hangs on this connection, which is never made anew.
    pub async fn check_held(&self) -> Result<(), MysqlError> {
        let mut session = self.kept.lock().await;
        if sees_backup_lock(&mut session).await? || !self.visible {
            return Ok(());
        }
        let what = "the backup lock is gone though its connection is not: it was unlocked from outside";
        Err(MysqlError::SourceChanged { what: what.to_owned() })
    }

    /// Gives everything back and says how long it was held.
    pub async fn release(self) -> Result<LockTimes, MysqlError> {
        let unlocked = {
            let mut session = self.kept.lock().await;
            match session.execute("unlock the tables", "UNLOCK TABLES").await {
                Ok(()) => session.execute("unlock the instance", "UNLOCK INSTANCE").await,
                Err(error) => Err(error),
            }
        };
        let backup_lock = self.since.elapsed();
        let mut read_lock = self.read_lock.into_inner();
        read_lock.end();
        self.kept.close().await;
        unlocked?;
        Ok(LockTimes { backup_lock, global_read_lock: read_lock.sum })
    }

    async fn execute(&self, act: &str, sql: &str) -> Result<(), MysqlError> {
        self.kept.lock().await.execute(act, sql).await
    }
}

/// Tries, with pauses, until the lock is granted or the time is up. Returns the session and when the lock began.
async fn try_until(mut session: Session, act: &str, patience: Duration) -> Result<(Session, Instant), MysqlError> {
    let started = Instant::now();
    let mut pauses = Backoff::new(Duration::from_millis(500), Duration::from_secs(2));
    loop {
        let left = patience.saturating_sub(started.elapsed());
        let seconds = left.as_secs().clamp(1, TRY_SECONDS);
        session.execute(act, &format!("SET SESSION lock_wait_timeout={seconds}")).await?;
        let asked = Instant::now();
        let limit = Duration::from_secs(seconds.saturating_add(10));
        match session.try_statement(act, "LOCK INSTANCE FOR BACKUP", limit).await? {
            Ok(()) => return Ok((session, asked)),
            Err(Refusal { code: code::LOCK_WAIT_TIMEOUT, .. }) => {}
            Err(refusal) => return Err(refusal.into_error()),
        }
        let pause = pauses.next_delay();
        if started.elapsed().saturating_add(pause) >= patience {
            let blocker = running_ddl(&mut session).await;
            return Err(MysqlError::LockTimeout { lock: LockKind::Backup, waited: started.elapsed(), blocker });
        }
        tokio::time::sleep(pause).await;
    }
}

/// Who has the backup lock in the mode of DDL, for the message.
async fn running_ddl(session: &mut Session) -> Option<String> {
    let sql = "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_TIME \
               FROM performance_schema.metadata_locks AS l \
               JOIN performance_schema.threads AS t ON t.THREAD_ID = l.OWNER_THREAD_ID \
               WHERE l.OBJECT_TYPE = 'BACKUP LOCK' AND l.LOCK_STATUS = 'GRANTED' \
                 AND l.LOCK_TYPE = 'INTENTION_EXCLUSIVE' ORDER BY t.PROCESSLIST_TIME DESC LIMIT 1";
    let row = session.row("look who holds the backup lock", sql).await.ok()?;
    let [id, user, seconds] = [0, 1, 2].map(|column| row.text(column).unwrap_or("?"));
    Some(format!("DDL of connection {id} (user {user}, running for {seconds} s)"))
}

/// True when the server lists this session's backup lock as granted.
async fn sees_backup_lock(session: &mut Session) -> Result<bool, MysqlError> {
    let sql = "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE OBJECT_TYPE = 'BACKUP LOCK' \
               AND LOCK_STATUS = 'GRANTED' AND OWNER_THREAD_ID = PS_CURRENT_THREAD_ID()";
    let row = session.row("see whether the backup lock is held", sql).await?;
    Ok(row.text_or_empty(0) != "0")
}

/// A connection that may be waiting in the server for a lock, to be killed if the wait is given up, however.
struct Waiting {
    options: ConnectOptions,
    id: Option<u32>,
}

impl Waiting {
    fn new(options: &ConnectOptions, id: u32) -> Self {
        Self { options: options.clone(), id: Some(id) }
    }

    fn disarm(&mut self) {
        self.id = None;
    }

    /// Kills the connection, and waits until that is done or does not work.
    async fn end(&mut self) {
        if let Some(id) = self.id.take() {
            // Whether it worked or not, its socket is closed and its waits are short.
            let _ = timeout(KILL_PATIENCE, Session::kill(&self.options, id)).await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let options = self.options.clone();
            drop(runtime.spawn(async move { timeout(KILL_PATIENCE, Session::kill(&options, id)).await }));
        }
    }
}
