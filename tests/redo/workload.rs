//! Work that makes a server write every kind of redo record that it can be brought to write.

use std::time::Duration;

use crate::support::server::Server;

/// Row formats, with what `CREATE TABLE` says for them. Compressed ones only where pages are small enough.
fn formats(page_size: u32) -> Vec<(&'static str, &'static str)> {
    let mut formats =
        vec![("dyn", "ROW_FORMAT=DYNAMIC"), ("com", "ROW_FORMAT=COMPACT"), ("red", "ROW_FORMAT=REDUNDANT")];
    // A page must be larger than a block of the file system.
    if page_size > 4096 {
        formats.push(("pgz", "ROW_FORMAT=DYNAMIC COMPRESSION='zlib'"));
    }
    if page_size <= 16384 {
        formats.push(("zip", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4"));
    }
    formats
}

/// A set of numbers to insert from: `{n}` of them.
fn numbers(from: u32, count: u32) -> String {
    format!(
        "(WITH RECURSIVE s(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {from} + {count}) SELECT n FROM s) AS s"
    )
}

/// Makes the schema and its procedures.
pub async fn prepare(server: &Server) {
    server.sql("SET GLOBAL cte_max_recursion_depth = 1000000;\nCREATE DATABASE w").await;
    for (name, format) in formats(server.page_size()) {
        server
            .sql(&format!(
                "CREATE TABLE w.{name} (id INT AUTO_INCREMENT PRIMARY KEY, k INT, v VARCHAR(700), c CHAR(20), \
                 b LONGBLOB, KEY (k), KEY (v(100), k)) {format};\n\
                 CREATE TABLE w.{name}_n (a VARCHAR(60), u CHAR(8), v VARBINARY(300), PRIMARY KEY (a), UNIQUE (u)) {format};\n\
                 CREATE TABLE w.{name}_i (id INT PRIMARY KEY, a INT, b VARCHAR(100)) {}",
                if name == "pgz" { "" } else { format }
            ))
            .await;
    }
    server
        .sql(
            "CREATE TABLE w.part (id INT PRIMARY KEY, v VARCHAR(200)) PARTITION BY HASH (id) PARTITIONS 4;\n\
             CREATE TABLE w.fts (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT, FULLTEXT (t));\n\
             CREATE TABLE w.geo (id INT AUTO_INCREMENT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL INDEX (g));\n\
             CREATE TABLE w.geo_red (id INT AUTO_INCREMENT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL INDEX (g)) ROW_FORMAT=REDUNDANT;\n\
             CREATE TABLE w.js (id INT PRIMARY KEY, j JSON, x INT GENERATED ALWAYS AS (j->'$.n') VIRTUAL, KEY (x), KEY m ((CAST(j->'$.a' AS UNSIGNED ARRAY))));\n\
             CREATE TABLE w.small (id INT AUTO_INCREMENT PRIMARY KEY, v INT);\n\
             CREATE PROCEDURE w.many(IN n INT) BEGIN DECLARE i INT DEFAULT 0; WHILE i < n DO INSERT INTO w.small (v) VALUES (i); \
             UPDATE w.small SET v = v + 1 WHERE id = 1 + i % 50; SET i = i + 1; END WHILE; END",
        )
        .await;
}

/// Rows in, changed, out, in all row formats.
pub async fn change_rows(server: &Server, scale: u32) {
    for (name, _) in formats(server.page_size()) {
        let numbers_up = numbers(1, 60 * scale);
        let numbers_all = numbers(1, 90 * scale);
        let mut statements = vec![
            format!(
                "INSERT INTO w.{name} (k, v, c) SELECT n * 7 % 1000, REPEAT(CHAR(97 + n % 26), n % 500), IF(n % 3, 'x', NULL) FROM {numbers_up}"
            ),
            format!(
                "INSERT INTO w.{name}_n SELECT SHA2(n, 224), RIGHT(SHA2(n, 256), 8), RANDOM_BYTES(1 + n % 200) FROM {numbers_all}"
            ),
            format!("UPDATE w.{name} SET k = k + 1 WHERE id % 3 = 0"),
            format!("UPDATE w.{name} SET c = 'changed' WHERE id % 5 = 0"),
            format!("UPDATE w.{name} SET c = NULL WHERE id % 7 = 0"),
            format!("UPDATE w.{name} SET v = REPEAT('longer', id % 110) WHERE id % 4 = 1"),
            format!("UPDATE w.{name} SET v = '' WHERE id % 6 = 1"),
            format!("DELETE FROM w.{name} WHERE id % 4 = 0"),
            format!("DELETE FROM w.{name}_n WHERE a > 'c' ORDER BY a LIMIT {}", 40 * scale),
            format!(
                "INSERT INTO w.{name} (id, k, v) SELECT 1000000 - n, n, REPEAT('down', 40 + n % 60) FROM {numbers_up}"
            ),
            format!("UPDATE w.{name}_n SET v = RANDOM_BYTES(LENGTH(v)) WHERE u > '8'"),
            format!(
                "REPLACE INTO w.{name}_n SELECT SHA2(n, 224), RIGHT(SHA2(n + 5, 256), 8), REPEAT('z', n % 300) FROM {numbers_up}"
            ),
            format!("INSERT INTO w.{name} (k, b) SELECT n, REPEAT(CHAR(n % 250), 3000 * n) FROM {}", numbers(1, 12)),
            format!("INSERT INTO w.{name} (k, b) SELECT n, RANDOM_BYTES(1000) FROM {numbers_all}"),
            format!("UPDATE w.{name} SET b = REPEAT(RANDOM_BYTES(900), id % 9) WHERE k < 9"),
            format!("DELETE FROM w.{name} WHERE k < 6"),
        ];
        if server.page_size() < 16384 {
            // Local parts of rows must stay below half a page.
            statements.retain(|statement| !statement.contains("RANDOM_BYTES(1000)"));
        }
        for statement in statements {
            server.sql(&statement).await;
        }
        server
            .sql(&format!(
                "ROLLBACK;\nBEGIN;\nUPDATE w.{name} SET k = k + 5, v = CONCAT(v, 'r') WHERE id % 9 = 0;\nROLLBACK"
            ))
            .await;
    }
    server.sql("CALL w.many(150)").await;
}

/// Columns added and dropped at once, with rows of every version.
pub async fn change_columns(server: &Server) {
    // Compressed tables do not have it.
    for (name, _) in formats(server.page_size()).into_iter().filter(|(name, _)| *name != "zip") {
        for version in 0..4 {
            let from = version * 100;
            let statements = [
                format!(
                    "INSERT INTO w.{name}_i (id, a, b) SELECT n, n, REPEAT('b', n % 100) FROM {}",
                    numbers(from, 100)
                ),
                format!(
                    "ALTER TABLE w.{name}_i ADD COLUMN x{version} VARCHAR(20) DEFAULT 'd{version}' {}, ALGORITHM=INSTANT",
                    if version % 2 == 0 { "FIRST" } else { "" }
                ),
                format!("UPDATE w.{name}_i SET x{version} = 'new' WHERE id % 5 = 0"),
                format!("UPDATE w.{name}_i SET a = a + 1 WHERE id % 3 = 0"),
                format!("DELETE FROM w.{name}_i WHERE id % 11 = 0"),
            ];
            for statement in statements {
                server.sql(&statement).await;
            }
        }
        server.sql(&format!("ALTER TABLE w.{name}_i DROP COLUMN x1, ALGORITHM=INSTANT;\nUPDATE w.{name}_i SET x2 = NULL, a = 9 WHERE id % 4 = 0")).await;
        server
            .sql(&format!(
                "INSERT INTO w.{name}_i (id, a, b) SELECT n, n, REPEAT('b', n % 100) FROM {}",
                numbers(1000, 500)
            ))
            .await;
    }
}

/// Rows so large that a page is emptied before it can be merged: the leftmost page goes, and what pointed to it.
pub async fn empty_pages(server: &Server) {
    let size = (server.page_size() / 2 - 320).min(15_000);
    for (name, format) in formats(server.page_size()).into_iter().filter(|(name, _)| *name != "zip") {
        server
            .sql(&format!(
                "CREATE TABLE w.{name}_b (id INT PRIMARY KEY, v VARBINARY({size}) NOT NULL) {format};\n\
                 INSERT INTO w.{name}_b SELECT n, REPEAT('b', {size}) FROM {};\nDELETE FROM w.{name}_b WHERE id <= 20",
                numbers(1, 60)
            ))
            .await;
    }
}

/// Waits until purge has removed what was deleted: until its list does not get shorter any more. It keeps a few
/// entries when it is idle.
pub async fn wait_for_purge(server: &Server) {
    let (mut least, mut quiet) = (u64::MAX, 0);
    while quiet < 15 {
        let query = "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'";
        let (length,): (u64,) = server.row(query).await;
        quiet = if length < least { 0 } else { quiet + 1 };
        least = least.min(length);
        if length <= 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Indexes of every kind, and what purges them.
pub async fn change_indexes(server: &Server, scale: u32) {
    let some = numbers(1, 20 * scale);
    for statement in [
        format!("INSERT INTO w.part SELECT n, REPEAT('p', n % 200) FROM {some}"),
        format!("INSERT INTO w.fts (t) SELECT CONCAT('word', n % 97, ' other', n, ' and more ', SHA2(n, 224)) FROM {some}"),
        format!("INSERT INTO w.geo (g) SELECT POINT(n * 37 % 1000, n * 91 % 1000) FROM {some}"),
        format!("INSERT INTO w.geo_red (g) SELECT POINT(n * 37 % 1000, n * 91 % 1000) FROM {some}"),
        format!("INSERT INTO w.js (id, j) SELECT n, JSON_OBJECT('n', n, 'a', JSON_ARRAY(n, n + 1), 't', REPEAT('j', 9000)) FROM {}", numbers(1, 40)),
        "UPDATE w.js SET j = JSON_SET(j, '$.n', 7, '$.t', REPEAT('k', 9000)) WHERE id % 2 = 0".to_owned(),
        "UPDATE w.js SET j = JSON_REPLACE(j, '$.n', 8)".to_owned(),
        "DELETE FROM w.geo WHERE id % 3 = 0".to_owned(),
        "DELETE FROM w.geo_red WHERE id % 3 = 0".to_owned(),
        "UPDATE w.geo SET g = POINT(id, id) WHERE id % 5 = 0".to_owned(),
        "DELETE FROM w.fts WHERE id % 2 = 0".to_owned(),
        "SET GLOBAL innodb_optimize_fulltext_only = ON;\nOPTIMIZE TABLE w.fts;\nSET GLOBAL innodb_optimize_fulltext_only = OFF".to_owned(),
    ] {
        server.sql(&statement).await;
    }
}

/// Files and dictionary: tables made, renamed, rebuilt, emptied and dropped; undo tablespaces; general tablespaces.
pub async fn change_files(server: &Server) {
    server
        .sql(
            "CREATE TABLE w.f1 (id INT PRIMARY KEY, v VARCHAR(100)) AS SELECT id, LEFT(v, 50) AS v FROM w.dyn;\n\
             RENAME TABLE w.f1 TO w.f2;\nTRUNCATE TABLE w.f2;\nDROP TABLE w.f2;\n\
             ALTER TABLE w.com ADD INDEX later (c, k), ALGORITHM=INPLACE;\nALTER TABLE w.red ADD INDEX later (c, k), ALGORITHM=INPLACE;\n\
             ALTER TABLE w.dyn ENGINE=InnoDB;\nALTER TABLE w.red FORCE, ALGORITHM=COPY;\nALTER TABLE w.com DROP INDEX later;\n\
             CREATE TABLESPACE general ADD DATAFILE 'general.ibd';\nCREATE TABLE w.g (id INT PRIMARY KEY, v BLOB) TABLESPACE general;\n\
             INSERT INTO w.g SELECT id, RANDOM_BYTES(900) FROM w.small;\nDROP TABLE w.g;\nDROP TABLESPACE general;\n\
             CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu';\nALTER UNDO TABLESPACE innodb_undo_001 SET INACTIVE;\n\
             ALTER TABLE w.part EXCHANGE PARTITION p0 WITH TABLE w.swap;\nALTER TABLE w.part COALESCE PARTITION 1"
                .replace("ALTER TABLE w.part EXCHANGE", "CREATE TABLE w.swap (id INT PRIMARY KEY, v VARCHAR(200));\nALTER TABLE w.part EXCHANGE")
                .as_str(),
        )
        .await;
    let state = "SELECT STATE FROM information_schema.INNODB_TABLESPACES WHERE NAME = ";
    for _ in 0..1200 {
        let (found,): (String,) = server.row(&format!("{state}'innodb_undo_001'")).await;
        if found == "empty" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.sql("ALTER UNDO TABLESPACE innodb_undo_001 SET ACTIVE").await;
}

/// Compressed pages without their images in the log, at several levels.
pub async fn change_compressed(server: &Server) {
    if server.page_size() > 16384 {
        return;
    }
    server
        .sql(&format!("CREATE TABLE w.zip8 (id INT PRIMARY KEY, k INT, v VARCHAR(900), b BLOB, KEY (k)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={}", (server.page_size() >> 10).min(8)))
        .await;
    for (round, logged) in ["ON", "OFF"].into_iter().enumerate() {
        let from = 1 + u32::try_from(round).unwrap() * 10000;
        server.sql(&format!("SET GLOBAL innodb_log_compressed_pages = {logged}")).await;
        for statement in [
            format!(
                "INSERT INTO w.zip8 SELECT n, n % 100, REPEAT(SHA2(n, 256), 1 + n % 10), NULL FROM {}",
                numbers(from, 1200)
            ),
            format!(
                "UPDATE w.zip8 SET v = REPEAT(SHA2(id, 384), 1 + id % 6), k = k + 1 WHERE id >= {from} AND id % 3 = 0"
            ),
            format!("UPDATE w.zip8 SET k = k + 1 WHERE id >= {from}"),
            format!("UPDATE w.zip8 SET k = k + 3 WHERE id >= {from}"),
            format!("UPDATE w.zip8 SET k = k + 2 WHERE id >= {from}"),
            format!("DELETE FROM w.zip8 WHERE id >= {from} AND id % 5 < 2"),
            format!("UPDATE w.zip8 SET b = REPEAT(RANDOM_BYTES(1000), 20) WHERE id >= {from} AND id % 50 = 3"),
            format!("UPDATE w.zip8 SET b = NULL WHERE id >= {from} AND id % 100 = 3"),
        ] {
            server.sql(&statement).await;
        }
    }
    // Rows that do not fit into what is left of a page, but do when it is compressed with them.
    let digits: Vec<String> = (0..7).map(|part| format!("SHA2(n + {part} * 100000, 512)")).collect();
    server
        .sql(&format!(
            "CREATE TABLE w.zip4 (id INT PRIMARY KEY, v VARCHAR(1000)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4;\n\
             INSERT INTO w.zip4 SELECT n, LEFT(CONCAT({}), 400 + n * 7 % 496) FROM {}",
            digits.join(", "),
            numbers(1, 600)
        ))
        .await;
    server.sql("SET GLOBAL innodb_log_compressed_pages = ON").await;
}

/// Encrypted tablespaces, the master key rotated, and a redo log that is encrypted for a while.
pub async fn encrypt(server: &Server) {
    server
        .sql(&format!(
            "CREATE TABLE w.enc (id INT PRIMARY KEY, v VARCHAR(200)) ENCRYPTION='Y';\n\
             SET GLOBAL innodb_redo_log_encrypt = ON;\nINSERT INTO w.enc SELECT n, REPEAT('secret', n % 30) FROM {};\n\
             ALTER INSTANCE ROTATE INNODB MASTER KEY;\nUPDATE w.enc SET v = 'short' WHERE id % 2 = 0;\n\
             SET GLOBAL innodb_redo_log_encrypt = OFF;\nDELETE FROM w.enc WHERE id % 3 = 0;\n\
             ALTER TABLE w.enc ENCRYPTION='N';\nSET GLOBAL innodb_redo_log_encrypt = ON;\nCALL w.many(20);\n\
             SET GLOBAL innodb_redo_log_encrypt = OFF",
            numbers(1, 500)
        ))
        .await;
}
