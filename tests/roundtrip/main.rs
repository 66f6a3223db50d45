//! Busy servers of many kinds go into a backup and come back: the main promise, end to end.
//!
//! ```text
//!   source under load ─ backup as the minimal user ─► verify ─► restore ─► a second server
//!     invariants · every acknowledged commit up to the cut, none after · CHECK TABLE · gtid_executed as recorded
//!     then it follows the source, catches up, and every table's checksum is the source's
//! ```
//!
//! Stillframe applies the redo, but for the trips of `by_server`. `STILLFRAME_TEST_RECOVERY=server cargo test --features e2e
//! --test roundtrip` lets a server do it in all trips that do not name one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod by_server;
mod cache;
mod ddl;
mod durable;
mod isolation;
mod many;
mod native;
mod places;
mod replica_source;
mod stored;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use serde_json::Value;
use support::cli::Cli;
use support::s3::S3Server;
use support::server::{Builder, Server, scratch};
use support::workload::{self, Workload};
use support::{replica, round};

/// What a backup may take of memory at default settings, whatever there is to copy (more data: `make bench`).
const MEMORY: u64 = 256 << 20;

/// What differs between the round trips.
struct Trip {
    source: Builder,
    workload: workload::Options,
    backup: Vec<String>,
    verify: Vec<String>,
    restore: Vec<String>,
    recovery: round::Recovery,
}

impl Trip {
    fn new(source: Builder) -> Self {
        let workload = workload::Options::default();
        let recovery = round::Recovery::of_environment();
        Self { source, workload, backup: Vec::new(), verify: Vec::new(), restore: Vec::new(), recovery }
    }

    fn backup(mut self, args: &[&str]) -> Self {
        self.backup.extend(args.iter().map(ToString::to_string));
        self
    }

    async fn into_a_folder(self) -> Value {
        let (_folder, store) = round::folder_store();
        self.run(&store, &[]).await
    }

    async fn run(self, store: &str, env: &[(String, String)]) -> Value {
        let mut source = self.source.start().await;
        let load = Workload::create(&source, &self.workload).await;
        round::minimal_user(&source).await;
        let running = load.start(4).await;
        running.wait_for(60).await;

        let binlogs = binlogs(&source);
        let earliest = Instant::now();
        let backup = round::backup(&source, store).args(&self.backup).args(["--name", "trip"]);
        let (report, peak) = with_keyring(backup, &source).envs(env).json_and_memory().await;
        assert!(peak < MEMORY, "the backup took {peak} bytes of memory");
        let latest = Instant::now();
        running.wait_for(40).await;
        let stats = running.stop().await;

        let verify = Cli::new("verify").args(["--store", store, "trip"]).args(&self.verify);
        let verified = verify.envs(env).json().await;
        assert_eq!(verified["good"], true, "{verified}");
        assert!(verified["pages"]["checked"].as_u64().unwrap() > 100, "{verified}");

        let target = scratch();
        let datadir = target.path().join("data");
        let restore =
            Cli::restore(store, "trip", &datadir).args(["--external-files", "inside", "--check"]).args(&self.restore);
        let restore = self.recovery.of(with_keyring(restore, &source), &source);
        let restored = restore.envs(env).json().await;
        self.recovery.assert_done(&restored);
        assert_eq!(restored["gtidExecuted"], report["gtidExecuted"]);
        assert_eq!(restored["structure"]["problemCount"], 0, "{restored}");
        assert!(!restored["isolation"].to_string().contains("RESET REPLICA"), "it followed nobody: {restored}");
        assert!(restored["structure"]["orderedPages"].as_u64().unwrap() > 100, "{restored}");

        if let Some(file) = report["binlog"]["file"].as_str() {
            assert!(!binlogs.contains(file), "{file} was there before: it was not rotated, and may be long");
            check_binlog(&source, &datadir, &report, self.recovery);
        }

        let copy = start_on(&source, &datadir, &restored).await;
        copy.error_log().assert_clean();
        if source.gtid() {
            assert_eq!(copy.gtid_executed().await, report["gtidExecuted"].as_str().unwrap());
        }
        workload::check_invariants(&copy, &self.workload).await;
        workload::check_cut(&copy, &stats, earliest, latest).await;
        replica::check_tables(&copy).await;
        if source.gtid() {
            replica::prove_replica(&copy, &source).await;
            assert!(replica::compare_checksums(&source, &copy).await > 20);
        }
        round::assert_nothing_left(&source).await;
        source.error_log().assert_clean();
        source.stop().await;
        report
    }
}

/// Names of the server's binary log files.
fn binlogs(server: &Server) -> BTreeSet<String> {
    let names = std::fs::read_dir(server.binlog_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("binlog.0")).collect()
}

/// The restored directory has the source's last binary log up to the recorded position, and no other: what is committed
/// there and only prepared in InnoDB, recovery takes from it.
fn check_binlog(source: &Server, datadir: &Path, report: &Value, recovery: round::Recovery) {
    let name = report["binlog"]["file"].as_str().unwrap();
    let (theirs, ours) =
        (std::fs::read(source.binlog_dir().join(name)).unwrap(), std::fs::read(datadir.join(name)).unwrap());
    // Encrypted ones have a head that positions do not count.
    let head = if theirs.starts_with(&[0xFD, 0x62, 0x69, 0x6E]) { 512 } else { 0 };
    let length = usize::try_from(report["binlog"]["position"].as_u64().unwrap()).unwrap() + head;
    if recovery == round::Recovery::Native {
        assert_eq!(ours.len(), length, "{name}");
        assert!(theirs.starts_with(&ours), "{name} is not the source's");
        assert_eq!(std::fs::read_to_string(datadir.join("binlog.index")).unwrap(), format!("./{name}\n"));
    } else {
        // The server that recovered it has ended it.
        assert!(ours.len() >= length, "{name} has {} bytes of {length}", ours.len());
    }
}

fn with_keyring(cli: Cli, source: &Server) -> Cli {
    source.keyring_file().into_iter().fold(cli, |cli, file| cli.arg("--keyring-file").arg(file))
}

/// Starts a server like the source on the restored directory, with the settings that the report asks for.
async fn start_on(source: &Server, datadir: &Path, restored: &Value) -> Server {
    let mut builder = round::stock(source).on_datadir(datadir);
    for setting in restored["settings"].as_array().unwrap() {
        let (name, value) = setting.as_str().unwrap().split_once('=').unwrap();
        builder = builder.option(name, value);
    }
    builder.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_16k_with_every_kind_of_table() {
    let report = Trip::new(Server::builder()).into_a_folder().await;
    assert!(report["lockHeldMilliseconds"].as_u64().unwrap() > 0);
    assert!(report["globalReadLockMilliseconds"].as_u64().unwrap() > 0, "there are tables of MyISAM");
    assert!(report["pages"]["zero"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_4k() {
    Trip::new(Server::builder().page_size(4096)).backup(&["--compression", "lz4"]).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_8k() {
    Trip::new(Server::builder().page_size(8192)).backup(&["--compression", "none"]).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_32k() {
    Trip::new(Server::builder().page_size(32768)).backup(&["--compression", "zstd:5"]).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_64k() {
    Trip::new(Server::builder().page_size(65536)).backup(&["--parallel", "1"]).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_their_own_and_several_system_files() {
    let source = Server::builder().separate_dirs().system_files("sys1:12M;sys2:8M;sys3:12M:autoextend");
    Trip::new(source).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_at_rest_encryption() {
    let source = Server::builder()
        .keyring()
        .option("innodb_redo_log_encrypt", "ON")
        .option("innodb_undo_log_encrypt", "ON")
        .option("binlog_encryption", "ON");
    let mut trip = Trip::new(source);
    trip.workload.encrypted = true;
    trip.into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_lower_case_and_legacy_checksums() {
    let source = Server::builder()
        .lower_case_table_names(1)
        .option("innodb_checksum_algorithm", "innodb")
        .option("innodb_flush_method", "fsync");
    Trip::new(source).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_binary_log_and_no_checksums() {
    let source = Server::builder().log_bin(false).option("innodb_checksum_algorithm", "none");
    let report = Trip::new(source).into_a_folder().await;
    assert_eq!(report["binlog"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_log_without_gtids() {
    let report = Trip::new(Server::builder().gtid(false)).into_a_folder().await;
    assert_eq!(report["gtidExecuted"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_for_two_keys_into_a_bucket() {
    let s3 = S3Server::start();
    let keys = scratch();
    let key = |name: &str, first_byte: u8| {
        let path = keys.path().join(name);
        let bytes: Vec<u8> = (first_byte..).take(32).collect();
        std::fs::write(&path, hex::encode(bytes)).unwrap();
        path.display().to_string()
    };
    let (first, second) = (key("first", 0x11), key("second", 0x77));
    let mut trip =
        Trip::new(Server::builder()).backup(&["--encryption-key-file", &first, "--encryption-key-file", &second]);
    trip.verify = vec!["--encryption-key-file".into(), first];
    trip.restore = vec!["--encryption-key-file".into(), second];
    trip.run(&s3.url("trips"), &s3.environment()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_the_buffer_pool_and_a_prepared_one() {
    let source = Server::builder().option("innodb_buffer_pool_size", "16M").start().await;
    source
        .sql(
            "CREATE DATABASE d; CREATE TABLE d.big (id INT PRIMARY KEY AUTO_INCREMENT, pad VARCHAR(2000));
             CREATE TABLE d.xa (id INT PRIMARY KEY)",
        )
        .await;
    round::minimal_user(&source).await;
    let mut open = source.connect().await;
    for statement in [
        "SET SESSION cte_max_recursion_depth = 100000",
        "BEGIN",
        "INSERT INTO d.big (pad) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000) \
         SELECT REPEAT(CHAR(65 + i % 26), 1900) FROM n",
    ] {
        open.query_drop(statement).await.unwrap();
    }
    let mut xa = source.connect().await;
    for statement in ["XA START 'gid'", "INSERT INTO d.xa VALUES (1)", "XA END 'gid'", "XA PREPARE 'gid'"] {
        xa.query_drop(statement).await.unwrap();
    }
    let (_folder, store) = round::folder_store();
    let report = round::backup(&source, &store).json().await;
    open.query_drop("COMMIT").await.unwrap();

    let target = scratch();
    let datadir = target.path().join("data");
    let restored = Cli::restore(&store, "backup", &datadir).json().await;
    assert_eq!(restored["recovery"], "Applied");
    let copy = start_on(&source, &datadir, &restored).await;
    copy.error_log().assert_clean();
    let deadline = Instant::now() + Duration::from_mins(3);
    while copy.row::<(u64,)>("SELECT COUNT(*) FROM d.big").await.0 != 0 {
        assert!(Instant::now() < deadline, "the open transaction was not rolled back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let prepared: Vec<(i64, i64, i64, String)> = copy.rows("XA RECOVER").await;
    assert_eq!(prepared.len(), 1, "the prepared transaction waits for its end");
    copy.sql("XA COMMIT 'gid'").await;
    assert_eq!(copy.row::<(u64,)>("SELECT COUNT(*) FROM d.xa").await, (1,));
    assert_eq!(restored["gtidExecuted"], report["gtidExecuted"]);
}
