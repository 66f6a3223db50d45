//! Native recovery: redo applied by Stillframe against the same redo recovered by the server, and its memory.
//!
//! ```text
//!   slow backup, while much is written ─► a backup with much redo
//!     restore as copied       ─ pages ─┼─ redo ─► a
//!     restore, native         ── b ──►  apply = b - pages   ◄──►  recovery = c - a
//!     restore, mysqld         ── c ──►
//! ```
//! So all that a native restore does beyond writing the copied pages is apply, the sync of all files included; and the
//! server's recovery is the time of its process, from its start to its clean end.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::files::files_below;
use crate::support::server::Server;
use crate::support::workload::{Options, Workload, fill};
use crate::table::Row;
use crate::{Bench, Best, clear, forget, quoted, say};

/// Of the table that is there before the backup.
const COPIED: u64 = 384 << 20;
/// So long the copy takes at least.
const THROTTLE: &str = "16M";
/// What either recovery may use; the server's as its buffer pool.
const MEMORY: &str = "512M";
/// Budget of a restore whose redo is many times larger.
const BUDGET: u64 = 16 << 20;
/// What the process takes beyond its budget at most, in MiB.
const BEYOND: f64 = 128.0;

impl Bench {
    /// Recovery of `redo` bytes and more.
    pub async fn native(&mut self, server: &Server, redo: u64) {
        let options = Options {
            pause: Duration::ZERO,
            slow_writers: 0,
            plain: false,
            // Each restore puts the files to where they were: into the way of the next.
            external: false,
            ..Options::default()
        };
        let workload = Workload::create(server, &options).await;
        fill(&server.opts().into(), "sf.copied", COPIED, 1).await;
        let running = workload.start(2).await;
        running.wait_for(100).await;
        let cli = Cli::backup(server, &self.store()).await.args(["--name", "bench", "--throttle", THROTTLE]);
        let backup = cli.args(["--spool-dir"]).arg(&self.place).args(["-o", "json"]).spawn();
        let connect = server.opts().into();
        let filling = fill(&connect, "sf.meanwhile", redo, 2);
        filling.await;
        let report = backup.wait().await.json();
        running.stop().await;
        let lsn = |end: &str| {
            let text = report.pointer(&format!("/lsn/{end}")).and_then(Value::as_str).unwrap();
            text.parse::<u64>().unwrap()
        };
        let redo = lsn("end") - lsn("checkpoint");

        let mysqld = self.well_equipped(server);
        let ways: [&[&str]; 3] = [
            &["--recovery", "server"],
            &["--recovery", "native", "--memory", MEMORY],
            &["--recovery", "server", "--mysqld", &mysqld],
        ];
        let mut best = [Best::new(), Best::new(), Best::new()];
        let mut pages = Best::new();
        for _ in 0..self.rounds {
            for (way, best) in ways.iter().zip(&mut best) {
                let restored = self.restore(way).await;
                best.take(restored.time);
                pages.take(restored.pages.unwrap_or(Duration::MAX));
            }
        }
        let ([copied, native, recovered], pages) = (best.map(|best| best.0), pages.0);
        say(&format!(
            "{} MiB of redo: pages {pages:?}, as copied {copied:?}, native {native:?}, mysqld {recovered:?}",
            redo >> 20
        ));
        let own = format!("native apply of {} MiB of redo", redo >> 20);
        let apply = native.saturating_sub(pages);
        let recovery = recovered.saturating_sub(copied);
        self.table.push(Row::times(&own, apply, "mysqld's recovery of it", recovery, Some(0.1)).bytes(redo));
        let whole = "restore, native";
        self.table.push(Row::times(whole, native, "restore, recovered by mysqld", recovered, None).bytes(redo));
        let one = self.restore(&["--recovery", "native", "--memory", MEMORY, "--parallel", "1"]).await.time;
        self.table.push(Row::times(whole, native, "restore, native, one thread", one, None).bytes(redo));

        let budget = BUDGET.to_string();
        let peak = self.restore(&["--recovery", "native", "--memory", &budget]).await.peak;
        let name = format!("memory of a restore, {} MiB of redo in a budget of {} MiB", redo >> 20, BUDGET >> 20);
        let most = (BUDGET >> 20) as f64 + BEYOND;
        self.table.push(Row::amount(&name, peak as f64 / f64::from(1 << 20), "MiB", most));
        clear(&self.place.join("store"));
    }

    /// A server's binary with as much memory for its recovery as ours: its default is a quarter of that.
    fn well_equipped(&self, server: &Server) -> String {
        let path = self.place.join("mysqld");
        let script = format!("#!/bin/sh\nexec {} \"$@\" --innodb-buffer-pool-size={MEMORY}\n", quoted(server.mysqld()));
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    /// One restore.
    async fn restore(&mut self, args: &[&str]) -> Restored {
        let restored = self.place.join("restored");
        forget(&files_below(&self.place.join("store")));
        let mut running = Cli::restore(&self.store(), "bench", &restored).args(args).spawn();
        let mut peak = 0;
        while running.is_running() {
            peak = peak.max(running.peak_memory().unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let outcome = running.wait().await;
        outcome.assert_success();
        std::fs::remove_dir_all(&restored).unwrap();
        let pages = args.contains(&"server").then(|| stamp(&outcome.stderr, "redo"));
        Restored { time: outcome.elapsed, pages, peak }
    }
}

/// What a restore took.
struct Restored {
    time: Duration,
    /// Until all pages were written, where the redo is only written.
    pages: Option<Duration>,
    /// Bytes of memory.
    peak: u64,
}

/// When a step began: `  1.2s  redo`.
fn stamp(said: &str, step: &str) -> Duration {
    let at = said.lines().find_map(|line| line.strip_suffix(step)).unwrap_or_else(|| panic!("no step {step}")).trim();
    let (number, unit) = match at.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (at.trim_end_matches('s'), 1.0),
    };
    Duration::from_secs_f64(number.parse::<f64>().unwrap() * unit)
}
