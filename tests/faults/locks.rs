//! Locks as clients of the server feel them: who waits for whom, and who does not.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stillframe::ops::error::ErrorKind;

use crate::help::{Blocked, Writer, assert_no_backup, background, locks_left, small, write_redo};
use crate::support::server::{Builder, Server};
use crate::support::wait::{SOON, until};
use crate::support::{replica, round};

/// A server whose commits do not wait for the disk.
fn quick() -> Builder {
    Server::builder().option("innodb_flush_log_at_trx_commit", 0).option("sync_binlog", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_innodb_tables_do_not_feel_a_backup() {
    let server = small(quick()).await;
    let (_folder, store) = round::folder_store();
    let one = Writer::start(&server, "UPDATE d.a SET v = v + 1 WHERE id = 1").await;
    let other = Writer::start(&server, "UPDATE d.b SET v = v + 1 WHERE id = 1").await;
    let report = round::backup(&server, &store).args(["--throttle", "20M"]).json().await;
    assert_eq!((one.waits().await, other.waits().await), (0, 0), "commits waited for the backup");
    assert_eq!(report["globalReadLockMilliseconds"], 0, "{report}");
    assert!(report["lockHeldMilliseconds"].as_u64().unwrap() > 1000, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_ddl_holds_a_backup_off_and_nobody_else() {
    let server = small(quick().fresh().option("innodb_redo_log_capacity", "8M")).await;
    let (_folder, store) = round::folder_store();
    let ddl = Blocked::begin(&server).await;
    let writer = Writer::start(&server, "UPDATE d.b SET v = v + 1 WHERE id = 1").await;
    let patient = ["--lock-timeout", "600", "--redo-consumer", "on"];
    let mut backup = round::backup(&server, &store).args(patient).spawn();
    backup.wait_until_said("  lock").await;
    until("it waits for the lock", async || locks_left(&server).await > 0).await;
    // More redo than the log holds: who waits for a lock must not hold the log.
    let wrote = tokio::time::timeout(SOON * 2, write_redo(&server, 24 << 20)).await;
    assert!(wrote.is_ok(), "the server stands still as long as the backup waits: {}", backup.said());
    assert!(backup.is_running(), "it waits: {}", backup.said());
    backup.signal(Signal::TERM);
    backup.wait().await.assert_failed(ErrorKind::Cancelled, "");

    let outcome = round::backup(&server, &store).args(["--lock-timeout", "4"]).run().await;
    outcome.assert_failed(ErrorKind::LockTimeout, "DDL of connection");
    assert_eq!(writer.waits().await, 0, "a commit waited for one that waits");
    assert_no_backup(&store).await;
    ddl.end().await;
    round::assert_nothing_left(&server).await;
    // DDL that comes while a try waits waits no longer than the try.
    round::backup(&server, &store).run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_query_on_a_table_without_redo_holds_a_backup_off_and_nobody_else() {
    let server = small(quick()).await;
    server.sql("CREATE TABLE d.m (id INT) ENGINE=MyISAM;\nINSERT INTO d.m VALUES (1)").await;
    let (_folder, store) = round::folder_store();
    let query = background(&server, "SELECT SLEEP(600) FROM d.m").await;
    let innodb = Writer::start(&server, "UPDATE d.b SET v = v + 1 WHERE id = 1").await;
    let outcome = round::backup(&server, &store).args(["--lock-timeout", "6"]).run().await;
    outcome.assert_failed(ErrorKind::LockTimeout, "a statement of connection");
    assert_eq!(innodb.waits().await, 0, "a commit waited behind a lock that could not be had");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
    query.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_waits_longer_than_the_budget_ends_the_backup() {
    let server = small(quick()).await;
    let (_folder, store) = round::folder_store();
    // The copy takes longer than anybody waits for.
    let mut backup = round::backup(&server, &store).args(["--ddl-wait-budget", "3", "--throttle", "200K"]).spawn();
    backup.wait_until_said("  copy").await;
    let began = Instant::now();
    server.sql("CREATE TABLE d.waits (a INT)").await;
    let waited = began.elapsed();
    let outcome = backup.wait().await;
    outcome.assert_failed(ErrorKind::DdlWaitBudget, "3 s");
    assert!(waited > Duration::from_secs(2), "it did not wait at all: {waited:?}");
    assert!(!outcome.stderr.contains("  cut"), "it went on: {outcome}");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;

    // Within the budget, the wait is told.
    let mut backup = round::backup(&server, &store).args(["--throttle", "3M", "-o", "json"]).spawn();
    backup.wait_until_said("  copy").await;
    server.sql("DROP TABLE d.waits").await;
    let outcome = backup.wait().await;
    outcome.assert_success();
    assert!(outcome.json()["ddlWaitMilliseconds"].as_u64().is_some_and(|waited| waited >= 1000), "{outcome}");
}

/// A replica's applier that meets DDL waits for the backup lock, and all that comes behind it with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_waits_longer_than_the_budget_ends_the_backup_and_catches_up() {
    let source = small(quick()).await;
    let replica = quick().start().await;
    replica::follow(&replica, &source).await;
    replica::catch_up(&replica, &source).await;
    let (_folder, store) = round::folder_store();
    let mut backup = round::backup(&replica, &store).args(["--ddl-wait-budget", "3", "--throttle", "200K"]).spawn();
    backup.wait_until_said("  copy").await;
    source.sql("CREATE TABLE d.late (a INT);\nINSERT INTO d.late VALUES (1)").await;
    let outcome = backup.wait().await;
    outcome.assert_failed(ErrorKind::DdlWaitBudget, "3 s");
    assert!(!outcome.stderr.contains("  cut"), "it went on: {outcome}");
    assert_no_backup(&store).await;
    replica::catch_up(&replica, &source).await;
    assert_eq!(replica.row::<(u64,)>("SELECT COUNT(*) FROM d.late").await, (1,));
    round::assert_nothing_left(&replica).await;
}
