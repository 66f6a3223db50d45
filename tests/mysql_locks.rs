//! Locks on a real server: who waits for whom and for how long, and that no way out leaves one behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use stillframe::mysql::{BackupLock, ConnectOptions, DdlWatch, Endpoint, LockKind, MysqlError};
use support::server::Server;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(30);

fn options(server: &Server) -> ConnectOptions {
    ConnectOptions::new(Endpoint::Socket(server.socket()), "root")
}

async fn a_server() -> Server {
    let server = Server::builder().start().await;
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

/// Runs statements on a connection of their own, in the background, and waits until the last one runs.
async fn background(server: &Server, sql: &'static str) -> JoinHandle<()> {
    let mut conn = server.connect().await;
    let id = conn.id();
    let task = tokio::spawn(async move {
        for statement in sql.split(';') {
            conn.query_drop(statement).await.ok();
        }
    });
    let last = sql.rsplit(';').next().unwrap().trim();
    let sees = format!("SELECT COUNT(*) FROM performance_schema.processlist WHERE id = {id} AND info = \"{last}\"");
    until(Duration::from_secs(5), async || server.row::<(u64,)>(&sees).await.0 == 1).await;
    task
}

/// Waits until something is so, and panics when it does not come.
async fn until(limit: Duration, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < limit, "it did not come within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn backup_locks(server: &Server) -> u64 {
    let sql = "SELECT COUNT(*) FROM performance_schema.metadata_locks \
               WHERE OBJECT_TYPE = 'BACKUP LOCK' AND LOCK_TYPE = 'SHARED'";
    server.row::<(u64,)>(sql).await.0
}

/// Writers of two tables, and the longest that one statement of theirs took.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Duration>>,
}

impl Writers {
    async fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for table in ["a", "b"] {
            let (mut conn, stop) = (server.connect().await, Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    conn.query_drop(format!("UPDATE d.{table} SET v = v + 1 WHERE id = 2")).await.unwrap();
                    longest = longest.max(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                longest
            }));
        }
        Self { stop, tasks }
    }

    async fn longest_stall(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for task in self.tasks {
            longest = longest.max(task.await.unwrap());
        }
        longest
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
    let transaction = background(&server, "BEGIN; SELECT * FROM d.a; DO SLEEP(12)").await;
    let ddl = background(&server, "ALTER TABLE d.a ADD COLUMN w INT").await;
    let began = Instant::now();
    let error =
        BackupLock::acquire(&options(&server), Duration::from_secs(4), &CancellationToken::new()).await.unwrap_err();
    let MysqlError::LockTimeout { lock: LockKind::Backup, blocker, .. } = &error else { panic!("{error:?}") };
    assert!(blocker.as_ref().unwrap().contains("DDL of connection"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(backup_locks(&server).await, 0, "nobody is queued");
    assert_eq!(one_second(&server, "CREATE TABLE d.n (a INT)").await, Ok(()));
    // With patience it comes once the DDL has ended.
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    lock.release().await.unwrap();
    transaction.abort();
    ddl.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_leaves_nobody_in_the_queue() {
    let server = a_server().await;
    let transaction = background(&server, "BEGIN; SELECT * FROM d.a; DO SLEEP(20)").await;
    let ddl = background(&server, "ALTER TABLE d.a ADD COLUMN w INT").await;
    for by_token in [true, false] {
        let (cancel, options) = (CancellationToken::new(), options(&server));
        let waits = tokio::spawn({
            let cancel = cancel.clone();
            async move { BackupLock::acquire(&options, LONG, &cancel).await }
        });
        until(Duration::from_secs(5), async || backup_locks(&server).await == 1).await;
        let began = Instant::now();
        if by_token {
            cancel.cancel();
            let error = waits.await.unwrap().unwrap_err();
            assert!(matches!(error, MysqlError::Cancelled { .. }), "{error:?}");
        } else {
            waits.abort();
        }
        until(Duration::from_secs(1), async || backup_locks(&server).await == 0).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    transaction.abort();
    ddl.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_lock_and_a_dead_runtime_free_it_at_once() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    lock.global_read_lock(LONG, &CancellationToken::new()).await.unwrap();
    drop(lock);
    until(Duration::from_secs(1), async || backup_locks(&server).await == 0).await;
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
    until(Duration::from_secs(1), async || backup_locks(&server).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_is_noticed() {
    let mut server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let lost = lock.lost();
    server.sql(&format!("KILL {}", lock.connection_id())).await;
    let error = tokio::time::timeout(Duration::from_secs(8), lost).await.expect("the keeper sees it");
    assert!(matches!(error, MysqlError::Connection { .. }), "{error:?}");
    lock.check_held().await.unwrap_err();
    lock.release().await.unwrap_err();

    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let lost = lock.lost();
    server.kill9();
    tokio::time::timeout(Duration::from_secs(8), lost).await.expect("the keeper sees that the server is gone");
}

/// The server closes connections that are silent for 30 s; the one with the lock must not be, whatever it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_outlives_the_servers_patience_with_silent_connections() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let query = background(&server, "SELECT SLEEP(34) FROM d.a WHERE id = 1").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    lock.global_read_lock(Duration::from_mins(1), &CancellationToken::new()).await.unwrap();
    query.await.unwrap();
    lock.check_held().await.unwrap();
    let times = lock.release().await.unwrap();
    assert!(
        times.backup_lock > Duration::from_secs(33) && times.global_read_lock < Duration::from_secs(5),
        "{times:?}"
    );
}

/// The trap of the global read lock: a try that fails behind a long query leaves that query's tables closed to all
/// others until it ends.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_stalls_behind_a_read_lock_that_a_long_query_is_in_the_way_of() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    for long in ["SELECT SLEEP(7) FROM d.a WHERE id = 1", "LOCK TABLES d.a READ; DO SLEEP(7)"] {
        let locks_tables = long.starts_with("LOCK");
        let query = background(&server, long).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        // LOCK TABLES itself holds back writers of its table.
        let writers = if locks_tables { None } else { Some(Writers::start(&server).await) };
        let error = lock.global_read_lock(Duration::from_secs(3), &CancellationToken::new()).await.unwrap_err();
        let MysqlError::LockTimeout { lock: LockKind::GlobalRead, blocker, waited } = &error else {
            panic!("{error:?}")
        };
        assert!(blocker.as_ref().unwrap().contains("connection"), "{error}");
        assert!(*waited < Duration::from_secs(5), "{waited:?}");
        let reads = one_second(&server, "SELECT * FROM d.a").await;
        assert_eq!(reads, Ok(()), "the table is open to others");
        if let Some(writers) = writers {
            let stall = writers.longest_stall().await;
            assert!(stall < Duration::from_secs(1), "a writer stalled for {stall:?}");
        }
        // With patience it is granted once the query has ended.
        lock.global_read_lock(LONG, &CancellationToken::new()).await.unwrap();
        lock.unlock_tables().await.unwrap();
        query.await.unwrap();
    }
    lock.check_held().await.unwrap();
    lock.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_behind_a_writer_is_short_and_leaves_nothing() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let writers = Writers::start(&server).await;
    // Each row takes a moment, so that the statement is young again for those who look at its age too late.
    let long = background(&server, "UPDATE d.a SET v = v + SLEEP(6) WHERE id = 1").await;
    let error = lock.global_read_lock(Duration::from_secs(3), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, MysqlError::LockTimeout { .. }), "{error:?}");
    let sql = format!(
        "SELECT COUNT(*) FROM performance_schema.metadata_locks AS l JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = l.OWNER_THREAD_ID WHERE t.PROCESSLIST_ID = {} AND l.OBJECT_TYPE IN ('GLOBAL', 'COMMIT')",
        lock.connection_id()
    );
    assert_eq!(server.row::<(u64,)>(&sql).await.0, 0, "nothing of the read lock is held");
    assert!(writers.longest_stall().await < Duration::from_secs(2));
    // A transaction that is open but idle is in nobody's way.
    long.await.unwrap();
    let open = background(&server, "BEGIN; UPDATE d.a SET v = 9 WHERE id = 1; DO SLEEP(5)").await;
    let began = Instant::now();
    lock.global_read_lock(LONG, &CancellationToken::new()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    lock.release().await.unwrap();
    open.abort();
}

/// A lock for writing that is idle is in the way of the first part only: tries are made, and each is short.
#[tokio::test(flavor = "multi_thread")]
async fn tries_that_fail_are_short_and_few() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let mut holder = server.connect().await;
    holder.query_drop("LOCK TABLES d.m WRITE").await.unwrap();
    let writers = Writers::start(&server).await;
    let error = lock.global_read_lock(Duration::from_secs(8), &CancellationToken::new()).await.unwrap_err();
    let MysqlError::LockTimeout { blocker, .. } = &error else { panic!("{error:?}") };
    assert!(blocker.as_ref().unwrap().contains("LOCK TABLES"), "{error}");
    let stall = writers.longest_stall().await;
    assert!(stall > Duration::from_millis(500), "no try was made: {stall:?}");
    assert!(stall < Duration::from_secs(2), "{stall:?}");
    let sql = format!(
        "SELECT COUNT(*) FROM performance_schema.metadata_locks AS l JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = l.OWNER_THREAD_ID WHERE t.PROCESSLIST_ID = {} AND l.OBJECT_TYPE IN ('GLOBAL', 'COMMIT')",
        lock.connection_id()
    );
    assert_eq!(server.row::<(u64,)>(&sql).await.0, 0, "nothing of the read lock is held");
    lock.check_held().await.unwrap();

    // Cancelled in the middle of a try: the connection goes, and with it both locks.
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(lock.global_read_lock(LONG, &cancel), async {
        let waiting =
            "SELECT COUNT(*) FROM performance_schema.processlist WHERE state = 'Waiting for global read lock'";
        until(Duration::from_secs(5), async || server.row::<(u64,)>(waiting).await.0 == 1).await;
        cancel.cancel();
    });
    assert!(matches!(outcome, Err(MysqlError::Cancelled { .. })), "{outcome:?}");
    assert_eq!(one_second(&server, "UPDATE d.a SET v = 3").await, Ok(()));
    until(Duration::from_secs(1), async || backup_locks(&server).await == 0).await;
    lock.check_held().await.unwrap_err();
}

/// Where the server does not show who uses tables, the age of any statement has to do.
#[tokio::test(flavor = "multi_thread")]
async fn long_queries_are_seen_without_instruments() {
    let server =
        Server::builder().option("performance-schema-instrument", "wait/lock/table/sql/handler=OFF").start().await;
    server.sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY, v INT); INSERT INTO d.a VALUES (1, 0)").await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let query = background(&server, "SELECT SLEEP(6) FROM d.a WHERE id = 1").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let error = lock.global_read_lock(Duration::from_secs(2), &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("is in the way"), "{error}");
    assert_eq!(one_second(&server, "UPDATE d.a SET v = 3").await, Ok(()));
    lock.global_read_lock(LONG, &CancellationToken::new()).await.unwrap();
    lock.release().await.unwrap();
    query.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_read_lock_gives_everything_back() {
    let server = a_server().await;
    let lock = BackupLock::acquire(&options(&server), LONG, &CancellationToken::new()).await.unwrap();
    let query = background(&server, "SELECT SLEEP(8) FROM d.a WHERE id = 1").await;
    let cancel = CancellationToken::new();
    let began = Instant::now();
    let (outcome, ()) = tokio::join!(lock.global_read_lock(LONG, &cancel), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cancel.cancel();
    });
    assert!(matches!(outcome, Err(MysqlError::Cancelled { .. })), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_millis(1700), "{:?}", began.elapsed());
    drop(lock);
    until(Duration::from_secs(1), async || backup_locks(&server).await == 0).await;
    query.abort();
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
    let error = tokio::time::timeout(Duration::from_secs(8), exceeded).await.expect("the budget is used up");
    assert!(matches!(error, MysqlError::DdlWaitBudget { .. }), "{error:?}");
    assert!(watch.stop().await > Duration::from_secs(2));
    lock.release().await.unwrap();
    ddl.await.unwrap();
    assert!(free.stop().await > Duration::from_secs(2));
}
