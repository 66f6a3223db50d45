//! `ROW_FORMAT=COMPRESSED`: pages whose rows are compressed, with a log of changes behind them and what must not be
//! compressed beside them.

use super::{Work, numbers};

/// Sizes of compressed pages that an instance has, in KiB.
fn sizes(page_size: u64) -> Vec<u64> {
    [1, 2, 4, 8, 16].into_iter().filter(|kib| kib << 10 <= page_size.min(16384)).collect()
}

/// Rows and large objects on compressed pages of every size.
pub async fn compressed(work: &mut Work<'_>) {
    if work.page_size() > 16384 {
        return;
    }
    for kib in sizes(work.page_size()) {
        let table = format!("zip_{kib}");
        // A row must fit into an empty compressed page.
        let (short, long) = if kib == 1 { (40, 60) } else { (120, 200 * kib.min(4)) };
        work.run(format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, k INT, v VARCHAR({long}) CHARACTER SET latin1, n INT, b LONGBLOB, \
             KEY k (k), KEY v (v({short}), n)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={kib}"
        ))
        .await;
        change(work, &table, long).await;
    }
}

async fn change(work: &mut Work<'_>, table: &str, long: u64) {
    let count = 260 * work.scale;
    let blob = "REPEAT(RANDOM_BYTES(700), n % 30)";
    work.run_all([
        format!(
            "INSERT INTO {table} SELECT n, n % 100, LEFT(REPEAT(SHA2(n, 512), 8), n * 37 % {long}), IF(n % 3, n, NULL), \
             IF(n % 25, NULL, {blob}) FROM {}",
            numbers(1, count)
        ),
        // One column at a time, over and over: the log of changes fills up.
        format!("UPDATE {table} SET k = k + 1"),
        format!("UPDATE {table} SET k = k + 3 WHERE id % 2 = 0"),
        format!("UPDATE {table} SET k = k - 2 WHERE id % 3 = 0"),
        format!("UPDATE {table} SET n = IF(n IS NULL, 1, NULL) WHERE id % 3 = 1"),
        format!("UPDATE {table} SET v = LEFT(REPEAT(SHA2(id + 7, 384), 8), LENGTH(v)) WHERE id % 4 = 1"),
        format!("UPDATE {table} SET v = LEFT(v, 20) WHERE id % 5 = 1"),
        format!("UPDATE {table} SET v = CONCAT(v, LEFT(SHA2(id, 512), {long} - LENGTH(v))) WHERE id % 7 = 1"),
        format!("DELETE FROM {table} WHERE id % 3 = 2"),
        format!("UPDATE {table} SET b = REPEAT(SHA2(id, 512), 300) WHERE id % 40 = 1"),
        format!("UPDATE {table} SET b = NULL WHERE id % 50 = 0"),
        "BEGIN".to_owned(),
        format!("UPDATE {table} SET v = 'undone', k = 0 WHERE id % 4 = 0"),
        "ROLLBACK".to_owned(),
    ])
    .await;
    super::wait_for_purge(work.server).await;
    work.run_all([
        // Into the room of those that went.
        format!(
            "INSERT IGNORE INTO {table} SELECT n, 1, LEFT(SHA2(n, 512), n % 40), n, NULL FROM {}",
            numbers(1, count)
        ),
        format!(
            "INSERT INTO {table} SELECT 1000000 - n, n, LEFT(REPEAT('down', 99), n % {long}), n, NULL FROM {}",
            numbers(1, count / 2)
        ),
        format!("DELETE FROM {table} ORDER BY id LIMIT {}", count / 3),
    ])
    .await;
    large_objects(work, table).await;
}

/// Objects of more than 128 KiB, which are compressed in pieces: their pages are others than those of smaller ones.
async fn large_objects(work: &mut Work<'_>, table: &str) {
    let random = vec!["RANDOM_BYTES(1000)"; 40].join(", ");
    let object = |kib: u32| format!("CONCAT({random}, REPEAT(SHA2(n, 512), {}), {random})", kib * 8);
    let insert = |from: u32, kib: u32| {
        format!(
            "INSERT INTO {table} (id, b) SELECT n, {} FROM {}",
            object(kib),
            numbers(u64::from(2_000_000 + from), 3 * work.scale)
        )
    };
    let statements = [
        insert(0, 60),
        insert(100, 300),
        format!("UPDATE {table} SET b = CONCAT(b, {random}) WHERE id BETWEEN 2000000 AND 2000050"),
        format!("UPDATE {table} SET b = LEFT(b, 1000) WHERE id = 2000001"),
        format!("DELETE FROM {table} WHERE id IN (2000000, 2000101)"),
        "BEGIN".to_owned(),
        insert(200, 200),
        format!("UPDATE {table} SET b = REVERSE(b) WHERE id = 2000102"),
        "ROLLBACK".to_owned(),
    ];
    work.run_all(statements).await;
    super::wait_for_purge(work.server).await;
    // Into the room of those that went.
    let again = numbers(2_000_300, 2);
    work.run(format!("INSERT INTO {table} (id, b) SELECT n, {} FROM {again}", object(150))).await;
}

/// The same without images of pages in the log: the server compresses again when it recovers.
pub async fn not_logged(work: &mut Work<'_>) {
    if work.page_size() > 16384 {
        return;
    }
    work.run("SET GLOBAL innodb_log_compressed_pages = OFF").await;
    for (level, kib) in [(6, 4), (1, 4), (9, 2)] {
        let table = format!("zip_level_{level}");
        work.run_all([
            format!("SET GLOBAL innodb_compression_level = {level}"),
            format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, k INT, v VARCHAR(400) CHARACTER SET latin1, n INT, b LONGBLOB, \
                 KEY k (k), KEY v (v(100), n)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={kib}"
            ),
        ])
        .await;
        change(work, &table, 400).await;
    }
    work.run_all(["SET GLOBAL innodb_log_compressed_pages = ON", "SET GLOBAL innodb_compression_level = DEFAULT"])
        .await;
}
