//! `make demo-kubernetes`: the whole story on a cluster, before your eyes, with what a user would type and see.
//!
//! ```text
//!   mysql ◄─ writers ─────────────────────────────────────────────► still writing ─► stop
//!     │ MySQLBackup                                                     │              │
//!     ▼                                                                 ▼              ▼
//!   bucket ── CronBackup ── MySQLRestore ─► claim ─► mysql ── invariants ── replica ── same rows?
//! ```
//!
//! Nothing is staged: any step that fails ends it with an error. It is a scenario that only runs when asked for.

#![allow(clippy::print_stdout, reason = "it is here to be watched")]

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::core::plain_pods::loaded_server;
use crate::harness::load::{check_invariants, check_tables};
use crate::harness::objects::{MINUTES, gtids};
use crate::harness::space::{condition_of, text};
use crate::harness::{Bucket, Mysql, Space, fill, scenario};

const STORAGE: &str = include_str!("../fixtures/demo/storage.yaml");
const BACKUP: &str = include_str!("../fixtures/demo/backup.yaml");
const SCHEDULE: &str = include_str!("../fixtures/demo/schedule.yaml");
const RESTORE: &str = include_str!("../fixtures/demo/restore.yaml");

fn title(text: &str) {
    println!("\n== {text}");
}

fn done(text: &str, since: Instant) {
    println!("    {text} ({:.1} s)", since.elapsed().as_secs_f64());
}

/// Applies a manifest and shows it.
async fn apply(space: &Space, manifest: &str) -> Result<()> {
    println!("  $ kubectl apply -f - <<YAML");
    for line in manifest.lines() {
        println!("    {line}");
    }
    space.apply(manifest).await?;
    Ok(())
}

/// Runs kubectl in the demo's namespace, and shows both.
fn kubectl(space: &Space, arguments: &str) -> Result<()> {
    println!("  $ kubectl {arguments}");
    let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    let all = arguments.split(' ').chain(["--namespace", &space.name]);
    let output = Command::new(&program).args(all).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("    {line}");
    }
    Ok(())
}

/// Shows each step that a backup or restore says it is at, until it has ended; returns it.
async fn follow(space: &Space, kind: &str, name: &str) -> Result<Value> {
    let began = Instant::now();
    let mut shown = String::new();
    loop {
        let object = space.get(kind, name).await?;
        let condition = condition_of(&object, "Succeeded");
        let word = |field: &str| condition.map(|found| text(found, field)).unwrap_or_default();
        let step = text(&object, "/status/progress/step");
        let now = if word("/reason") == "Running" && !step.is_empty() { step } else { word("/reason") };
        if now != shown && !now.is_empty() {
            println!("    {:5.1} s  {now}", began.elapsed().as_secs_f64());
            now.clone_into(&mut shown);
        }
        match word("/status") {
            "True" => return Ok(object),
            "False" => anyhow::bail!("{kind} {name} failed: {}: {}", word("/reason"), word("/message")),
            _ => ensure!(began.elapsed() < MINUTES, "{kind} {name} does not end: {}", word("/message")),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What of a status the demo shows of a backup.
fn show_status(backup: &Value) {
    for (what, field) in [
        ("backup id", "/status/backupId"),
        ("destination", "/status/destination"),
        ("read from", "/status/source/podName"),
        ("LSN", "/status/lsn/end"),
        ("binary log", "/status/binlog/file"),
        ("GTID set", "/status/gtidExecuted"),
    ] {
        println!("    {what:12} {}", text(backup, field));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a show: make demo-kubernetes"]
async fn the_whole_story() -> Result<()> {
    scenario("demo", |space| async move {
        let began = Instant::now();
        title("A MySQL StatefulSet, writers that do not stop, an S3 server");
        let step = Instant::now();
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        let version = mysql.sql(0, "SELECT @@version").await?;
        done(&format!("MySQL {version}, {} transactions so far", load.committed().await?), step);
        kubectl(&space, "get statefulsets,pods,pvc")?;

        title("Where backups go");
        let values = [("ENDPOINT", bucket.endpoint()), ("SECRET", bucket.secret())];
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        apply(&space, &fill(STORAGE, &values)).await?;
        space.condition("BackupStorage", "bucket", "Ready", "True", Duration::from_secs(90)).await?;
        kubectl(&space, "get backupstorages.stillframe.dev")?;

        title("A hot backup, while they write");
        let before = load.committed().await?;
        let step = Instant::now();
        apply(&space, BACKUP).await?;
        let taken = follow(&space, "MySQLBackup", "first").await?;
        let after = load.committed().await?;
        let backup_took = step.elapsed();
        println!("    {} transactions were committed meanwhile", after - before);
        kubectl(&space, "get sfb")?;
        show_status(&taken);

        title("And one by a schedule, at once and then every night");
        apply(&space, SCHEDULE).await?;
        space
            .wait("CronBackup", "nightly", "has a backup", MINUTES, |cron| {
                !text(cron, "/status/lastSuccessfulTime").is_empty()
            })
            .await?;
        kubectl(&space, "get cronbackups.stillframe.dev")?;
        kubectl(&space, "get sfb")?;

        title("Back into a new claim, the redo applied on the way");
        let step = Instant::now();
        apply(&space, RESTORE).await?;
        let restored = follow(&space, "MySQLRestore", "first-again").await?;
        let restore_took = step.elapsed();
        kubectl(&space, "get mysqlrestores.stillframe.dev")?;
        ensure!(gtids(&restored)? == gtids(&taken)?, "backup and restore name different GTID sets");

        title("A stock server on it");
        let step = Instant::now();
        let second = Mysql::start(&space, "restored", 1, 200).await?;
        let held = check_invariants(&second, 0).await?;
        ensure!(before <= held && held <= after, "it holds {held} transactions, not {before} to {after}");
        ensure!(second.gtid_executed(0).await? == gtids(&taken)?, "it has other GTIDs than the status says");
        check_tables(&second, 0).await?;
        done(
            &format!(
                "{held} transactions are there: every commit from before, none from after, no sum or sequence broken"
            ),
            step,
        );

        title("It becomes a replica of the first, from the GTID set of the status");
        let step = Instant::now();
        second.follow(0, &mysql, 0).await?;
        load.more(100).await?;
        load.stop().await?;
        second.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
        done(&format!("{} transactions later it has caught up", load.committed().await? - held), step);
        let step = Instant::now();
        second.has_the_rows_of(0, &mysql, 0).await?;
        let tables = second.checksums(0).await?.len();
        done(&format!("CHECKSUM TABLE of {tables} tables: equal"), step);

        title("Summary");
        let number = |field: &str| taken.pointer(field).and_then(Value::as_i64).unwrap_or_default();
        println!(
            "    read        {:8.1} MB, stored {:.1} MB",
            mega(number("/status/sizeBytes")),
            mega(number("/status/storedBytes"))
        );
        println!(
            "    backup      {:8.1} s   from apply to Completed, {} commits meanwhile",
            backup_took.as_secs_f64(),
            after - before
        );
        println!("    restore     {:8.1} s   from apply to Completed", restore_took.as_secs_f64());
        println!("    the program was built for tests: a release build is faster");
        println!("\n  The demo took {:.1} s.", began.elapsed().as_secs_f64());
        Ok(())
    })
    .await
}

#[allow(clippy::cast_precision_loss, reason = "a number to be read by people")]
fn mega(bytes: i64) -> f64 {
    bytes as f64 / 1e6
}
