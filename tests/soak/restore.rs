//! Native restores that are killed at random moments, one over what the other left.
//!
//! ```text
//!   restore ──┬─────────┬──────── done      ▲ some moment of a whole run's length: KILL, TERM or INT
//!             ▲         ▲
//!             └─────────┴► marked, so no database; the next one goes over it, and is killed, too
//!   each that comes to its end ─► every file is, byte for byte, that of a restore that nobody disturbed
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::kill::kills;
use crate::support::cli::{Cli, Outcome};
use crate::support::files::files_below;
use crate::support::replica::check_tables;
use crate::support::server::{Server, scratch};
use crate::support::workload::text::Random;
use crate::support::workload::{Options, Workload, check_invariants, fill};

const MARKER: &str = "stillframe-restore-incomplete";
const LOG: &str = "#innodb_redo";

#[tokio::test(flavor = "multi_thread")]
async fn a_native_restore_that_is_killed_again_and_again_ends_as_one_that_was_not() {
    let place = scratch();
    let store = format!("file://{}", place.path().join("store").display());
    let server = backed_up(&store).await;
    // So little memory that redo goes to disk.
    let restore = |to: &Path| {
        let cli = Cli::restore(&store, "busy", to).args(["--external-files", "inside", "--recovery", "native"]);
        cli.args(["--memory", "8M", "--overwrite-incomplete"])
    };
    let undisturbed = place.path().join("undisturbed");
    let whole = Instant::now();
    let report = restore(&undisturbed).json().await;
    let mut whole = whole.elapsed();
    assert!(report["applied"]["pages"].as_u64().unwrap() > 1000, "{report}");
    let wanted = files(&undisturbed);

    let datadir = place.path().join("killed");
    let mut random = Random::new(u64::from(std::process::id()));
    let (mut killed, mut over, mut ended) = (0, 0, 0);
    // Many are killed before they wrote anything, which is not what the next one goes over.
    while killed < kills() || over < kills() / 4 {
        assert!(killed < 4 * kills(), "only {over} of {killed} kills met a restore over what another had left");
        let goes_over = datadir.join(MARKER).exists();
        let mut running = restore(&datadir).spawn();
        let after = (whole + whole / 10).mul_f64(f64::from(u32::try_from(random.below(1000)).unwrap()) / 1000.0);
        let began = Instant::now();
        while running.is_running() && began.elapsed() < after {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let signal = *random.pick(&[Signal::KILL, Signal::KILL, Signal::TERM, Signal::INT]);
        if running.is_running() {
            killed += 1;
            over += u64::from(goes_over);
            running.signal(signal);
        } else {
            // As long as it takes by now.
            whole = began.elapsed();
        }
        let outcome = running.wait().await;
        let complete = datadir.join(LOG).exists() && !datadir.join(MARKER).exists();
        println!("{killed}: {signal:?} after {after:?}, over another: {goes_over}, complete: {complete}");
        if complete {
            assert_same(&wanted, &files(&datadir));
            std::fs::remove_dir_all(&datadir).unwrap();
            ended += 1;
        } else {
            assert!(!outcome.status.success(), "{outcome}");
            assert_is_no_database(&server, &datadir, &outcome, killed % 6 == 0).await;
        }
    }
    println!("{over} kills of a restore over what another had left, {ended} that came to their end");

    restore(&datadir).run().await.assert_success();
    assert_same(&wanted, &files(&datadir));
    let copy = server.sibling().external_dir(false).on_datadir(&datadir).start().await;
    copy.error_log().assert_clean();
    check_invariants(&copy, &Options::default()).await;
    check_tables(&copy).await;
}

/// A server with all kinds of tables, and a backup of it that has much redo.
async fn backed_up(store: &str) -> Server {
    let server = Server::builder().option("innodb_redo_log_capacity", "1G").start().await;
    let workload = Workload::create(&server, &Options { rows: 30, ..Options::default() }).await;
    workload.fill(48 << 20).await;
    let running = workload.start(3).await;
    running.wait_for(50).await;
    let backup = Cli::backup(&server, store).await.args(["--name", "busy", "--throttle", "16M", "-o", "json"]).spawn();
    fill(&server.opts().into(), "sf.meanwhile", 48 << 20, 2).await;
    backup.wait().await.assert_success();
    running.stop().await;
    server
}

/// What was left must not be taken for a database by anybody.
async fn assert_is_no_database(source: &Server, datadir: &Path, outcome: &Outcome, try_it: bool) {
    let empty = std::fs::read_dir(datadir).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        // Before the first byte.
        return;
    }
    assert!(datadir.join(MARKER).exists(), "no marker: {outcome}");
    let logged = datadir.join(LOG).exists();
    assert!(!logged || outcome.stderr.contains("  sync"), "a redo log before the sync: {outcome}");
    if try_it && !logged {
        let mut copy = source.sibling().external_dir(false).on_datadir(datadir).create();
        copy.try_start().await.expect_err("a server started on half a database");
        // It left a log of its own, as far as it came.
        std::fs::remove_dir_all(datadir).unwrap();
    }
}

/// Every file of a directory, but for the redo log and the settings of isolation, which are of their own time.
fn files(datadir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(datadir);
    files.retain(|path| *path != datadir.join("mysqld-auto.cnf"));
    files
        .into_iter()
        .map(|path| (path.strip_prefix(datadir).unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

fn assert_same(wanted: &BTreeMap<PathBuf, Vec<u8>>, found: &BTreeMap<PathBuf, Vec<u8>>) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(wanted), names(found));
    let different: Vec<_> =
        wanted.iter().filter(|(name, bytes)| found[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(different.is_empty(), "other bytes than without a kill: {different:?}");
}
