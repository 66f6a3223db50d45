//! `make bench`: what a backup costs, as ratios of measurements of one run on one machine.
//!
//! ```text
//!   one large table     CLONE LOCAL ◄──► backup, none        cat | zstd -1 -T<cores> ◄──► backup, zstd:1
//!                       zstd -d     ◄──► restore             transactions a second alone ◄──► during a backup
//!   20 000 small tables backup ◄──► backup of the large one, byte for byte
//!   much redo           native apply ◄──► recovery by mysqld; one thread ◄──► all; memory against its budget
//!   all of them         highest memory
//! ```
//!
//! Each time is the best of some rounds in which both sides take turns, so that a noisy moment hits neither alone. Both
//! sides begin with what they read on disk, not in the page cache, and end with what they wrote on disk: a run of
//! anything but Stillframe is followed by a sync of it. Transactions are counted over the whole of a backup, or its first
//! three minutes, in turns with moments for which it is stopped, and summed over the rounds.
//!
//! `STILLFRAME_BENCH_GB` (2), `STILLFRAME_BENCH_TABLES` (20000), `STILLFRAME_BENCH_REDO_MB` (256) and
//! `STILLFRAME_BENCH_ROUNDS` (3) change the size. `STILLFRAME_BENCH_DATA` names a folder that keeps the databases for
//! the next run; `STILLFRAME_BENCH_ONLY` some of the parts clone, zstd, small, oltp, native.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it measures and tells; what fails, ends it"
)]
#![allow(clippy::cast_precision_loss, reason = "ratios need no more digits")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod data;
mod native;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use data::{Data, settle};
use support::cli::{Cli, Outcome};
use support::files::files_below;
use support::server::{Server, scratch};
use support::workload::{Options, Running, Workload};
use table::{Row, Table};

/// The most memory that default options may take.
const MEMORY_TARGET: f64 = 256.0;

fn main() {
    tokio::runtime::Runtime::new().expect("cannot start the runtime").block_on(bench());
}

async fn bench() {
    let bytes = number("STILLFRAME_BENCH_GB", 2) << 30;
    let rounds = number("STILLFRAME_BENCH_ROUNDS", 3);
    let tables = number("STILLFRAME_BENCH_TABLES", 20_000);
    let mut bench = Bench { place: scratch().keep(), rounds, peak: 0, table: Table::default() };
    std::fs::create_dir(bench.place.join("store")).unwrap();
    let data = Data::new(&bench.place);

    let server = data.one_large_table(bytes).await;
    if is_wanted("clone") {
        bench.against_clone(&server).await;
    }
    if is_wanted("zstd") {
        bench.against_zstd(&server).await;
    }
    if is_wanted("small") {
        let small = data.many_tables(tables).await;
        bench.against_large(&small, tables, &server).await;
        data.done_with(small);
    }
    if is_wanted("oltp") {
        bench.oltp(&server).await;
    }
    data.done_with(server);
    if is_wanted("native") {
        say("writing much redo during a slow backup");
        let server = data::builder().start().await;
        bench.native(&server, number("STILLFRAME_BENCH_REDO_MB", 256) << 20).await;
    }
    let peak = bench.peak as f64 / f64::from(1 << 20);
    bench.table.push(Row::amount("highest memory of all runs", peak, "MiB", MEMORY_TARGET));
    std::fs::remove_dir_all(&bench.place).ok();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("\n{cores} cores, {} GiB in one table, best of {rounds} rounds\n\n{}", bytes >> 30, bench.table);
}

/// Whether the environment leaves this part in.
fn is_wanted(part: &str) -> bool {
    std::env::var("STILLFRAME_BENCH_ONLY").is_ok_and(|parts| parts.split(',').any(|one| one == part))
        || std::env::var_os("STILLFRAME_BENCH_ONLY").is_none()
}

struct Bench {
    place: PathBuf,
    rounds: u64,
    peak: u64,
    table: Table,
}

/// A backup's best time and what it read.
#[derive(Debug, Clone, Copy)]
struct Measured {
    time: Duration,
    bytes: u64,
}

impl Bench {
    fn store(&self) -> String {
        format!("file://{}", self.place.join("store").display())
    }

    /// One backup; what it stored is removed unless it is kept.
    async fn backup(&mut self, server: &Server, codec: &str, keep: bool) -> Measured {
        self.backup_with(server, &["--compression", codec], keep).await
    }

    /// One backup with these options; what it stored is removed unless it is kept.
    async fn backup_with(&mut self, server: &Server, options: &[&str], keep: bool) -> Measured {
        let cli = Cli::backup(server, &self.store()).await.args(["--name", "bench"]).args(options);
        let outcome = self.watch(cli.args(["--spool-dir"]).arg(&self.place).args(["-o", "json"])).await;
        let report = outcome.json();
        if !keep {
            clear(&self.place.join("store"));
        }
        Measured { time: outcome.elapsed, bytes: report.pointer("/bytes/read").and_then(Value::as_u64).unwrap() }
    }

    /// Runs it and notes its highest memory.
    async fn watch(&mut self, cli: Cli) -> Outcome {
        let mut running = cli.spawn();
        while running.is_running() {
            self.peak = self.peak.max(running.peak_memory().unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let outcome = running.wait().await;
        outcome.assert_success();
        outcome
    }

    /// An uncompressed backup against the server's own copy of itself.
    async fn against_clone(&mut self, server: &Server) {
        let target = self.place.join("clone");
        let files = tablespace_files(server.datadir());
        let (mut own, mut other) = (Best::new(), Best::new());
        let mut bytes = 0;
        for _ in 0..self.rounds {
            settle(server).await;
            forget(&files);
            let began = Instant::now();
            server.sql(&format!("CLONE LOCAL DATA DIRECTORY = '{}'", target.display())).await;
            let said = began.elapsed();
            let synced = shell(&format!("sync $(find {} -type f)", quoted(&target)));
            say(&format!("CLONE {said:?}, what it left to sync {synced:?}"));
            other.take(said + synced);
            std::fs::remove_dir_all(&target).unwrap();
            // The disk may still have to do with what was removed.
            settle(server).await;
            forget(&files);
            let measured = self.backup(server, "none", false).await;
            own.take(measured.time);
            bytes = measured.bytes;
            say(&format!("backup none {:?}, CLONE {:?}", own.0, other.0));
        }
        let row = Row::times("backup, uncompressed", own.0, "CLONE LOCAL DATA DIRECTORY", other.0, Some(1.0));
        self.table.push(row.bytes(bytes));
    }

    /// A compressed backup, and its restore, against `zstd` over the same files.
    async fn against_zstd(&mut self, server: &Server) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let files = tablespace_files(server.datadir());
        let packed = self.place.join("packed.zst");
        let unpacked = self.place.join("unpacked");
        let restored = self.place.join("restored");
        let (mut backup, mut zstd, mut restore, mut unpack) = (Best::new(), Best::new(), Best::new(), Best::new());
        let mut bytes = 0;
        for round in 1..=self.rounds {
            settle(server).await;
            forget(&files);
            zstd.take(shell(&format!(
                "cat {} | zstd -q -1 -T{cores} -f -o {packed} && sync {packed}",
                files.iter().map(|file| quoted(file)).collect::<Vec<_>>().join(" "),
                packed = quoted(&packed)
            )));
            forget(&files);
            let measured = self.backup(server, "zstd:1", true).await;
            backup.take(measured.time);
            bytes = measured.bytes;

            forget(std::slice::from_ref(&packed));
            let from_to = format!("{} -o {unpacked} && sync {unpacked}", quoted(&packed), unpacked = quoted(&unpacked));
            unpack.take(shell(&format!("zstd -q -d -f {from_to}")));
            std::fs::remove_file(&unpacked).unwrap();
            forget(&files_below(&self.place.join("store")));
            let outcome = self.watch(Cli::restore(&self.store(), "bench", &restored)).await;
            restore.take(outcome.elapsed);
            std::fs::remove_dir_all(&restored).unwrap();
            clear(&self.place.join("store"));
            say(&format!(
                "round {round}: backup {:?}, zstd {:?}, restore {:?}, unzstd {:?}",
                backup.0, zstd.0, restore.0, unpack.0
            ));
        }
        std::fs::remove_file(&packed).ok();
        let (own, other) = ("backup, zstd level 1", format!("cat, zstd -1 -T{cores}"));
        self.table.push(Row::times(own, backup.0, &other, zstd.0, Some(1.15)).bytes(bytes));
        self.table.push(Row::times("restore of it", restore.0, "zstd -d", unpack.0, Some(1.5)).bytes(bytes));
    }

    /// Many small tables against one large one, each by the bytes it has.
    async fn against_large(&mut self, server: &Server, tables: u64, large: &Server) {
        let (files, large_files) = (tablespace_files(server.datadir()), tablespace_files(large.datadir()));
        let (mut own, mut other) = (Best::new(), Best::new());
        let (mut bytes, mut large_bytes) = (1, 1);
        for _ in 0..self.rounds {
            settle(server).await;
            forget(&files);
            let measured = self.backup(server, "none", false).await;
            own.take(measured.time);
            bytes = measured.bytes;
            settle(large).await;
            forget(&large_files);
            let measured = self.backup(large, "none", false).await;
            other.take(measured.time);
            large_bytes = measured.bytes;
            say(&format!("{tables} tables {:?}, one large {:?}", own.0, other.0));
        }
        let same_bytes = other.0.mul_f64(bytes as f64 / large_bytes as f64);
        let name = format!("backup of {tables} tables, uncompressed");
        self.table.push(Row::times(&name, own.0, "one large table, same bytes", same_bytes, None).bytes(bytes));
    }

    /// Transactions a second while backups run, polite ones and such as take what they can get, and in the moments in
    /// between for which the backup is stopped: so that both sides see the same machine, whatever else it does.
    async fn oltp(&mut self, server: &Server) {
        let options = Options {
            pause: Duration::ZERO,
            slow_writers: 0,
            plain: false,
            external: false,
            undo_tablespace: false,
            ..Options::default()
        };
        data::clear_workload(server).await;
        let workload = Workload::create(server, &options).await;
        let running = workload.start(4).await;
        running.wait_for(500).await;
        let (mut polite, mut plain) = (Turns::default(), Turns::default());
        for _ in 0..self.rounds {
            self.backup_in_turns(server, &running, &["--polite"], &mut polite).await;
            self.backup_in_turns(server, &running, &[], &mut plain).await;
            say(&format!("during a polite backup {polite}, during a plain one {plain}"));
        }
        running.stop().await;
        data::clear_workload(server).await;
        for (name, turns, target) in [("polite ", &polite, Some(0.95)), ("", &plain, None)] {
            let Turns { during, without, cut_off } = turns;
            let seconds = during.time.as_secs_f64() / self.rounds as f64;
            let which = if *cut_off > 0 { format!(", {cut_off} of {} cut off", self.rounds) } else { String::new() };
            let own = format!("transactions during a {name}backup of {seconds:.0} s{which}");
            self.table.push(Row::rates(&own, during.get(), "without one", without.get(), target));
        }
    }

    /// One backup that is stopped for a moment again and again; what takes longer than some minutes is cut off.
    async fn backup_in_turns(&mut self, server: &Server, running: &Running, options: &[&str], turns: &mut Turns) {
        const LONGEST: Duration = Duration::from_mins(3);
        const AT_WORK: Duration = Duration::from_secs(3);
        const STOPPED: Duration = Duration::from_secs(1);
        /// Until what was on its way to the disk is there.
        const SETTLING: Duration = Duration::from_millis(300);
        let cli = Cli::backup(server, &self.store()).await.args(["--name", "bench"]).args(options);
        let mut backup = cli.args(["--spool-dir"]).arg(&self.place).args(["-o", "json"]).spawn();
        let start = Instant::now();
        while backup.is_running() && start.elapsed() < LONGEST {
            let began = Instant::now();
            let work = async {
                while backup.is_running() && began.elapsed() < AT_WORK {
                    self.peak = self.peak.max(backup.peak_memory().unwrap_or(0));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            turns.during.count(running, work).await;
            backup.signal(Signal::STOP);
            tokio::time::sleep(SETTLING).await;
            turns.without.count(running, tokio::time::sleep(STOPPED)).await;
            backup.signal(Signal::CONT);
        }
        if backup.is_running() {
            backup.signal(Signal::TERM);
            backup.wait().await;
            turns.cut_off += 1;
        } else {
            backup.wait().await.assert_success();
        }
        clear(&self.place.join("store"));
    }
}

/// With a backup at work, and without.
#[derive(Debug, Default)]
struct Turns {
    during: Rate,
    without: Rate,
    /// Backups that were not waited for to their end.
    cut_off: u64,
}

impl std::fmt::Display for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} against {}", self.during, self.without)
    }
}

/// Transactions and the time in which they were committed.
#[derive(Debug, Default)]
struct Rate {
    commits: u64,
    time: Duration,
}

impl Rate {
    /// Adds what is committed while `work` runs.
    async fn count<T>(&mut self, running: &Running, work: impl Future<Output = T>) {
        let (from, began) = (running.committed(), Instant::now());
        work.await;
        self.commits += running.committed() - from;
        self.time += began.elapsed();
    }

    fn get(&self) -> f64 {
        self.commits as f64 / self.time.as_secs_f64()
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s in {:.1?}", self.get(), self.time)
    }
}

/// The shortest of several times.
struct Best(Duration);

impl Best {
    fn new() -> Self {
        Self(Duration::MAX)
    }

    fn take(&mut self, time: Duration) {
        self.0 = self.0.min(time);
    }
}

/// All files of pages below a data directory.
fn tablespace_files(datadir: &Path) -> Vec<PathBuf> {
    let mut files = files_below(datadir);
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.extension().is_some_and(|ext| ext == "ibd") || name.starts_with("undo_") || name == "ibdata1"
    });
    files
}

/// Drops the files from the page cache, so that whoever comes next reads them from the disk.
fn forget(files: &[PathBuf]) {
    for path in files {
        // A server may have dropped an undo or temporary space since they were listed.
        let Ok(file) = std::fs::File::open(path) else { continue };
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// Runs a line of shell and says how long it took.
fn shell(line: &str) -> Duration {
    let began = Instant::now();
    let status = Command::new("bash").args(["-o", "pipefail", "-c", line]).stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "failed: {line}");
    began.elapsed()
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

fn clear(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::create_dir(folder).unwrap();
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

fn say(text: &str) {
    eprintln!("bench: {text}");
}
