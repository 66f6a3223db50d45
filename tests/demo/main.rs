//! `make demo`: the main job, before your eyes, with a real server.
//!
//! ```text
//!   server ── load, writers of many table kinds ───────────────────────────────────► still writing ─► stop
//!                     │ backup, hot                                                        │            │
//!                     ▼                                                                    ▼            ▼
//!                  store ── list ── verify ── restore ──► second server ── invariants ── replica ── same tables?
//! ```
//!
//! Nothing is staged: any step that fails ends it with an error. `STILLFRAME_DEMO_MB` says how much data is loaded
//! beside the workload's own (256).

#![allow(clippy::print_stdout, reason = "it is here to be watched")]

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::cli::{Cli, Outcome};
use support::replica::{catch_up, check_tables, compare_checksums, follow};
use support::server::{Server, install, scratch};
use support::workload::{Options, Workload, check_cut, check_invariants};

const WRITERS: usize = 4;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("cannot start the runtime");
    let began = Instant::now();
    runtime.block_on(demo());
    println!("\n  The demo took {}.", seconds(began.elapsed()));
}

async fn demo() {
    let place = scratch();
    let names = Names::default();
    if let Some(home) = std::env::home_dir() {
        names.give("~", &home);
    }
    let store = format!("file://{}", place.path().join("store").display());
    std::fs::create_dir(place.path().join("store")).expect("cannot make the store's folder");

    title("A MySQL server, and data in it");
    let step = Instant::now();
    let server = Server::builder().option("innodb_buffer_pool_size", "128M").start().await;
    done(&format!("mysqld {} is up", server.variable("version").await), step);
    println!("    {}", names.shorten(&install().binary.display().to_string()));
    names.give("$DIR", place.path());
    names.give("$SERVER", server.root());
    names.give("$SOCKET", &server.socket());
    names.give("mysqld", server.mysqld());
    let step = Instant::now();
    let options = Options { pause: Duration::from_millis(1), rows: 200, ..Options::default() };
    let workload = Workload::create(&server, &options).await;
    let tables = support::replica::user_tables(&server).await.len();
    done(
        &format!("{tables} tables: every row format, compressed, partitioned, JSON, full text, spatial, MyISAM …"),
        step,
    );
    let step = Instant::now();
    let megabytes = std::env::var("STILLFRAME_DEMO_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    workload.fill(megabytes << 20).await;
    done(&format!("{megabytes} MB of rows more"), step);

    title(&format!("{WRITERS} writers start, and do not stop"));
    let running = workload.start(WRITERS).await;
    running.wait_for(200).await;
    println!("    {} transactions so far", running.committed());

    title("A hot backup, while they write");
    let before = running.committed();
    let earliest = Instant::now();
    let backup =
        run(&names, Cli::backup(&server, &store).await.args(["--name", "demo"]).args(["-o", "json"]).visible()).await;
    let latest = Instant::now();
    let during = running.committed() - before;
    let report = backup.json();
    println!("    {during} transactions were committed meanwhile");

    title("What the store has, and whether it is sound");
    println!("{}", run(&names, Cli::new("list").args(["--store", &store])).await.stdout.trim_end());
    let verify = run(&names, Cli::new("verify").args(["--store", &store, "demo"]).visible()).await;
    println!("{}", verify.stdout.trim_end());

    title("Back into an empty directory, the redo applied on the way: no server is needed");
    let datadir = place.path().join("restored");
    // The first server still has its files outside of the data directory: the second one's go inside.
    let cli = Cli::restore(&store, "demo", &datadir).args(["--external-files", "inside", "--check"]);
    let restore = run(&names, cli.args(["-o", "json"]).visible()).await;

    title("A stock server on it");
    let step = Instant::now();
    let second = server.sibling().external_dir(false).on_datadir(&datadir).start().await;
    second.error_log().assert_clean();
    done("it starts, without an error in its log", step);
    let found = second.gtid_executed().await;
    let recorded = text(&report, "/gtidExecuted").replace(['\n', ' '], "");
    assert_eq!(found.replace(' ', ""), recorded, "the restored server's GTID set is not the recorded one");
    let step = Instant::now();
    check_invariants(&second, &options).await;
    done("no money was made or lost, no writer's sequence has a gap", step);

    title("It becomes a replica of the first, which is still written to");
    let step = Instant::now();
    follow(&second, &server).await;
    running.wait_for(100).await;
    let stats = running.stop().await;
    catch_up(&second, &server).await;
    done(&format!("{} transactions later it has caught up", stats.commits()), step);
    let step = Instant::now();
    let same = compare_checksums(&server, &second).await;
    done(&format!("CHECKSUM TABLE of {same} tables: equal"), step);
    let step = Instant::now();
    let checked = check_tables(&second).await;
    done(&format!("CHECK TABLE of {checked} tables: OK"), step);
    // A second look at the backup itself: what the replica added afterwards must not hide what it lacked.
    check_moment(&names, &server, &store, place.path(), &stats, earliest, latest).await;

    summary(&report, &restore, during, backup.elapsed);
}

/// Restores once more, to prove that it is the writers' work as of a moment within the backup's run.
async fn check_moment(
    names: &Names,
    server: &Server,
    store: &str,
    place: &Path,
    stats: &support::workload::Stats,
    earliest: Instant,
    latest: Instant,
) {
    title("And once more, to see of which moment it is");
    let step = Instant::now();
    let datadir = place.join("again");
    let cli = Cli::restore(store, "demo", &datadir).args(["--external-files", "inside"]);
    run(names, cli).await;
    let third = server.sibling().external_dir(false).on_datadir(&datadir).start().await;
    check_cut(&third, stats, earliest, latest).await;
    done("every commit from before the backup is there, none from after it", step);
}

fn summary(report: &Value, restore: &Outcome, during: u64, took: Duration) {
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let restored = restore.json();
    let applied = |path: &str| restored.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    title("Summary");
    println!(
        "    read            {:>10}   {} pages copied, {} all zero, {} read again",
        megabytes(number("/bytes/read")),
        number("/pages/copied"),
        number("/pages/zero"),
        number("/pages/reread")
    );
    println!("    stored          {:>10}", megabytes(number("/bytes/stored")));
    println!("    backup          {:>10}   {during} commits meanwhile", seconds(took));
    println!("    restore         {:>10}   redo applied and structure checked", seconds(restore.elapsed));
    println!("    backup lock     {:>10}   DDL waits, nothing else", milliseconds(number("/lockHeldMilliseconds")));
    println!(
        "    read lock       {:>10}   for tables without redo",
        milliseconds(number("/globalReadLockMilliseconds"))
    );
    println!("    redo            from LSN {} to {}", text(report, "/lsn/checkpoint"), text(report, "/lsn/end"));
    println!("    binary log      {} at {}", text(report, "/binlog/file"), number("/binlog/position"));
    println!("    GTID set        {}", text(report, "/gtidExecuted"));
    println!(
        "    recovery        {} records applied to {} pages; {} pages of {} tablespaces checked",
        applied("/applied/records"),
        applied("/applied/pages"),
        applied("/structure/pages"),
        applied("/structure/tablespaces")
    );
    println!(
        "    build           {}",
        if cfg!(debug_assertions) { "for tests: a release build is faster" } else { "release" }
    );
}

/// Short names for long paths, for what is shown.
#[derive(Debug, Default)]
struct Names(std::cell::RefCell<Vec<(&'static str, String)>>);

impl Names {
    fn give(&self, name: &'static str, path: &Path) {
        self.0.borrow_mut().insert(0, (name, path.display().to_string()));
    }

    fn shorten(&self, text: &str) -> String {
        self.0.borrow().iter().fold(text.to_owned(), |text, (name, path)| text.replace(path, name))
    }
}

/// Shows a command, runs it, and ends the demo if it fails.
async fn run(names: &Names, cli: Cli) -> Outcome {
    println!("  $ {}", names.shorten(cli.shown()));
    let mut outcome = cli.run().await;
    outcome.assert_success();
    outcome.stdout = names.shorten(&outcome.stdout);
    outcome
}

fn text<'a>(report: &'a Value, path: &str) -> &'a str {
    report.pointer(path).and_then(Value::as_str).unwrap_or("none")
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn done(what: &str, since: Instant) {
    println!("    {what} ({})", seconds(since.elapsed()));
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn milliseconds(count: u64) -> String {
    format!("{count} ms")
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}
