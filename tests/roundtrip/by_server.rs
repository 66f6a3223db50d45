//! Round trips whose redo a server recovers: what native recovery is measured against, and what is left where it refuses.

use super::support::cli::Cli;
use super::support::server::{Server, scratch};
use super::support::{replica, round};
use super::{Builder, Trip, start_on};

fn by_server(source: Builder) -> Trip {
    let mut trip = Trip::new(source);
    trip.recovery = round::Recovery::Server;
    trip
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_16k() {
    by_server(Server::builder()).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_at_rest_encryption() {
    let source = Server::builder()
        .keyring()
        .option("innodb_redo_log_encrypt", "ON")
        .option("innodb_undo_log_encrypt", "ON")
        .option("binlog_encryption", "ON");
    let mut trip = by_server(source);
    trip.workload.encrypted = true;
    trip.into_a_folder().await;
}

/// Numbered texts behind those that are there.
async fn fill(server: &Server, rows: u32) {
    server
        .sql(&format!(
            "SET SESSION cte_max_recursion_depth = 100000;\n\
             INSERT INTO d.shared (v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             SELECT REPEAT(SHA2(i, 256), 30) FROM n"
        ))
        .await;
}

/// Grows the system tablespace while it is copied; a server must start on what comes of it, once the tool has run one
/// there and once it has not.
async fn system_tablespace_that_grew(source: Builder, last_file: &str) {
    let source = source.option("innodb_autoextend_increment", 1).start().await;
    source
        .sql(
            "CREATE DATABASE d;\n\
             CREATE TABLE d.shared (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000)) TABLESPACE innodb_system",
        )
        .await;
    let file = source.data_home().join(last_file);
    let made = size(&file);
    while size(&file) == made {
        fill(&source, 1000).await;
    }
    round::minimal_user(&source).await;
    let (_folder, store) = round::folder_store();
    let before = size(&file);
    let mut backup = round::backup(&source, &store).args(["--throttle", "3M", "-o", "json"]).spawn();
    backup.wait_until_said("copy").await;
    while size(&file) < before + (8 << 20) {
        fill(&source, 1000).await;
    }
    assert!(backup.is_running(), "the copy was over before the growth");
    backup.wait().await.assert_success();
    let sums = replica::checksums(&source).await;
    let grown = size(&file);

    let target = scratch();
    for (name, with_server) in [("with", true), ("without", false)] {
        let datadir = target.path().join(name);
        let restore = Cli::restore(&store, "backup", &datadir).args(["--external-files", "inside"]);
        let restore = restore.args(["--recovery", "server"]);
        let restore = if with_server { restore.arg("--mysqld").arg(source.mysqld()) } else { restore };
        let restored = restore.json().await;
        assert_eq!(restored["recovery"], if with_server { "Recovered" } else { "AtFirstStart" });
        assert!(size(&datadir.join(last_file)) >= grown, "{name}: the file is too short");
        let copy = start_on(&source, &datadir, &restored).await;
        copy.error_log().assert_clean();
        assert_eq!(replica::checksums(&copy).await, sums, "{name}");
        replica::check_tables(&copy).await;
    }
}

fn size(file: &std::path::Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_tablespace_that_grows_meanwhile() {
    system_tablespace_that_grew(Server::builder(), "ibdata1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_several_system_files_that_grows_meanwhile() {
    let source = Server::builder().system_files("sys1:12M;sys2:8M;sys3:12M:autoextend");
    system_tablespace_that_grew(source, "sys3").await;
}
