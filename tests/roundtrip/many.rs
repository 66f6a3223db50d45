//! Many small tables cost neither open files nor objects nor memory of their own. What three thousand prove for a
//! hundred thousand: each number below would already be too small for one of each per table.

use super::support::cli::Cli;
use super::support::files::files_below;
use super::support::replica;
use super::support::round;
use super::support::server::{Server, scratch};
use super::{MEMORY, start_on};

const TABLES: usize = 3;
/// Each partition is a tablespace with a file of its own, as a table is.
const PARTITIONS: usize = 1000;
const OPEN_FILES: u32 = 256;

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_need_few_open_files_objects_and_bytes_of_memory() {
    let source = Server::builder().page_size(4096).start().await;
    for table in 0..TABLES {
        source
            .sql(&format!(
                "CREATE DATABASE d{table};\n\
                 CREATE TABLE d{table}.t (id INT PRIMARY KEY, k INT) PARTITION BY HASH (id) PARTITIONS {PARTITIONS};\n\
                 INSERT INTO d{table}.t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                 SELECT i, i * {table} FROM n"
            ))
            .await;
    }
    let sums = replica::checksums(&source).await;
    round::minimal_user(&source).await;
    let (folder, store) = round::folder_store();
    let backup = round::backup_by(Cli::with_open_files("backup", OPEN_FILES), &source, &store);
    let (report, peak) = backup.json_and_memory().await;
    assert!(report["pages"]["copied"].as_u64().unwrap() > (TABLES * PARTITIONS) as u64, "{report}");
    assert!(peak < MEMORY, "the backup took {peak} bytes of memory");
    let objects = files_below(folder.path()).len();
    assert!((5..30).contains(&objects), "{objects} objects");

    let verify = Cli::with_open_files("verify", OPEN_FILES).args(["--store", &store, "backup"]);
    assert_eq!(verify.json().await["good"], true);
    let target = scratch();
    let datadir = target.path().join("data");
    let restore = Cli::with_open_files("restore", OPEN_FILES);
    let (restored, peak) =
        restore.args(["--store", &store, "backup", "--datadir"]).arg(&datadir).json_and_memory().await;
    assert!(peak < MEMORY, "the restore took {peak} bytes of memory");
    assert!(restored["files"].as_u64().unwrap() > (TABLES * PARTITIONS) as u64, "{restored}");
    let copy = start_on(&source, &datadir, &restored).await;
    copy.error_log().assert_clean();
    for table in 0..TABLES {
        let name = format!("`d{table}`.`t`");
        let sum: Vec<(String, Option<u64>)> = copy.rows(&format!("CHECKSUM TABLE {name}")).await;
        assert_eq!(sum[0].1.as_ref(), sums.get(&name), "{name}");
    }
}
