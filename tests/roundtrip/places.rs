//! Where restored files lie, and what they look like there: moved or kept, with holes, owners and modes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use stillframe::ops::error::ErrorKind;

use super::start_on;
use super::support::cli::Cli;
use super::support::replica;
use super::support::round;
use super::support::server::{Builder, Server, scratch};

/// A server with a table, a partition and a tablespace outside of its data directory.
pub async fn source_with_files_outside() -> Server {
    let source = Server::builder().start().await;
    let dir = source.external_dir();
    let dir = dir.display();
    let rows = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500";
    source
        .sql(&format!(
            "CREATE DATABASE d;\n\
             CREATE TABLESPACE far ADD DATAFILE '{dir}/far.ibd';\n\
             CREATE TABLE d.own (id INT PRIMARY KEY, pad VARCHAR(200)) DATA DIRECTORY='{dir}';\n\
             CREATE TABLE d.shared LIKE d.own;\nALTER TABLE d.shared TABLESPACE far;\n\
             CREATE TABLE d.parts (id INT PRIMARY KEY, pad VARCHAR(200)) \
             PARTITION BY HASH (id) (PARTITION here, PARTITION there DATA DIRECTORY='{dir}')"
        ))
        .await;
    for table in ["own", "shared", "parts"] {
        let insert =
            format!("INSERT INTO d.{table} WITH RECURSIVE n(i) AS ({rows}) SELECT i, REPEAT('x', i % 200) FROM n");
        source.sql(&insert).await;
    }
    round::minimal_user(&source).await;
    source
}

/// Paths of all tablespace files of user tables, as the server says.
async fn table_files(server: &Server) -> Vec<PathBuf> {
    let query = "SELECT FILE_NAME FROM information_schema.FILES WHERE FILE_NAME LIKE '%.ibd' \
                 AND TABLESPACE_NAME NOT IN ('mysql', 'sys/sys_config')";
    server.rows::<(String,)>(query).await.into_iter().map(|(path,)| server.datadir().join(path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_outside_are_refused_over_others_moved_or_kept() {
    let mut source = source_with_files_outside().await;
    let outside = source.external_dir();
    let sums = replica::checksums(&source).await;
    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let target = scratch();

    // Where they are, they are the source's: nothing is written.
    let datadir = target.path().join("kept");
    let refused = Cli::restore(&store, "backup", &datadir).run().await;
    refused.assert_failed(ErrorKind::TargetNotEmpty, "exists already, outside of the data directory");
    let refused = Cli::restore(&store, "backup", &datadir).args(["--external-files", "/other=/new"]).run().await;
    refused.assert_failed(ErrorKind::Preflight, "no mapping covers it");
    assert!(!datadir.exists());

    let (moved, place) = (target.path().join("moved"), target.path().join("new place"));
    let mapping = format!("{}={}", outside.display(), place.display());
    let restored = Cli::restore(&store, "backup", &moved).args(["--external-files", &mapping]).json().await;
    let copy = start_on(&source, &moved, &restored).await;
    copy.error_log().assert_clean();
    assert_eq!(replica::checksums(&copy).await, sums);
    replica::check_tables(&copy).await;
    let files = table_files(&copy).await;
    assert!(files.iter().all(|file| file.starts_with(&moved) || file.starts_with(&place)), "{files:?}");
    assert_eq!(files.iter().filter(|file| file.starts_with(&place)).count(), 3, "{files:?}");
    drop(copy);

    // Once the source is gone, they come back to their place, which then is a stock server's, too.
    source.stop().await;
    fs::remove_dir_all(&outside).unwrap();
    let restored = Cli::restore(&store, "backup", &datadir).args(["--mysqld"]).arg(source.mysqld()).json().await;
    let copy = start_on(&source, &datadir, &restored).await;
    copy.error_log().assert_clean();
    assert_eq!(replica::checksums(&copy).await, sums);
    let files = table_files(&copy).await;
    assert_eq!(files.iter().filter(|file| file.starts_with(&outside)).count(), 3, "{files:?}");
}

/// As in a pod that mounts the server's volume elsewhere: what is in it counts as in the data directory, whatever the
/// server calls it.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_seen_under_another_path() {
    let source = Server::builder().start().await;
    source
        .sql(
            "CREATE DATABASE d;\nCREATE TABLE d.t (id INT PRIMARY KEY);\nINSERT INTO d.t VALUES (1), (2);\n\
             CREATE TABLESPACE inside ADD DATAFILE 'inside.ibd';\n\
             CREATE TABLE d.shared (id INT PRIMARY KEY) TABLESPACE inside;\n\
             CREATE TABLE d.m (id INT) ENGINE=MyISAM;\nINSERT INTO d.m VALUES (3)",
        )
        .await;
    round::minimal_user(&source).await;
    let sums = replica::checksums(&source).await;
    let (folder, store) = round::folder_store();
    let mount = folder.path().join("mount");
    std::os::unix::fs::symlink(source.datadir(), &mount).unwrap();
    let report = round::backup(&source, &store).arg("--datadir").arg(&mount).json().await;
    assert!(report["globalReadLockMilliseconds"].as_u64().unwrap() > 0, "{report}");
    let target = scratch();
    let datadir = target.path().join("data");
    let restored = Cli::restore(&store, "backup", &datadir).json().await;
    assert_eq!((restored["settings"].to_string(), restored["warnings"].to_string()), ("[]".into(), "[]".into()));
    let copy = start_on(&source, &datadir, &restored).await;
    copy.error_log().assert_clean();
    assert_eq!(replica::checksums(&copy).await, sums);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_their_own_move_to_others() {
    move_directories(Server::builder()).await;
}

/// The same places, as seen from the data directory.
#[tokio::test(flavor = "multi_thread")]
async fn directories_named_by_the_way_up_move_to_others() {
    let builder = Server::builder()
        .option("innodb_data_home_dir", "../sys")
        .option("innodb_undo_directory", "../undo/")
        .option("innodb_log_group_home_dir", "../redo")
        .option("log_bin", "../binlog/binlog");
    move_directories(builder).await;
}

/// System tablespace, undo and binary log on volumes of their own come back to other ones, and the report says all that a
/// server must be told to find them.
async fn move_directories(builder: Builder) {
    let source = builder.separate_dirs().system_files("sys1:12M;sys2:12M:autoextend").start().await;
    source
        .sql(
            "CREATE DATABASE d;\n\
             CREATE TABLE d.shared (id INT PRIMARY KEY, v TEXT) TABLESPACE innodb_system;\n\
             INSERT INTO d.shared VALUES (1, 'one'), (2, 'two');\n\
             CREATE TABLE d.own LIKE d.shared;\nINSERT INTO d.own VALUES (3, 'three')",
        )
        .await;
    round::minimal_user(&source).await;
    let sums = replica::checksums(&source).await;
    let (_folder, store) = round::folder_store();
    let report = round::backup(&source, &store).json().await;
    let target = scratch();
    let (datadir, place) = (target.path().join("data"), target.path().join("volumes"));
    let moved = |name: &str| format!("{}={}", source.root().join(name).display(), place.join(name).display());
    let mapping = ["sys", "undo", "binlog"].map(moved).join(",");
    let restored = Cli::restore(&store, "backup", &datadir).args(["--external-files", &mapping]).json().await;
    for file in ["sys/sys1", "sys/sys2", "undo/undo_001", "undo/undo_002"] {
        assert!(place.join(file).exists(), "{file} is not there");
    }
    let settings = restored["settings"].to_string();
    for name in ["innodb_data_home_dir", "innodb_data_file_path", "innodb_undo_directory", "log_bin"] {
        assert!(settings.contains(name), "nobody says {name}: {settings}");
    }

    // The tests' servers name an index of their own, which a stock one makes of the log's name.
    let mut builder =
        round::stock(&source).on_datadir(&datadir).option("log_bin_index", place.join("binlog/binlog.index").display());
    for setting in restored["settings"].as_array().unwrap() {
        let (name, value) = setting.as_str().unwrap().split_once('=').unwrap();
        builder = builder.option(name, value);
    }
    let copy = builder.start().await;
    copy.error_log().assert_clean();
    assert_eq!(replica::checksums(&copy).await, sums);
    replica::check_tables(&copy).await;
    assert_eq!(copy.gtid_executed().await, report["gtidExecuted"].as_str().unwrap());
    let logs: Vec<(String, u64, String)> = copy.rows("SHOW BINARY LOGS").await;
    assert_eq!(logs[0].0, report["binlog"]["file"].as_str().unwrap(), "it began anew: {logs:?}");
    assert!(!datadir.join("ibdata1").exists() && !datadir.join("undo_001").exists(), "it made files of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_owners_and_modes_are_the_servers() {
    let source = Server::builder().start().await;
    source
        .sql(
            "CREATE DATABASE d;\n\
             CREATE TABLE d.holes (id INT PRIMARY KEY AUTO_INCREMENT, pad VARCHAR(2000)) COMPRESSION='zlib';\n\
             CREATE TABLE d.plain (id INT PRIMARY KEY) ENGINE=MyISAM;\nINSERT INTO d.plain VALUES (1);\n\
             CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu';\n\
             INSERT INTO d.holes (pad) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             SELECT REPEAT(CHAR(65 + i % 26), 1900) FROM n;\n\
             INSERT INTO d.holes (pad) SELECT pad FROM d.holes;\n\
             INSERT INTO d.holes (pad) SELECT pad FROM d.holes",
        )
        .await;
    // Writes all pages of the table, each with its hole.
    let mut conn = source.connect().await;
    for statement in ["FLUSH TABLES d.holes FOR EXPORT", "UNLOCK TABLES"] {
        mysql_async::prelude::Queryable::query_drop(&mut conn, statement).await.unwrap();
    }
    round::minimal_user(&source).await;
    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;

    let target = scratch();
    let datadir = target.path().join("data");
    fs::create_dir(&datadir).unwrap();
    let owner = owner_to_be(&datadir);
    Cli::restore(&store, "backup", &datadir).json().await;

    assert!(!datadir.join("auto.cnf").exists(), "the restored server would have the source's identity");
    let mut common = 0;
    for path in all_below(&datadir) {
        let restored = fs::metadata(&path).unwrap();
        let expected = if restored.is_dir() { 0o750 } else { 0o640 };
        assert_eq!(restored.permissions().mode() & 0o7777, expected, "mode of {}", path.display());
        assert_eq!((restored.uid(), restored.gid()), owner, "owner of {}", path.display());
        let relative = path.strip_prefix(&datadir).unwrap();
        let Ok(original) = fs::metadata(source.datadir().join(relative)) else { continue };
        assert_eq!(original.permissions().mode(), restored.permissions().mode(), "mode of {}", path.display());
        if restored.is_file() && !relative.starts_with("#innodb_redo") {
            common += 1;
            // A file system may need some blocks more or less to note where the holes are.
            let slack = 128 + original.blocks() / 20;
            let (is, was) = (restored.blocks(), original.blocks());
            assert!(is <= was + slack, "{} takes {is} blocks of 512 bytes, and took {was}", path.display());
        }
    }
    assert!(common > 5, "only {common} files are those of the source");
    for name in ["d/holes.ibd", "undo_001", "more.ibu"] {
        let file = fs::metadata(datadir.join(name)).unwrap();
        let taken = file.blocks() * 512;
        assert!(taken * 2 < file.len(), "{name} of {} bytes takes {taken}: it has no holes", file.len());
    }
}

/// Makes the directory somebody's, if this user may; says whose files it will have.
fn owner_to_be(datadir: &Path) -> (u32, u32) {
    let metadata = fs::metadata(datadir).unwrap();
    if metadata.uid() != 0 {
        return (metadata.uid(), metadata.gid());
    }
    let owner = (12_345, 23_456);
    std::os::unix::fs::chown(datadir, Some(owner.0), Some(owner.1)).unwrap();
    fs::set_permissions(datadir, fs::Permissions::from_mode(0o750)).unwrap();
    owner
}

fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_below(&path));
        }
        found.push(path);
    }
    found
}
