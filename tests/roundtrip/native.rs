//! Round trips whose redo Stillframe applies itself: what comes out is a database that no server had to recover.

use serde_json::Value;
use stillframe::archive::manifest::Manifest;
use stillframe::ops::error::ErrorKind;

use super::support::cli::Cli;
use super::support::server::{Server, scratch};
use super::support::workload::fill;
use super::support::{replica, round};
use super::{Trip, start_on};

fn native(source: super::Builder) -> Trip {
    let mut trip = Trip::new(source);
    trip.recovery = round::Recovery::Native;
    trip
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_4k_with_more_redo_than_memory() {
    let mut trip = native(Server::builder().page_size(4096));
    trip.restore = vec!["--memory".into(), "1M".into(), "--parallel".into(), "3".into()];
    trip.into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_64k_and_several_system_files() {
    let source = Server::builder().page_size(65536).system_files("sys1:12M;sys2:8M;sys3:12M:autoextend");
    native(source).into_a_folder().await;
}

/// The state of a table that `AUTO_INCREMENT` must not forget: its highest rows are gone.
const FORGETFUL: &str = "CREATE DATABASE d;\n\
     CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT);\n\
     CREATE TABLE d.altered (id INT PRIMARY KEY AUTO_INCREMENT, v INT);\n\
     CREATE TABLE d.quiet (id INT PRIMARY KEY AUTO_INCREMENT, v INT);\n\
     INSERT INTO d.t (v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) SELECT i FROM n;\n\
     INSERT INTO d.altered (v) VALUES (1), (2), (3);\n\
     DELETE FROM d.t WHERE id > 10;\n\
     ALTER TABLE d.altered AUTO_INCREMENT = 5000;\n\
     INSERT INTO d.altered (v) VALUES (4);\n\
     DELETE FROM d.altered WHERE id > 3;\n\
     INSERT INTO d.quiet (v) VALUES (1)";

async fn next_id(server: &Server, table: &str) -> u64 {
    server.sql(&format!("INSERT INTO d.{table} (v) VALUES (0)")).await;
    server.row::<(u64,)>(&format!("SELECT MAX(id) FROM d.{table}")).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_not_given_twice_and_the_server_recovers_no_page() {
    // Nothing is flushed by itself: the redo has all of it.
    let source = Server::builder().option("innodb_max_dirty_pages_pct", 99).start().await;
    source.sql(FORGETFUL).await;
    round::minimal_user(&source).await;
    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let target = scratch();
    let restored = native_restore(&store, target.path()).await;
    assert!(restored["applied"]["tables"].as_u64().unwrap() >= 3, "{restored}");

    let mut copy = start_on(&source, &target.path().join("data"), &restored).await;
    let log = copy.error_log();
    log.assert_clean();
    for page_work in ["Applying a batch of", "recovered from the doublewrite"] {
        let lines: Vec<&str> = log.text.lines().filter(|line| line.contains(page_work)).collect();
        assert!(lines.iter().all(|line| line.contains("batch of 0 ")), "{lines:?}");
    }
    // Also after it was shut down, when nothing is left of the log.
    assert_eq!((next_id(&copy, "t").await, next_id(&copy, "altered").await), (601, 5001));
    copy.restart().await;
    assert_eq!((next_id(&copy, "t").await, next_id(&copy, "quiet").await), (602, 2));
    replica::check_tables(&copy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_server_starts_without_any_recovery() {
    let source = Server::builder().start().await;
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, v INT); INSERT INTO d.t VALUES (1, 1)").await;
    round::minimal_user(&source).await;
    // From here on, no table with AUTO_INCREMENT is written to.
    assert_eq!(source.row::<(i64,)>("SELECT innodb_redo_log_sharp_checkpoint()").await, (0,));
    source.sql("UPDATE d.t SET v = 2").await;
    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let target = scratch();
    let restored = native_restore(&store, target.path()).await;
    assert_eq!(restored["applied"]["tables"], 0, "{restored}");
    let copy = start_on(&source, &target.path().join("data"), &restored).await;
    let log = copy.error_log();
    log.assert_clean();
    let recovery = |line: &&str| line.contains("[InnoDB]") && (line.contains("crash") || line.contains("shutdown"));
    let lines: Vec<&str> = log.text.lines().filter(recovery).collect();
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(copy.rows::<(i32, i32)>("SELECT id, v FROM d.t").await, [(1, 2)]);
}

/// What a restore may take beyond the memory that it was given.
const BEYOND: u64 = 128 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn redo_ten_times_as_large_as_its_budget_takes_no_more_memory() {
    const BUDGET: u64 = 16 << 20;
    // No page is flushed by itself, so that the redo has all that was ever written.
    let source = Server::builder()
        .option("innodb_buffer_pool_size", "512M")
        .option("innodb_redo_log_capacity", "2G")
        .option("innodb_max_dirty_pages_pct", 99)
        .option("innodb_max_dirty_pages_pct_lwm", 0)
        .option("innodb_idle_flush_pct", 0)
        .option("innodb_adaptive_flushing", "OFF")
        .start()
        .await;
    source.sql("CREATE DATABASE d").await;
    fill(&source.opts().into(), "d.bulk", 11 * BUDGET, 5).await;
    round::minimal_user(&source).await;
    let (_folder, store) = round::folder_store();
    let report = round::backup(&source, &store).json().await;
    let lsn = |end: &str| report["lsn"][end].as_str().unwrap().parse::<u64>().unwrap();
    let redo = lsn("end") - lsn("checkpoint");
    assert!(redo > 10 * BUDGET, "{redo} bytes of redo: {report}");

    let target = scratch();
    let restore = async |name: &str, memory: u64| {
        let cli = Cli::restore(&store, "backup", target.path().join(name));
        cli.args(["--recovery", "native", "--memory", &memory.to_string()]).json_and_memory().await
    };
    let (restored, peak) = restore("small", BUDGET).await;
    assert!(peak < BUDGET + BEYOND, "{peak} bytes of memory for {redo} of redo: {restored}");
    // With room for it the redo stays in memory: so it is the budget that keeps it out.
    let (with_room, most) = restore("large", 4 << 30).await;
    assert!(most > redo && most > BUDGET + BEYOND, "{most} bytes of memory for {redo} of redo");
    let (spilled, kept) = (&restored["applied"], &with_room["applied"]);
    assert!(spilled["spilledBytes"].as_u64() > Some(9 * BUDGET) && kept["spilledBytes"] == 0, "{spilled} {kept}");
    for what in ["records", "skipped", "pages", "created"] {
        assert_eq!(spilled[what], kept[what], "{what}");
    }
    for name in ["small", "large"] {
        let copy = start_on(&source, &target.path().join(name), &restored).await;
        copy.error_log().assert_clean();
        assert!(replica::compare_checksums(&source, &copy).await > 0, "{name}");
    }
}

async fn native_restore(store: &str, target: &std::path::Path) -> Value {
    let restored =
        Cli::restore(store, "backup", target.join("data")).args(["--recovery", "native", "--check"]).json().await;
    round::Recovery::Native.assert_done(&restored);
    assert_eq!(restored["structure"]["problemCount"], 0, "{restored}");
    assert_eq!(restored["mode"], "native");
    restored
}

/// Says in the manifest that the server had another zlib.
fn change_zlib(store: &std::path::Path, zlib: &str) {
    let backups = store.join("repository").join("backups");
    let backup = std::fs::read_dir(backups).unwrap().next().unwrap().unwrap().path();
    let path = backup.join("manifest.json");
    let mut manifest = Manifest::decode(&std::fs::read(&path).unwrap()).unwrap();
    let before = manifest.server.settings.insert("version_compile_zlib".to_owned(), zlib.to_owned());
    assert!(before.is_some_and(|before| before != zlib), "it was not recorded");
    std::fs::write(path, manifest.encode(None).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_compressed_anew_need_the_servers_zlib() {
    let source = Server::builder().option("innodb_log_compressed_pages", "OFF").start().await;
    source
        .sql(
            "CREATE DATABASE d;\n\
             CREATE TABLE d.zip (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(500)) \
             ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4;\n\
             INSERT INTO d.zip (v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
             SELECT REPEAT(SHA2(i, 256), 7) FROM n",
        )
        .await;
    round::minimal_user(&source).await;
    let sums = replica::checksums(&source).await;
    let (folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let target = scratch();
    let restored = native_restore(&store, target.path()).await;
    let copy = start_on(&source, &target.path().join("data"), &restored).await;
    copy.error_log().assert_clean();
    assert_eq!(replica::checksums(&copy).await, sums);
    replica::check_tables(&copy).await;

    // What another one would have made of them is not known: refused before anything is written.
    change_zlib(folder.path(), "1.3.1.zlib-ng");
    let target = scratch();
    let datadir = target.path().join("data");
    let refused = Cli::restore(&store, "backup", &datadir).args(["--recovery", "native"]).run().await;
    refused.assert_failed(ErrorKind::Unsupported, "its zlib 1.3.1.zlib-ng is not known");
    assert!(refused.stderr.contains("--recovery server"), "{refused}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0, "something was written");
}
