//! DDL that never stops: what it was at when the lock came is in the redo that a backup begins with, what waits for the
//! lock runs the moment behind the cut. Both recoveries must make the same of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;

use super::start_on;
use super::support::cli::Cli;
use super::support::server::{Server, scratch};
use super::support::{replica, round};

/// How many backups are taken meanwhile: each meets other statements.
const BACKUPS: u64 = 2;
const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)";

/// What each session does over and over.
fn turns() -> Vec<Vec<String>> {
    let text = |statements: &[&str]| statements.iter().map(|statement| statement.replace("ROWS", ROWS)).collect();
    vec![
        text(&[
            "CREATE TABLE d.a (id INT PRIMARY KEY AUTO_INCREMENT, k INT, v VARCHAR(300))",
            "INSERT INTO d.a (k, v) ROWS SELECT i % 7, SHA2(i, 512) FROM n",
            "ALTER TABLE d.a ADD INDEX k (k), ADD INDEX v (v, k), ALGORITHM=INPLACE",
            "UPDATE d.a SET k = k + 1 WHERE id % 3 = 0",
            "ALTER TABLE d.a ADD COLUMN added INT DEFAULT 7, ALGORITHM=INSTANT",
            "INSERT INTO d.a (k, v, added) ROWS SELECT i, 'after', i FROM n",
            "ALTER TABLE d.a ENGINE=InnoDB",
            "RENAME TABLE d.a TO d.b",
            "CREATE TABLE d.a (id INT PRIMARY KEY, other BLOB) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
            "INSERT INTO d.a ROWS SELECT i, REPEAT('o', i * 50) FROM n",
            "RENAME TABLE d.a TO d.swap, d.b TO d.a, d.swap TO d.b",
            "TRUNCATE TABLE d.a",
            "INSERT INTO d.a (k, v) ROWS SELECT i, 'again' FROM n",
            "DROP TABLE d.b",
            "ALTER TABLE d.a FORCE, ALGORITHM=COPY",
            "DROP TABLE d.a",
        ]),
        text(&[
            "CREATE TABLE d.p (id INT PRIMARY KEY, v VARCHAR(300)) PARTITION BY HASH (id) PARTITIONS 3",
            "INSERT INTO d.p ROWS SELECT i, SHA2(i, 512) FROM n",
            "CREATE TABLE d.x (id INT PRIMARY KEY, v VARCHAR(300))",
            "INSERT INTO d.x VALUES (3, 'swapped'), (6, 'too')",
            "ALTER TABLE d.p EXCHANGE PARTITION p0 WITH TABLE d.x",
            "ALTER TABLE d.p ADD PARTITION PARTITIONS 2",
            "ALTER TABLE d.p TRUNCATE PARTITION p1",
            "ALTER TABLE d.p COALESCE PARTITION 2",
            "CREATE TABLESPACE shared ADD DATAFILE 'shared.ibd'",
            "CREATE TABLE d.g (id INT PRIMARY KEY, v TEXT, FULLTEXT (v)) TABLESPACE shared",
            "INSERT INTO d.g ROWS SELECT i, CONCAT('words ', SHA2(i, 256)) FROM n",
            "ALTER TABLE d.g ADD COLUMN w INT, ADD INDEX (w)",
            "DROP TABLE d.p, d.x, d.g",
            "DROP TABLESPACE shared",
        ]),
        text(&[
            "CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'",
            "UPDATE d.kept SET v = CONCAT(id, ' more') WHERE id % 2 = 0",
            "ALTER UNDO TABLESPACE innodb_undo_001 SET INACTIVE",
            "UPDATE d.kept SET v = CONCAT(id, ' less') WHERE id % 2 = 1",
            "EMPTY innodb_undo_001",
            "ALTER UNDO TABLESPACE innodb_undo_001 SET ACTIVE",
            "ALTER UNDO TABLESPACE more SET INACTIVE",
            "EMPTY more",
            "DROP UNDO TABLESPACE more",
        ]),
        // What no lock holds up: rows, and the size of the redo log, whose files come and go by it.
        text(&["UPDATE d.kept SET v = SHA2(v, 512) WHERE id % 5 = 3"]),
        text(&[
            "SET GLOBAL innodb_redo_log_capacity = 100 * 1048576",
            "DO SLEEP(0.4)",
            "SET GLOBAL innodb_redo_log_capacity = 48 * 1048576",
            "DO SLEEP(0.4)",
        ]),
    ]
}

/// Waits until nothing uses an undo tablespace any more, which takes as long as a backup where one runs.
async fn wait_until_empty(conn: &mut mysql_async::Conn, name: &str) {
    let query = format!("SELECT STATE FROM information_schema.INNODB_TABLESPACES WHERE NAME = '{name}'");
    let deadline = Instant::now() + Duration::from_mins(2);
    while conn.query_first::<String, _>(&query).await.unwrap().unwrap() != "empty" {
        assert!(Instant::now() < deadline, "{name} does not get empty");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_up_to_the_lock_and_from_the_cut_on() {
    let source = Server::builder().start().await;
    source
        .sql(&format!(
            "CREATE DATABASE d;\nCREATE TABLE d.kept (id INT PRIMARY KEY, v VARCHAR(300));\n\
             INSERT INTO d.kept {ROWS} SELECT i, SHA2(i, 512) FROM n"
        ))
        .await;
    round::minimal_user(&source).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut sessions = Vec::new();
    for statements in turns() {
        let (mut conn, stop, done) = (source.connect().await, Arc::clone(&stop), Arc::clone(&done));
        sessions.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for statement in &statements {
                    match statement.strip_prefix("EMPTY ") {
                        Some(name) => wait_until_empty(&mut conn, name).await,
                        None => conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let (_folder, store) = round::folder_store();
    for number in 0..BACKUPS {
        let (before, after) = (done.load(Ordering::Relaxed), Duration::from_millis(2100 + 700 * number));
        tokio::time::sleep(after).await;
        while done.load(Ordering::Relaxed) < before + 23 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        round::backup(&source, &store).args(["--name", &format!("b{number}")]).json().await;
    }
    stop.store(true, Ordering::Relaxed);
    for session in sessions {
        session.await.unwrap();
    }
    for number in 0..BACKUPS {
        compare_recoveries(&source, &store, &format!("b{number}")).await;
    }
    round::assert_nothing_left(&source).await;
}

/// Brings a backup back in both ways; a client must not be able to tell which is which.
async fn compare_recoveries(source: &Server, store: &str, name: &str) {
    let target = scratch();
    let mut servers = Vec::new();
    for recovery in [round::Recovery::Native, round::Recovery::Server] {
        let datadir = target.path().join(format!("{recovery:?}"));
        let restored = recovery.of(Cli::restore(store, name, &datadir).arg("--check"), source).json().await;
        recovery.assert_done(&restored);
        assert_eq!(restored["structure"]["problemCount"], 0, "{name}: {restored}");
        let server = start_on(source, &datadir, &restored).await;
        server.error_log().assert_clean();
        servers.push(server);
    }
    let (native, server) = (&servers[0], &servers[1]);
    let checked = replica::check_tables(native).await;
    assert_eq!(checked, replica::check_tables(server).await, "{name}: other tables are there");
    replica::compare_checksums(native, server).await;
    for query in [
        "SELECT CONCAT_WS(' ', TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE) FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = 'd' ORDER BY 1",
        "SELECT CONCAT_WS(' ', NAME, FLAG, SPACE_TYPE) FROM information_schema.INNODB_TABLESPACES ORDER BY 1",
    ] {
        let (ours, theirs) = (native.rows::<(String,)>(query).await, server.rows::<(String,)>(query).await);
        assert_eq!(ours, theirs, "{name}");
    }
    eprintln!("{name}: {checked} tables are the same");
}
