//! Signals at every step: the server's locks go at once, nobody stays queued, nothing stays in the spool or the store
//! that could be taken for a backup.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use rustix::process::Signal;
use stillframe::ops::error::ErrorKind;

use crate::help::{Blocked, assert_no_backup, background, listed, locks_left, small};
use crate::support::cli::{Background, Cli};
use crate::support::proxy::{Fault, Proxy, Request};
use crate::support::round;
use crate::support::s3::{self, S3Server};
use crate::support::server::{Server, scratch};
use crate::support::wait::{FREED, until, within};
use crate::support::workload::text::Random;

/// Sends the signal, and waits until no session of the backup has or waits for a lock. The promise is a second; what
/// breaks it, holds them to the end of the copy, or until the server gives up a silent connection.
async fn stop(backup: &Background, server: &Server, signal: Signal) {
    backup.signal(signal);
    within(FREED, &format!("the locks go after {signal:?}"), async || locks_left(server).await == 0).await;
}

/// DDL and writes to every kind of table go on at once.
async fn assert_nobody_waits(server: &Server) {
    let work = server.sql("CREATE TABLE d.soon (a INT);\nDROP TABLE d.soon;\nINSERT INTO d.m VALUES (2)");
    tokio::time::timeout(FREED, work).await.expect("the server is blocked");
}

async fn assert_cancelled(backup: Background, server: &Server, store: &str) {
    let outcome = backup.wait().await;
    outcome.assert_failed(ErrorKind::Cancelled, "");
    assert!(outcome.stdout.is_empty(), "{outcome}");
    assert_no_backup(store).await;
    assert!(listed(store).await.is_empty(), "where deleting is allowed, a cancelled run removes its objects");
    round::assert_nothing_left(server).await;
}

async fn with_myisam() -> Server {
    let server = small(Server::builder()).await;
    server.sql("CREATE TABLE d.m (id INT) ENGINE=MyISAM;\nINSERT INTO d.m VALUES (1)").await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_any_step_frees_the_server_at_once() {
    let server = with_myisam().await;
    let (_folder, store) = round::folder_store();
    // A copy that takes longer than anybody waits for.
    let slow = || round::backup(&server, &store).args(["--throttle", "200K"]);

    let mut backup = slow().spawn();
    backup.wait_until_said("  preflight").await;
    stop(&backup, &server, Signal::INT).await;
    assert_cancelled(backup, &server, &store).await;

    // It waits for the backup lock, behind DDL.
    let ddl = Blocked::begin(&server).await;
    let mut backup = slow().spawn();
    backup.wait_until_said("  lock").await;
    until("it waits for the lock", async || locks_left(&server).await > 0).await;
    stop(&backup, &server, Signal::TERM).await;
    ddl.end().await;
    assert_nobody_waits(&server).await;
    assert_cancelled(backup, &server, &store).await;

    for signal in [Signal::INT, Signal::TERM] {
        let mut backup = slow().spawn();
        backup.wait_until_said("  copy").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(locks_left(&server).await > 0, "it copies under the lock");
        stop(&backup, &server, signal).await;
        assert_nobody_waits(&server).await;
        assert_cancelled(backup, &server, &store).await;
    }

    // It waits for the global read lock, behind a query that has begun before, then behind one that begins meanwhile.
    let query = background(&server, "SELECT SLEEP(600) FROM d.m").await;
    let mut backup = round::backup(&server, &store).spawn();
    backup.wait_until_said("  cut").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    stop(&backup, &server, Signal::TERM).await;
    assert_nobody_waits(&server).await;
    assert_cancelled(backup, &server, &store).await;
    query.abort();

    for after in [0, 20, 60] {
        let mut backup = round::backup(&server, &store).spawn();
        backup.wait_until_said("  cut").await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        stop(&backup, &server, Signal::INT).await;
        assert_nobody_waits(&server).await;
        // At the cut the rest may take milliseconds: then it has succeeded, which must be true.
        let outcome = backup.wait().await;
        round::assert_nothing_left(&server).await;
        if outcome.code() == Some(0) {
            let found = listed(&store).await;
            assert!(found.iter().all(|(_, state)| state == "Complete"), "{found:?}");
            for (id, _) in found {
                Cli::new("delete").args(["--store", &store, &id]).run().await.assert_success();
            }
        } else {
            outcome.assert_failed(ErrorKind::Cancelled, "");
            assert!(listed(&store).await.is_empty());
        }
    }
    round::backup(&server, &store).run().await.assert_success();
}

/// Nobody can tell the server any more that the wait is given up: it must be short enough by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_while_it_waits_for_a_lock_leaves_nobody_in_the_queue() {
    let server = with_myisam().await;
    let (_folder, store) = round::folder_store();
    let spools = scratch();
    let backup = || round::backup_through(&server, &store, spools.path()).args(["--lock-timeout", "600"]).spawn();

    let ddl = Blocked::begin(&server).await;
    let mut waiting = backup();
    waiting.wait_until_said("  lock").await;
    until("it waits for the lock", async || locks_left(&server).await > 0).await;
    stop(&waiting, &server, Signal::KILL).await;
    // DDL on another table would queue behind it, too.
    assert_nobody_waits(&server).await;
    ddl.end().await;
    assert_eq!(waiting.wait().await.code(), None);

    // A writer has its table locked, so that the global read lock is asked for, and not had.
    let mut writer = server.connect().await;
    writer.query_drop("LOCK TABLES d.b WRITE").await.unwrap();
    let mut waiting = backup();
    waiting.wait_until_said("  cut").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    stop(&waiting, &server, Signal::KILL).await;
    assert_nobody_waits(&server).await;
    assert_eq!(waiting.wait().await.code(), None);
    writer.query_drop("UNLOCK TABLES").await.unwrap();

    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
    backup().wait().await.assert_success();
}

/// A file system that does not answer holds the process up, but must not hold the server's locks.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_to_its_end_does_not_hold_the_locks() {
    let server = with_myisam().await;
    let (_folder, store) = round::folder_store();
    let hanging = server.datadir().join("d/hangs.MYD");
    assert!(std::process::Command::new("mkfifo").arg(&hanging).status().unwrap().success());
    let mut backup = round::backup(&server, &store).spawn();
    backup.wait_until_said("  cut").await;
    let global = "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                  WHERE OBJECT_TYPE = 'GLOBAL' AND LOCK_TYPE = 'SHARED' AND LOCK_STATUS = 'GRANTED'";
    until("nobody can write", async || server.row::<(u64,)>(global).await.0 > 0).await;
    backup.signal(Signal::TERM);
    // The process itself ends after 20 s, whatever it waits for, and its connections with it.
    within(FREED / 2, "the locks go first", async || locks_left(&server).await == 0).await;
    assert_nobody_waits(&server).await;
    drop(std::fs::File::options().write(true).open(&hanging).unwrap());
    assert_cancelled(backup, &server, &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_does_not_hold_the_locks() {
    let server = with_myisam().await;
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.address());
    let url = s3.url("slow");
    let cli = |cli: Cli| cli.envs(&s3::environment(&proxy.endpoint()));
    // No pack and no table arrives; whatever is small and ours (lease, probe) does.
    let of_the_data = |request: &Request| {
        request.is_part() || request.is_complete() || (request.method == "PUT" && request.path.contains("/data/"))
    };

    let held = proxy.fail(usize::MAX, Fault::Hold, of_the_data);
    let mut backup = cli(round::backup(&server, &url)).spawn();
    backup.wait_until_said("  copy").await;
    until("data is on its way", async || held.count() > 0).await;
    stop(&backup, &server, Signal::TERM).await;
    assert_nobody_waits(&server).await;
    backup.wait().await.assert_failed(ErrorKind::Cancelled, "");
    round::assert_nothing_left(&server).await;

    // After the cut there is no lock, however long the store takes for the rest: all but the packs of pages.
    proxy.heal();
    proxy.fail(usize::MAX, Fault::Hold, move |request| of_the_data(request) && !request.path.contains("/pack-"));
    let mut backup = cli(round::backup(&server, &url)).spawn();
    backup.wait_until_said("  upload").await;
    assert_eq!(locks_left(&server).await, 0, "locks are held while the rest is uploaded");
    assert_nobody_waits(&server).await;
    assert!(backup.is_running(), "{}", backup.said());
    backup.signal(Signal::INT);
    backup.wait().await.assert_failed(ErrorKind::Cancelled, "");
    round::assert_nothing_left(&server).await;

    proxy.heal();
    let list = cli(Cli::new("list").args(["--store", &url])).json().await;
    assert!(list.as_array().unwrap().iter().all(|entry| entry["state"] != "Complete"), "{list}");
    cli(Cli::new("prune").args(["--store", &url, "--stale"])).run().await.assert_success();
    cli(round::backup(&server, &url)).run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_leaves_no_lock_and_no_backup() {
    let server = with_myisam().await;
    let (_folder, store) = round::folder_store();
    let spools = scratch();
    let whole = round::backup(&server, &store).args(["--throttle", "30M"]).run().await;
    whole.assert_success();
    let mut whole = whole.elapsed;
    let mut random = Random::new(u64::from(std::process::id()));
    let (mut killed, mut complete) = (0, 1);
    while killed < 4 {
        let backup = round::backup_through(&server, &store, spools.path()).args(["--throttle", "30M"]).spawn();
        let after = Duration::from_millis(random.below(u64::try_from(whole.as_millis()).unwrap()));
        tokio::time::sleep(after).await;
        stop(&backup, &server, Signal::KILL).await;
        assert_nobody_waits(&server).await;
        let outcome = backup.wait().await;
        let listed = listed(&store).await;
        let found = listed.iter().filter(|(_, state)| state == "Complete").count();
        match outcome.code() {
            Some(0) => assert_eq!(found, complete + 1, "after {after:?}: {outcome}\n{listed:?}"),
            // One that was killed behind its commit is as good: it is verified below.
            None => {
                assert!((complete..=complete + 1).contains(&found), "killed after {after:?}: {outcome}\n{listed:?}");
            }
            Some(_) => assert_eq!(found, complete, "{outcome}\n{listed:?}"),
        }
        if found > complete {
            // It was faster than the one that the moment was drawn from.
            whole = whole.min(after);
        } else {
            killed += u32::from(outcome.code().is_none());
        }
        complete = found;
        assert!(complete < 20, "no kill meets a backup at work");
    }
    // Not yet stale: somebody could still be at work on them.
    let pruned = Cli::new("prune").args(["--store", &store, "--stale"]).json().await;
    assert_eq!(pruned["failed"].as_array().map(Vec::len), Some(0), "{pruned}");
    for (id, _) in listed(&store).await.iter().filter(|(_, state)| state == "Complete") {
        Cli::new("verify").args(["--store", &store, id]).run().await.assert_success();
    }
    round::assert_nothing_left(&server).await;
    round::backup(&server, &store).run().await.assert_success();
}
