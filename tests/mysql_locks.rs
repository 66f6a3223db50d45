//! Locks on a real server: who waits for whom, and that no way out leaves one behind.
//!
//! How often somebody waited or tried is the server's to count; what is in the way stays there until the test ends it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use stillframe::mysql::{BackupLock, ConnectOptions, DdlWatch, Endpoint, LockKind, MysqlError};
use support::server::{Builder, Server};
use support::wait::{FREED, METADATA_WAITS, SOON, until, within};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(30);

fn options(server: &Server) -> ConnectOptions {
    ConnectOptions::new(Endpoint::Socket(server.socket()), "root")
}

/// A server whose commits do not wait for the disk.
fn quick() -> Builder {
    Server::builder().option("innodb_flush_log_at_trx_commit", 0).option("sync_binlog", 0)
}

async fn a_server() -> Server {
    let server = quick().start().await;
    server
        .sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY, v INT); INSERT INTO d.a VALUES (1, 0), (2, 0)")
        .await;
    server.sql("CREATE TABLE d.b (id INT PRIMARY KEY, v INT); INSERT INTO d.b VALUES (1, 0), (2, 0)").await;
    server.sql("CREATE TABLE d.m (id INT) ENGINE = MyISAM; INSERT INTO d.m VALUES (1)").await;
    server
}

/// Runs a statement with a lock wait timeout of one second; gives back the server's error code.
async fn one_second(server: &Server, sql: &str) -> Result<(), u16> {
    let mut conn = server.connect().await;
    conn.query_drop("SET SESSION lock_wait_timeout = 1").await.unwrap();
    let answer = conn.query_drop(sql).await;
    match answer {
        Ok(()) => Ok(()),
        Err(mysql_async::Error::Server(error)) => Err(error.code),
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// A client whose last statement runs until the test ends it.
struct Client {
    id: u32,
    task: JoinHandle<()>,
}

impl Client {
    async fn runs(&self, server: &Server, statement: &str) -> bool {
        let sql = format!(
            "SELECT COUNT(*) FROM performance_schema.processlist WHERE id = {} AND info = \"{statement}\"",
            self.id
        );
        server.row::<(u64,)>(&sql).await.0 == 1
    }

    async fn end(self, server: &Server) {
        server.sql(&format!("KILL {}", self.id)).await;
        self.task.await.unwrap();
    }
}

/// Runs statements on a connection of their own, in the background, and waits until the last one runs.
async fn background(server: &Server, sql: &'static str) -> Client {
    let mut conn = server.connect().await;
    let id = conn.id();
    let task = tokio::spawn(async move {
        for statement in sql.split(';') {
            conn.query_drop(statement).await.ok();
        }
    });
    let client = Client { id, task };
    let last = sql.rsplit(';').next().unwrap().trim();
    until(last, async || client.runs(server, last).await).await;
    client
}

/// Holds and waits of the backup lock in the mode of backups.
async fn backup_locks(server: &Server) -> u64 {
    let sql = "SELECT COUNT(*) FROM performance_schema.metadata_locks \
               WHERE OBJECT_TYPE = 'BACKUP LOCK' AND LOCK_TYPE = 'SHARED'";
    server.row::<(u64,)>(sql).await.0
}

async fn no_backup_lock(server: &Server) {
    within(FREED, "the backup lock is free", async || backup_locks(server).await == 0).await;
}

/// How often this lock's session asked for the global read lock, each of which may make writers wait.
async fn tries(server: &Server, lock: &BackupLock) -> u64 {
    let sql = format!(
        "SELECT s.COUNT_STAR FROM performance_schema.events_statements_summary_by_thread_by_event_name AS s \
         JOIN performance_schema.threads AS t USING (THREAD_ID) \
         WHERE t.PROCESSLIST_ID = {} AND s.EVENT_NAME = 'statement/sql/flush'",
        lock.connection_id()
    );
    server.row::<(u64,)>(&sql).await.0
}

/// What is held of the global read lock, and how long the session waits for one at most, in seconds.
async fn read_lock_of(server: &Server, lock: &BackupLock) -> (u64, String) {
    let sql = format!(
        "SELECT (SELECT COUNT(*) FROM performance_schema.metadata_locks AS l \
                 WHERE l.OWNER_THREAD_ID = t.THREAD_ID AND l.OBJECT_TYPE IN ('GLOBAL', 'COMMIT')), \
                (SELECT VARIABLE_VALUE FROM performance_schema.variables_by_thread AS v \
                 WHERE v.THREAD_ID = t.THREAD_ID AND v.VARIABLE_NAME = 'lock_wait_timeout') \
         FROM performance_schema.threads AS t WHERE t.PROCESSLIST_ID = {}",
        lock.connection_id()
    );
    server.row(&sql).await
}

/// Writers of two tables.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Writers {
    async fn start(server: &Server) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for table in ["a", "b"] {
            let (mut conn, stop, written) = (server.connect().await, Arc::clone(&stop), Arc::clone(&written));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    conn.query_drop(format!("UPDATE d.{table} SET v = v + 1 WHERE id = 2")).await.unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                conn.query_first::<u64, _>(METADATA_WAITS).await.unwrap().unwrap()
            }));
        }
        Self { stop, written, tasks }
    }

    /// What they have written so far.
    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends them, and says how often each was made to wait for a lock.
    async fn waits(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for task in self.tasks {
            waits.push(task.await.unwrap());
        }
        waits
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_waits_and_dml_does_not() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    for ddl in ["CREATE TABLE d.n (a INT)", "ALTER TABLE d.a COMMENT 'x'", "DROP TABLE d.b", "TRUNCATE TABLE d.a"] {
        assert_eq!(one_second(&server, ddl).await, Err(1205), "{ddl}");
    }
    for dml in ["UPDATE d.a SET v = 1", "INSERT INTO d.m VALUES (2)", "CREATE TEMPORARY TABLE d.tmp (a INT)"] {
        assert_eq!(one_second(&server, dml).await, Ok(()), "{dml}");
    }
    lock.global_read_lock(LONG, &CancellationToken::new()).await.unwrap();
    for dml in ["UPDATE d.a SET v = 2", "INSERT INTO d.m VALUES (3)"] {
        assert_eq!(one_second(&server, dml).await, Err(1205), "{dml}");
    }
    let held = lock.unlock_tables().await.unwrap();
    assert_eq!(one_second(&server, "UPDATE d.a SET v = 2").await, Ok(()));
    assert_eq!(one_second(&server, "DROP TABLE d.b").await, Err(1205), "the backup lock stays");
    lock.check_held().await.unwrap();
    let times = lock.release().await.unwrap();
    assert_eq!(times.global_read_lock, held);
    assert!(held > Duration::from_secs(2) && times.backup_lock > held, "{times:?}");
    assert_eq!(one_second(&server, "DROP TABLE d.b").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backup_lock_is_given_up_in_time_and_names_who_is_in_the_way() {
    let server = a_server().await;
    // DDL that waits for an open transaction has the backup lock in its own mode.
    let transaction = background(&server, "BEGIN; SELECT * FROM d.a; DO SLEEP(1000)").await;
    let alter = "ALTER TABLE d.a ADD COLUMN w INT";
    let ddl = background(&server, alter).await;
    let (options, cancel) = (options(&server), CancellationToken::new());
    let error = BackupLock::acquire(&options, Duration::from_secs(4), &cancel).await.unwrap_err();
    let MysqlError::LockTimeout { lock: LockKind::Backup, blocker, .. } = &error else { panic!("{error:?}") };
    assert!(blocker.as_ref().unwrap().contains("DDL of connection"), "{error}");
    assert!(ddl.runs(&server, alter).await, "it gave up before the DDL did");
    assert_eq!(backup_locks(&server).await, 0, "nobody is queued");
    assert_eq!(one_second(&server, "CREATE TABLE d.n (a INT)").await, Ok(()));
    // With patience it comes once the DDL has ended.
    let (lock, ()) = tokio::join!(BackupLock::acquire(&options, SOON, &cancel), async {
        until("it waits", async || backup_locks(&server).await == 1).await;
        transaction.end(&server).await;
    });
    lock.unwrap().release().await.unwrap();
    ddl.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_leaves_nobody_in_the_queue() {
    let server = a_server().await;
    let transaction = background(&server, "BEGIN; SELECT * FROM d.a; DO SLEEP(1000)").await;
    let ddl = background(&server, "ALTER TABLE d.a ADD COLUMN w INT").await;
    let kills =
        async || server.row::<(String, String)>("SHOW GLOBAL STATUS LIKE 'Com_kill'").await.1.parse::<u64>().unwrap();
    for by_token in [true, false] {
        let (cancel, options) = (CancellationToken::new(), options(&server));
        let waits = tokio::spawn({
            let cancel = cancel.clone();
            async move { BackupLock::acquire(&options, SOON * 2, &cancel).await }
        });
        until("it waits", async || backup_locks(&server).await == 1).await;
        let before = kills().await;
        if by_token {
            cancel.cancel();
            let error = waits.await.unwrap().unwrap_err();
            assert!(matches!(error, MysqlError::Cancelled { .. }), "{error:?}");
        } else {
            waits.abort();
        }
        // The server would let it wait for some seconds more.
        until("the wait is killed", async || kills().await > before).await;
        no_backup_lock(&server).await;
    }
    transaction.end(&server).await;
    ddl.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_lock_and_a_dead_runtime_free_it_at_once() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    lock.global_read_lock(LONG, &CancellationToken::new()).await.unwrap();
    drop(lock);
    no_backup_lock(&server).await;
    assert_eq!(one_second(&server, "UPDATE d.a SET v = 2").await, Ok(()));

    // As far as the server can tell, this is a process that was killed.
    let options = options(&server);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let lock = runtime.block_on(BackupLock::acquire(&options, LONG, &CancellationToken::new())).unwrap();
        runtime.shutdown_background();
        drop(lock);
    })
    .join()
    .unwrap();
    no_backup_lock(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_is_noticed() {
    let mut server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let lost = lock.lost();
    server.sql(&format!("KILL {}", lock.connection_id())).await;
    let error = tokio::time::timeout(SOON, lost).await.expect("the keeper sees it");
    assert!(matches!(error, MysqlError::Connection { .. }), "{error:?}");
    lock.check_held().await.unwrap_err();
    lock.release().await.unwrap_err();

    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let lost = lock.lost();
    server.kill9();
    tokio::time::timeout(SOON, lost).await.expect("the keeper sees that the server is gone");
}

/// The server closes connections that are silent for 30 s; the one with the lock must not be, whatever it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_outlives_the_servers_patience_with_silent_connections() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let query = background(&server, "SELECT SLEEP(34) FROM d.a WHERE id = 1").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    lock.global_read_lock(SOON * 2, &CancellationToken::new()).await.unwrap();
    query.task.await.unwrap();
    lock.check_held().await.unwrap();
    let times = lock.release().await.unwrap();
    assert!(times.backup_lock > Duration::from_secs(33), "{times:?}");
    assert!(times.global_read_lock < times.backup_lock / 2, "nobody could write while it waited: {times:?}");
}

/// The trap of the global read lock: a try that fails behind a long query leaves that query's tables closed to all
/// others until it ends.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_stalls_behind_a_read_lock_that_a_long_query_is_in_the_way_of() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    for long in ["SELECT SLEEP(1000) FROM d.a WHERE id = 1", "LOCK TABLES d.a READ; DO SLEEP(1000)"] {
        let before = tries(&server, &lock).await;
        let locks_tables = long.starts_with("LOCK");
        let query = background(&server, long).await;
        // Until it is no statement any more that may end in a moment.
        tokio::time::sleep(Duration::from_millis(400)).await;
        // LOCK TABLES itself holds back writers of its table.
        let writers = if locks_tables { None } else { Some(Writers::start(&server).await) };
        let error = lock.global_read_lock(Duration::from_secs(3), &CancellationToken::new()).await.unwrap_err();
        let MysqlError::LockTimeout { lock: LockKind::GlobalRead, blocker, .. } = &error else { panic!("{error:?}") };
        assert!(blocker.as_ref().unwrap().contains("connection"), "{error}");
        assert_eq!(tries(&server, &lock).await, before, "nothing is tried that cannot be had");
        let reads = one_second(&server, "SELECT * FROM d.a").await;
        assert_eq!(reads, Ok(()), "the table is open to others");
        if let Some(writers) = writers {
            assert_eq!(writers.waits().await, [0, 0], "writers stalled");
        }
        // With patience it is granted once the query has ended.
        let cancel = CancellationToken::new();
        let (granted, ()) = tokio::join!(lock.global_read_lock(SOON, &cancel), query.end(&server));
        granted.unwrap();
        lock.unlock_tables().await.unwrap();
    }
    lock.check_held().await.unwrap();
    lock.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_behind_a_writer_is_short_and_leaves_nothing() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let writers = Writers::start(&server).await;
    let long = background(&server, "UPDATE d.a SET v = v + SLEEP(1000) WHERE id = 1").await;
    let error = lock.global_read_lock(Duration::from_secs(3), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, MysqlError::LockTimeout { .. }), "{error:?}");
    // Where it began within the moment before the first look, there was one, and none behind the pause that followed.
    let tries = tries(&server, &lock).await;
    assert!(tries <= 1, "{tries} tries");
    assert_eq!(read_lock_of(&server, &lock).await, (0, "1".to_owned()), "nothing of the read lock is held");
    assert!(writers.waits().await.iter().all(|waits| *waits <= tries));
    long.end(&server).await;
    // A transaction that is open but idle is in nobody's way.
    let idle = "DO SLEEP(1000)";
    let open = background(&server, "BEGIN; UPDATE d.a SET v = 9 WHERE id = 1; DO SLEEP(1000)").await;
    lock.global_read_lock(SOON, &CancellationToken::new()).await.unwrap();
    assert!(open.runs(&server, idle).await, "it was not waited for");
    lock.release().await.unwrap();
    open.task.abort();
}

/// A lock for writing that is idle is in the way of the first part only: tries are made, and each is short.
#[tokio::test(flavor = "multi_thread")]
async fn tries_that_fail_are_short_and_few() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let mut holder = server.connect().await;
    holder.query_drop("LOCK TABLES d.m WRITE").await.unwrap();
    let writers = Writers::start(&server).await;
    let cancel = CancellationToken::new();
    let (outcome, before) = tokio::join!(lock.global_read_lock(Duration::from_secs(20), &cancel), async {
        until("the first try", async || tries(&server, &lock).await > 0).await;
        writers.written()
    });
    let written = writers.written() - before;
    let error = outcome.unwrap_err();
    let MysqlError::LockTimeout { blocker, .. } = &error else { panic!("{error:?}") };
    assert!(blocker.as_ref().unwrap().contains("LOCK TABLES"), "{error}");
    // The pauses between them, 2, 4 and 8 s, leave room for four; one that lasted would leave none for another.
    let tries = tries(&server, &lock).await;
    assert!((2..=4).contains(&tries), "{tries} tries");
    assert_eq!(read_lock_of(&server, &lock).await, (0, "1".to_owned()), "nothing is held, and waits are short");
    assert!(written > 50, "the writers wrote {written} times between the tries");
    let waits = writers.waits().await;
    assert!(waits.iter().all(|waits| (1..=tries).contains(waits)), "{waits:?} waits behind {tries} tries");
    lock.check_held().await.unwrap();

    // Cancelled in the middle of a try: the connection goes, and with it both locks.
    let (outcome, ()) = tokio::join!(lock.global_read_lock(SOON * 5, &cancel), async {
        let waiting =
            "SELECT COUNT(*) FROM performance_schema.processlist WHERE state = 'Waiting for global read lock'";
        until("a try", async || server.row::<(u64,)>(waiting).await.0 == 1).await;
        cancel.cancel();
    });
    assert!(matches!(outcome, Err(MysqlError::Cancelled { .. })), "{outcome:?}");
    no_backup_lock(&server).await;
    assert_eq!(one_second(&server, "UPDATE d.a SET v = 3").await, Ok(()));
    lock.check_held().await.unwrap_err();
}

/// Where the server does not show who uses tables, the age of any statement has to do.
#[tokio::test(flavor = "multi_thread")]
async fn long_queries_are_seen_without_instruments() {
    let server = quick().option("performance-schema-instrument", "wait/lock/table/sql/handler=OFF").start().await;
    server.sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY, v INT); INSERT INTO d.a VALUES (1, 0)").await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let query = background(&server, "SELECT SLEEP(1000) FROM d.a WHERE id = 1").await;
    // Ages are whole seconds here.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let error = lock.global_read_lock(Duration::from_secs(2), &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("is in the way"), "{error}");
    assert_eq!(tries(&server, &lock).await, 0, "nothing is tried that cannot be had");
    assert_eq!(one_second(&server, "UPDATE d.a SET v = 3").await, Ok(()));
    let cancel = CancellationToken::new();
    let (granted, ()) = tokio::join!(lock.global_read_lock(SOON, &cancel), query.end(&server));
    granted.unwrap();
    lock.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_read_lock_gives_everything_back() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let query = background(&server, "SELECT SLEEP(1000) FROM d.a WHERE id = 1").await;
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(lock.global_read_lock(SOON * 5, &cancel), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cancel.cancel();
    });
    assert!(matches!(outcome, Err(MysqlError::Cancelled { .. })), "{outcome:?}");
    drop(lock);
    no_backup_lock(&server).await;
    query.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ddl_is_seen_and_the_budget_ends_it() {
    let server = a_server().await;
    let options = options(&server);
    let lock = BackupLock::acquire(&options, LONG, &CancellationToken::new()).await.unwrap();
    let free = DdlWatch::start(&options, None).await.unwrap();
    let watch = DdlWatch::start(&options, Some(Duration::from_secs(2))).await.unwrap();
    let exceeded = watch.exceeded();
    // Another backup's wait is not DDL's.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(watch.waited(), Duration::ZERO);
    let ddl = background(&server, "CREATE TABLE d.n (a INT)").await;
    let error = tokio::time::timeout(SOON, exceeded).await.expect("the budget is used up");
    assert!(matches!(error, MysqlError::DdlWaitBudget { .. }), "{error:?}");
    assert!(watch.stop().await > Duration::from_secs(2));
    lock.release().await.unwrap();
    ddl.task.await.unwrap();
    assert!(free.stop().await > Duration::from_secs(2));
}
