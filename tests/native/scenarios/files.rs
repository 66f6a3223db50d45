//! Files that come and go: tables made, renamed, rebuilt, emptied, dropped and made again under the same name;
//! partitions, general tablespaces, undo tablespaces; tables that are encrypted and decrypted while they are used.

use super::{Work, numbers};

/// Tables' files.
pub async fn tables(work: &mut Work<'_>) {
    let some = numbers(1, 200 * work.scale);
    work.run_all([
        format!(
            "CREATE TABLE f_a (id INT PRIMARY KEY, v VARCHAR(100)) AS SELECT n AS id, SHA2(n, 256) AS v FROM {some}"
        ),
        "RENAME TABLE f_a TO f_b".to_owned(),
        // The name again, another table.
        format!("CREATE TABLE f_a (id INT PRIMARY KEY, w INT, KEY (w)) AS SELECT n AS id, n % 9 AS w FROM {some}"),
        "TRUNCATE TABLE f_b".to_owned(),
        format!("INSERT INTO f_b SELECT n, 'after truncate' FROM {some}"),
        "DROP TABLE f_a".to_owned(),
        "CREATE TABLE f_a (id INT PRIMARY KEY, only INT)".to_owned(),
        "INSERT INTO f_a VALUES (1, 2)".to_owned(),
        format!("CREATE TABLE f_gone AS SELECT n, REPEAT('g', 300) AS g FROM {some}"),
        "DROP TABLE f_gone".to_owned(),
        // Without redo, then changed.
        "CREATE TABLE f_i (id INT PRIMARY KEY, k INT, v VARCHAR(90))".to_owned(),
        format!("INSERT INTO f_i SELECT n, n * 7 % 100, SHA2(n, 224) FROM {some}"),
        "ALTER TABLE f_i ADD INDEX k (k), ADD INDEX v (v, k), ALGORITHM=INPLACE".to_owned(),
        "UPDATE f_i SET k = k + 1 WHERE id % 3 = 0".to_owned(),
        "ALTER TABLE f_i ENGINE=InnoDB".to_owned(),
        "DELETE FROM f_i WHERE id % 3 = 1".to_owned(),
        "ALTER TABLE f_i FORCE, ALGORITHM=COPY".to_owned(),
        "ALTER TABLE f_i DROP INDEX k".to_owned(),
        "CREATE TABLE f_p (id INT PRIMARY KEY, v VARCHAR(200)) PARTITION BY HASH (id) PARTITIONS 4".to_owned(),
        format!("INSERT INTO f_p SELECT n, SHA2(n, 256) FROM {some}"),
        "CREATE TABLE f_x (id INT PRIMARY KEY, v VARCHAR(200))".to_owned(),
        "INSERT INTO f_x VALUES (4, 'swapped'), (8, 'too')".to_owned(),
        "ALTER TABLE f_p EXCHANGE PARTITION p0 WITH TABLE f_x".to_owned(),
        "ALTER TABLE f_p COALESCE PARTITION 1".to_owned(),
        "CREATE TABLESPACE f_general ADD DATAFILE 'f_general.ibd'".to_owned(),
        "CREATE TABLE f_g (id INT PRIMARY KEY, v BLOB) TABLESPACE f_general".to_owned(),
        format!("INSERT INTO f_g SELECT n, RANDOM_BYTES(400) FROM {some}"),
        "CREATE TABLE f_h (id INT PRIMARY KEY) TABLESPACE f_general".to_owned(),
        "DROP TABLE f_g".to_owned(),
        "INSERT INTO f_h VALUES (1), (2)".to_owned(),
        "CREATE TABLESPACE f_short ADD DATAFILE 'f_short.ibd'".to_owned(),
        "DROP TABLESPACE f_short".to_owned(),
        "CREATE DATABASE f_db".to_owned(),
        "CREATE TABLE f_db.t (id INT PRIMARY KEY)".to_owned(),
        "INSERT INTO f_db.t VALUES (1)".to_owned(),
        "DROP DATABASE f_db".to_owned(),
    ])
    .await;
}

/// Automatic numbers whose rows are gone: only the redo's metadata knows how far they had come.
pub async fn automatic_numbers(work: &mut Work<'_>) {
    let some = numbers(1, 600);
    for table in ["auto_a", "auto_b", "auto_dropped"] {
        work.run_all([
            format!("CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, v INT)"),
            format!("INSERT INTO {table} (v) SELECT n FROM {some}"),
            format!("DELETE FROM {table} WHERE id > 10"),
        ])
        .await;
    }
    work.run_all([
        "ALTER TABLE auto_b AUTO_INCREMENT = 5000".to_owned(),
        "INSERT INTO auto_b (v) VALUES (1), (2), (3)".to_owned(),
        "DELETE FROM auto_b WHERE id > 10".to_owned(),
        "DROP TABLE auto_dropped".to_owned(),
        "CREATE TABLE auto_p (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 3"
            .to_owned(),
        format!("INSERT INTO auto_p (v) SELECT n FROM {some}"),
        "DELETE FROM auto_p WHERE id > 5".to_owned(),
        "CREATE TABLE auto_r (id INT AUTO_INCREMENT PRIMARY KEY, v INT)".to_owned(),
        "BEGIN".to_owned(),
        format!("INSERT INTO auto_r (v) SELECT n FROM {some}"),
        "ROLLBACK".to_owned(),
    ])
    .await;
}

/// Undo tablespaces made, emptied and dropped.
pub async fn undo_tablespaces(work: &mut Work<'_>) {
    work.run_all([
        "CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'",
        "CREATE UNDO TABLESPACE other ADD DATAFILE 'other.ibu'",
    ])
    .await;
    work.run("UPDATE f_b SET v = CONCAT('undo', id)").await;
    for name in ["innodb_undo_001", "other"] {
        work.run(format!("ALTER UNDO TABLESPACE {name} SET INACTIVE")).await;
        wait_until_empty(work, name).await;
    }
    work.run_all(["ALTER UNDO TABLESPACE innodb_undo_001 SET ACTIVE", "DROP UNDO TABLESPACE other"]).await;
    work.run("UPDATE f_b SET v = CONCAT('again', id)").await;
}

async fn wait_until_empty(work: &Work<'_>, name: &str) {
    let query = format!("SELECT STATE FROM information_schema.INNODB_TABLESPACES WHERE NAME = '{name}'");
    for _ in 0..2400 {
        let (state,): (String,) = work.server.row(&query).await;
        if state == "empty" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{name} does not get empty");
}

/// How the tables of [`sealed`] are kept, by their names.
const SEALED: [(&str, &str); 4] = [
    ("s_zlib", "COMPRESSION='zlib'"),
    ("s_lz4", "COMPRESSION='lz4'"),
    ("s_both", "COMPRESSION='zlib' ENCRYPTION='Y'"),
    ("s_secret", "ENCRYPTION='Y'"),
];

/// Those of them that a page size has: one of 4 KiB has no block that compression could save.
fn sealed_tables(work: &Work<'_>) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let small = work.page_size() <= 4096;
    SEALED.into_iter().filter(move |(_, how)| !(small && how.contains("COMPRESSION")))
}

/// Tables whose pages are in their files compressed, encrypted, or both, and an encrypted R-tree.
pub async fn sealed(work: &mut Work<'_>) {
    let some = numbers(1, 600 * work.scale);
    let compression = if work.page_size() > 4096 { "COMPRESSION='zlib'" } else { "" };
    for (table, how) in sealed_tables(work) {
        work.run_all([
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, k INT, v TEXT, b LONGBLOB, KEY (k)) {how}"),
            format!(
                "INSERT INTO {table} SELECT n, n * 7 % 50, REPEAT(SHA2(n, 256), n % 20), \
                 IF(n % 50, NULL, REPEAT(SHA2(n, 512), 400)) FROM {some}"
            ),
        ])
        .await;
    }
    work.run_all([
        "CREATE TABLE s_geo (id INT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL INDEX (g)) ENCRYPTION='Y'"
            .to_owned(),
        format!("INSERT INTO s_geo SELECT n, POINT(n, n % 7) FROM {some}"),
        format!(
            "CREATE TABLE s_zgeo (id INT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL INDEX (g)) {compression}"
        ),
        format!("INSERT INTO s_zgeo SELECT n, POINT(n, n % 7) FROM {some}"),
    ])
    .await;
}

/// Changes to some of their pages, small and large: what the server then writes may or may not get smaller by compression.
pub async fn sealed_changes(work: &mut Work<'_>) {
    let random = vec!["RANDOM_BYTES(1000)"; 40].join(", ");
    for (table, _) in sealed_tables(work) {
        work.run_all([
            format!("UPDATE {table} SET k = k + 1 WHERE id % 40 = 0"),
            format!("UPDATE {table} SET v = HEX(RANDOM_BYTES(450)) WHERE id % 90 BETWEEN 1 AND 20"),
            format!("DELETE FROM {table} WHERE id % 11 = 3"),
            format!("UPDATE {table} SET b = REPEAT('b', 30000) WHERE id % 100 = 0"),
            format!("UPDATE {table} SET b = CONCAT({random}) WHERE id % 100 = 50"),
            format!("INSERT INTO {table} SELECT 100000 + n, n, REPEAT('new', n), NULL FROM {}", numbers(1, 200)),
        ])
        .await;
    }
    for table in ["s_geo", "s_zgeo"] {
        work.run_all([
            format!("DELETE FROM {table} WHERE id % 5 = 0"),
            format!("INSERT INTO {table} SELECT 100000 + n, POINT(n % 9, n) FROM {}", numbers(1, 300)),
        ])
        .await;
    }
}

/// More undo tablespaces than a server ever has by itself, in use, some of them emptied and some gone. With
/// more work: as many as it can have beside its own two.
pub async fn many_undo_tablespaces(work: &mut Work<'_>) {
    let count = if work.scale > 1 { 125 } else { 20 };
    if work.scale > 1 {
        // With large pages it is more than any other case has. (All of it takes room on the disk at once.)
        work.run("SET GLOBAL innodb_redo_log_capacity = 4 << 30").await;
    }
    work.run("CREATE TABLE u_all (id INT PRIMARY KEY, v VARCHAR(900))").await;
    work.run(format!("INSERT INTO u_all SELECT n, REPEAT('u', 800) FROM {}", numbers(1, 300 * work.scale))).await;
    for number in 0..count {
        work.run(format!("CREATE UNDO TABLESPACE u_{number} ADD DATAFILE 'u_{number}.ibu'")).await;
        // Each transaction takes the next one.
        work.run(format!("UPDATE u_all SET v = CONCAT('{number} ', LEFT(v, 790)) WHERE id % 3 = {}", number % 3)).await;
    }
    for round in 0..2 {
        for number in (round..count).step_by(4) {
            work.run(format!("ALTER UNDO TABLESPACE u_{number} SET INACTIVE")).await;
        }
        for number in (round..count).step_by(4) {
            wait_until_empty(work, &format!("u_{number}")).await;
            // Some come back under the id that is next, others go, and one of them is made again.
            if number % 8 == round {
                work.run(format!("ALTER UNDO TABLESPACE u_{number} SET ACTIVE")).await;
            } else {
                work.run(format!("DROP UNDO TABLESPACE u_{number}")).await;
            }
        }
        for turn in 0..count {
            work.run(format!("UPDATE u_all SET v = CONCAT('{turn}', LEFT(v, 790)) WHERE id % 4 = {round}")).await;
        }
    }
    work.run("CREATE UNDO TABLESPACE u_4 ADD DATAFILE 'u_4.ibu'").await;
    for turn in 0..count {
        work.run(format!("UPDATE u_all SET v = CONCAT('{turn}', LEFT(v, 790)) WHERE id % 4 = 3")).await;
    }
}

/// Encrypted tablespaces, some changed from one to the other; a master key that changes; redo encrypted now and then.
pub async fn encryption(work: &mut Work<'_>) {
    let some = numbers(1, 400 * work.scale);
    work.run_all([
        "CREATE TABLE e_y (id INT PRIMARY KEY, v VARCHAR(200), KEY (v(20))) ENCRYPTION='Y'".to_owned(),
        "CREATE TABLE e_later (id INT PRIMARY KEY, v VARCHAR(200), KEY (v(20)))".to_owned(),
        "CREATE TABLE e_geo (id INT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL INDEX (g)) ENCRYPTION='Y'"
            .to_owned(),
        format!("INSERT INTO e_y SELECT n, SHA2(n, 512) FROM {some}"),
        format!("INSERT INTO e_later SELECT n, SHA2(n, 512) FROM {some}"),
        "INSERT INTO e_geo SELECT id, POINT(id, id % 7) FROM e_y".to_owned(),
        "SET GLOBAL innodb_redo_log_encrypt = ON".to_owned(),
        "UPDATE e_y SET v = SHA2(v, 256) WHERE id % 2 = 0".to_owned(),
        "ALTER INSTANCE ROTATE INNODB MASTER KEY".to_owned(),
        "UPDATE e_y SET v = SHA2(v, 224) WHERE id % 3 = 0".to_owned(),
        "SET GLOBAL innodb_redo_log_encrypt = OFF".to_owned(),
        "DELETE FROM e_y WHERE id % 5 = 0".to_owned(),
        "DELETE FROM e_geo WHERE id % 5 = 0".to_owned(),
        "ALTER TABLE e_later ENCRYPTION='Y'".to_owned(),
        // And back: what was secret is rewritten in the clear.
        "CREATE TABLE e_back (id INT PRIMARY KEY, v VARCHAR(200), KEY (v(20))) ENCRYPTION='Y'".to_owned(),
        format!("INSERT INTO e_back SELECT n, SHA2(n, 512) FROM {some}"),
        "ALTER TABLE e_back ENCRYPTION='N'".to_owned(),
        "UPDATE e_back SET v = 'in the clear' WHERE id % 2 = 0".to_owned(),
        // Shared ones change in place, page by page.
        "CREATE TABLESPACE e_general ADD DATAFILE 'e_general.ibd' ENCRYPTION='Y'".to_owned(),
        "CREATE TABLE e_g (id INT PRIMARY KEY, v VARCHAR(200), KEY (v(20))) TABLESPACE e_general ENCRYPTION='Y'"
            .to_owned(),
        format!("INSERT INTO e_g SELECT n, SHA2(n, 512) FROM {some}"),
        "ALTER TABLESPACE e_general ENCRYPTION='N'".to_owned(),
        "UPDATE e_g SET v = 'in the clear' WHERE id % 2 = 0".to_owned(),
        "UPDATE e_later SET v = 'encrypted now' WHERE id % 2 = 0".to_owned(),
        "SET GLOBAL innodb_undo_log_encrypt = ON".to_owned(),
        "UPDATE e_later SET v = 'undo too' WHERE id % 3 = 0".to_owned(),
    ])
    .await;
    if work.page_size() > 4096 {
        work.run_all([
            "CREATE TABLE e_pgz (id INT PRIMARY KEY, v TEXT) COMPRESSION='zlib' ENCRYPTION='Y'".to_owned(),
            "CREATE TABLE e_lz4 (id INT PRIMARY KEY, v TEXT) COMPRESSION='lz4'".to_owned(),
            format!("INSERT INTO e_pgz SELECT n, REPEAT(SHA2(n, 256), n % 20) FROM {some}"),
            format!("INSERT INTO e_lz4 SELECT n, REPEAT(SHA2(n, 256), n % 20) FROM {some}"),
            "UPDATE e_pgz SET v = LEFT(v, 60) WHERE id % 2 = 0".to_owned(),
            "DELETE FROM e_lz4 WHERE id % 3 = 0".to_owned(),
        ])
        .await;
    }
}

/// A shared tablespace of more pages than the pool has.
pub async fn large_shared(work: &mut Work<'_>, encryption: &str) {
    work.run_all([
        format!("CREATE TABLESPACE c_shared ADD DATAFILE 'c_shared.ibd' ENCRYPTION='{encryption}'"),
        format!(
            "CREATE TABLE c_rows (id INT PRIMARY KEY, v VARCHAR(900)) TABLESPACE c_shared ENCRYPTION='{encryption}'"
        ),
        format!("INSERT INTO c_rows SELECT n, REPEAT(SHA2(n, 256), 13) FROM {}", numbers(1, 90_000)),
    ])
    .await;
}

/// Begins to encrypt or to decrypt it in its place, and comes back in the midst of that.
pub async fn change_encryption(work: &mut Work<'_>, encryption: &str) {
    let stages = "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME LIKE 'events_stages%'";
    work.run(stages).await;
    let mut conn = work.server.connect().await;
    let alter = format!("ALTER TABLESPACE c_shared ENCRYPTION='{encryption}'");
    let changing = tokio::spawn(async move { mysql_async::prelude::Queryable::query_drop(&mut conn, alter).await });
    let query = "SELECT MAX(WORK_COMPLETED) FROM performance_schema.events_stages_current \
                 WHERE EVENT_NAME LIKE '%alter tablespace%' AND WORK_COMPLETED < WORK_ESTIMATED";
    loop {
        let (pages,): (Option<u64>,) = work.server.row(query).await;
        if pages.is_some_and(|pages| pages >= 64) {
            println!("changed to ENCRYPTION='{encryption}' as far as page {}", pages.unwrap_or_default());
            return;
        }
        assert!(!changing.is_finished(), "it is changed too fast to be cut");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
