//! Kills at random moments.
//!
//! ```text
//!   backup ──┬─────────┬──────────┬────────┬── done
//!            ▲ some moment of a whole run's length: KILL, TERM or INT
//!            └► at once: no lock, no session; DDL and DML go on; the store shows no backup more
//! ```

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use rustix::process::Signal;

use crate::support::cli::{BACKUP_USER, Background, Cli};
use crate::support::server::{Server, scratch};
use crate::support::wait::{FREED, within};
use crate::support::workload::text::Random;
use crate::support::workload::{Options, Workload, check_cut, check_invariants};

/// How many of each kind.
pub fn kills() -> u64 {
    std::env::var("STILLFRAME_SOAK_KILLS").ok().map_or(60, |text| text.parse().expect("a number of kills"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_is_no_backup_and_leaves_no_lock() {
    let place = scratch();
    let store = format!("file://{}", place.path().display());
    let server = Server::builder().start().await;
    let workload = Workload::create(&server, &Options { rows: 30, ..Options::default() }).await;
    workload.fill(64 << 20).await;
    let running = workload.start(2).await;
    running.wait_for(50).await;

    let whole = Instant::now();
    Cli::backup(&server, &store).await.args(["--name", "whole"]).json().await;
    let whole = whole.elapsed();
    let mut random = Random::new(u64::from(std::process::id()));
    let (mut good, mut killed) = (1, 0);
    while killed < kills() {
        // Every third one meets a lock that it must wait for.
        let blocker = if killed % 3 == 2 { Some(block(&server).await) } else { None };
        let length = if blocker.is_some() { whole + Duration::from_secs(2) } else { whole + whole / 10 };
        let mut backup = Cli::backup(&server, &store).await.args(["--name", "killed", "--spool-dir"]);
        backup = backup.arg(place.path().with_extension("spool"));
        std::fs::create_dir_all(place.path().with_extension("spool")).unwrap();
        let mut backup = backup.spawn();
        let after = length.mul_f64(f64::from(u32::try_from(random.below(1000)).unwrap()) / 1000.0);
        tokio::time::sleep(after).await;
        let signal = *random.pick(&[Signal::KILL, Signal::KILL, Signal::TERM, Signal::INT]);
        if backup.is_running() {
            killed += 1;
            backup.signal(signal);
        }
        let succeeded = ended(backup, &server).await;
        if let Some(mut blocker) = blocker {
            blocker.query_drop("UNLOCK TABLES").await.unwrap();
            blocker.disconnect().await.ok();
        }
        good += u64::from(succeeded);
        // Nobody is queued: DDL and a write to a table without redo are let through at once.
        let unblocked = async { server.sql("CREATE TABLE sf.soon (a INT) ENGINE=MyISAM;\nDROP TABLE sf.soon").await };
        tokio::time::timeout(FREED, unblocked).await.expect("DDL is blocked after a kill");
        let seen = complete(&store).await;
        if signal == Signal::KILL && !succeeded && seen == good + 1 {
            // Killed between its commit and its end it could tell nobody; it is a backup all the same.
            Cli::new("verify").args(["--store", &store, "killed"]).run().await.assert_success();
            good = seen;
        }
        assert_eq!(seen, good, "kill {killed} ({signal:?} after {after:?}): a false success, or a lost one");
        println!("{killed}: {signal:?} after {after:?}, succeeded: {succeeded}, {good} complete backups");
    }
    let stats = running.stop().await;
    println!("{} commits, slowest {:?}", stats.commits(), stats.slowest_transaction());

    let pruned = Cli::new("prune").args(["--store", &store, "--stale"]).run().await;
    pruned.assert_success();
    let (earliest, last) = (Instant::now(), Cli::backup(&server, &store).await.args(["--name", "last"]).json().await);
    assert!(last["id"].is_string());
    let target = place.path().with_extension("restored");
    let restore = Cli::restore(&store, "last", &target).args(["--external-files", "inside", "--mysqld"]);
    restore.arg(server.mysqld()).run().await.assert_success();
    let restored = server.sibling().external_dir(false).on_datadir(&target).start().await;
    check_invariants(&restored, &Options::default()).await;
    check_cut(&restored, &stats, earliest, Instant::now()).await;
    drop(restored);
    for folder in ["restored", "spool"] {
        std::fs::remove_dir_all(place.path().with_extension(folder)).unwrap();
    }
}

/// A session that the global read lock has to wait for.
async fn block(server: &Server) -> mysql_async::Conn {
    let mut conn = server.connect().await;
    conn.query_drop("LOCK TABLES sf.my_fixed WRITE").await.unwrap();
    conn
}

/// Waits for the process's end, and that nothing of it is left in the server. A killed process's connection is closed
/// by the kernel, and its locks go with it: the promise is a second, and a machine that does other things, too, is given
/// what still tells this from a server that waits for a silent client.
async fn ended(backup: Background, server: &Server) -> bool {
    let outcome = backup.wait().await;
    let left = format!(
        "SELECT COUNT(*) FROM performance_schema.metadata_locks l JOIN performance_schema.threads t \
         ON t.THREAD_ID = l.OWNER_THREAD_ID WHERE t.PROCESSLIST_USER = '{BACKUP_USER}'"
    );
    let what = format!("its locks go: {outcome}");
    within(FREED, &what, async || server.row::<(u64,)>(&left).await == (0,)).await;
    outcome.status.success()
}

/// How many complete backups the store has.
async fn complete(store: &str) -> u64 {
    let list = Cli::new("list").args(["--store", store]).json().await;
    let entries = list.as_array().or_else(|| list["backups"].as_array()).expect("a list of backups");
    let complete = entries.iter().filter(|entry| entry["state"] == "Complete");
    u64::try_from(complete.count()).unwrap()
}
