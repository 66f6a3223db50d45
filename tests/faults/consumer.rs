//! The consumer of the redo log, which keeps the server from overwriting redo, is given up before the server stalls:
//! whether the store is slow, this process, or nobody can look at the server any more. Its writers go on in any case.

use std::time::Duration;

use rustix::process::Signal;
use stillframe::ops::error::ErrorKind;

use crate::help::{Writer, files, small, write_redo};
use crate::support::cli::{Background, Cli};
use crate::support::proxy::{Fault, Proxy};
use crate::support::round::{self, USER};
use crate::support::s3::{self, S3Server};
use crate::support::server::{Builder, Server};
use crate::support::wait::{SOON, until};

const MIB: u64 = 1 << 20;
const GAVE_UP: &str = "gave up the redo consumer";

/// A small redo log, so that it is soon full for whom it must wait.
fn builder() -> Builder {
    Server::builder()
        .fresh()
        .option("innodb_redo_log_capacity", "32M")
        .option("innodb_flush_log_at_trx_commit", 2)
        .option("sync_binlog", 0)
}

/// A store that takes nothing of a backup but its lease, until told otherwise: so long the backup is at its copy.
struct Closed {
    proxy: Proxy,
    s3: S3Server,
}

impl Closed {
    fn start() -> Self {
        let s3 = S3Server::start();
        let proxy = Proxy::start(s3.address());
        proxy.fail(usize::MAX, Fault::Hold, |request| request.method == "PUT" && request.path.contains("/data/"));
        Self { proxy, s3 }
    }

    fn open(&self) {
        self.proxy.heal();
    }

    fn with(&self, cli: Cli) -> Cli {
        cli.envs(&s3::environment(&self.proxy.endpoint()))
    }

    fn backup(&self, server: &Server) -> Cli {
        let options = ["--redo-consumer", "on", "--compression", "none"];
        self.with(round::backup(server, &self.s3.url("p"))).args(options)
    }

    /// Lets the backup come to its end, which must be a good one.
    async fn finish(&self, backup: Background, server: &Server) {
        self.open();
        let outcome = backup.wait().await;
        outcome.assert_success();
        assert_eq!(outcome.stderr.matches(GAVE_UP).count(), 1, "{outcome}");
        let verify = self.with(Cli::new("verify").args(["--store", &self.s3.url("p"), "backup"]));
        assert_eq!(verify.json().await["good"], true);
        round::assert_nothing_left(server).await;
    }
}

/// Panics unless somebody else could register: there is one consumer in a server.
async fn assert_no_consumer(server: &Server) {
    let (taken,): (i64,) = server.row("SELECT innodb_redo_log_consumer_register()").await;
    assert_eq!(taken, 0, "it is still registered");
}

/// Writes redo on a server that nothing may stall.
async fn write(server: &Server, bytes: u64) {
    let wrote = tokio::time::timeout(SOON * 2, write_redo(server, bytes)).await;
    assert!(wrote.is_ok(), "the server stands still");
}

/// The server goes on writing more than its whole redo log, and so do others: a consumer that stands still would stop
/// them all.
async fn assert_writers_go_on(server: &Server, writer: Writer) {
    write(server, 40 * MIB).await;
    let ended = tokio::time::timeout(SOON, writer.waits()).await;
    assert!(ended.is_ok(), "a commit stands still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_fills_up_behind_a_slow_store_frees_the_server_from_waiting() {
    const SPOOL: u64 = 32 * MIB;
    let server = small(builder()).await;
    let store = Closed::start();
    let mut backup = store.backup(&server).args(["--spool-bytes", &SPOOL.to_string()]).spawn();
    backup.wait_until_said("  copy").await;
    let writer = Writer::start(&server, "UPDATE d.a SET v = v + 1 WHERE id = 1").await;
    // Not beyond four fifths, where the consumer goes, by more than what is still on its way: a full spool is the end.
    let spool = server.root().join("spool");
    while spool_bytes(&spool) <= SPOOL / 5 * 4 {
        assert!(backup.is_running() && !backup.said().contains(GAVE_UP), "too early: {}", backup.said());
        write(&server, MIB / 2).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    backup.wait_until_said(GAVE_UP).await;
    assert!(backup.said().contains("the spool is filling up"), "{}", backup.said());
    assert_no_consumer(&server).await;
    store.finish(backup, &server).await;
    assert_writers_go_on(&server, writer).await;
}

/// What the one run below has in its spool.
fn spool_bytes(spool: &std::path::Path) -> u64 {
    let runs = files(spool).into_values().flat_map(|run| files(&run).into_values());
    runs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_far_behind_frees_the_server_from_waiting() {
    let server = small(builder()).await;
    let store = Closed::start();
    let mut backup = store.backup(&server).spawn();
    backup.wait_until_said("  copy").await;
    let writer = Writer::start(&server, "UPDATE d.a SET v = v + 1 WHERE id = 1").await;
    // It stands still, as on a machine that is suspended, while more than half of the log is written. Once it goes on, it
    // is behind only for a moment: should nobody look just then, again.
    for _ in 0..20 {
        backup.signal(Signal::STOP);
        write(&server, 20 * MIB).await;
        backup.signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        if backup.said().contains(GAVE_UP) {
            break;
        }
    }
    assert!(backup.said().contains("half of the redo log waits for this backup"), "{}", backup.said());
    assert_no_consumer(&server).await;
    store.open();
    assert_writers_go_on(&server, writer).await;
    store.finish(backup, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_watched_any_more_is_freed_from_waiting() {
    let server = small(builder()).await;
    let store = Closed::start();
    // By way of a link, which can be taken away: then no new session can be made.
    let link = server.root().join("link");
    std::os::unix::fs::symlink(server.socket(), &link).unwrap();
    let plain = ["--store", &store.s3.url("p"), "--user", USER, "--compression", "none", "--redo-consumer", "on"];
    let cli = store.with(Cli::new("backup")).args(plain).arg("--socket").arg(&link);
    let cli = cli.arg("--password-file").arg(round::password_file(&server));
    let mut backup = cli.arg("--spool-dir").arg(server.root().join("spool")).spawn();
    backup.wait_until_said("  copy").await;
    let writer = Writer::start(&server, "UPDATE d.a SET v = v + 1 WHERE id = 1").await;
    let watching = format!(
        "SELECT t.PROCESSLIST_ID FROM performance_schema.threads t \
         JOIN performance_schema.events_statements_current s USING (THREAD_ID) \
         WHERE t.PROCESSLIST_USER = '{USER}' AND s.SQL_TEXT LIKE 'SHOW GLOBAL STATUS%redo%'"
    );
    until("somebody watches", async || server.rows::<(u64,)>(&watching).await.len() == 1).await;

    // A session that is killed is made anew, and nothing is given up.
    let (first,): (u64,) = server.row(&watching).await;
    server.sql(&format!("KILL {first}")).await;
    until("somebody watches again", async || server.rows::<(u64,)>(&watching).await.iter().any(|(id,)| *id != first))
        .await;
    assert!(!backup.said().contains(GAVE_UP), "{}", backup.said());

    // One that cannot be made anew: nobody would see how near the server is to a stall.
    std::fs::remove_file(&link).unwrap();
    let (second,): (u64,) = server.row(&watching).await;
    server.sql(&format!("KILL {second}")).await;
    backup.wait_until_said(GAVE_UP).await;
    assert!(backup.said().contains("the server's redo log cannot be watched"), "{}", backup.said());
    assert_no_consumer(&server).await;
    std::os::unix::fs::symlink(server.socket(), &link).unwrap();
    store.open();
    assert_writers_go_on(&server, writer).await;
    store.finish(backup, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_consumer_in_a_server_and_who_comes_second_says_so() {
    use mysql_async::prelude::Queryable as _;
    let server = small(Server::builder()).await;
    let (_folder, store) = round::folder_store();
    let mut other = server.connect().await;
    let taken: Option<i64> = other.query_first("SELECT innodb_redo_log_consumer_register()").await.unwrap();
    assert_eq!(taken, Some(0));
    let backup = |policy: &str| round::backup(&server, &store).args(["--redo-consumer", policy]).run();

    let outcome = backup("on").await;
    outcome.assert_failed(ErrorKind::Preflight, "another consumer is registered already");
    assert!(outcome.stderr.contains("--redo-consumer auto"), "no advice: {outcome}");
    assert!(!outcome.stderr.contains("  copy"), "{outcome}");
    for (policy, tells) in [("auto", true), ("off", false)] {
        let outcome = backup(policy).await;
        outcome.assert_success();
        assert_eq!(outcome.stderr.contains("not registered as redo consumer"), tells, "{policy}: {outcome}");
    }
    // It is still the other's.
    assert_ne!(server.row::<(i64,)>("SELECT innodb_redo_log_consumer_register()").await.0, 0);
    other.disconnect().await.unwrap();
    round::assert_nothing_left(&server).await;
}
