//! Rows in and out of pages, in every order and size: the heap and its free rows, the page directory, directions of
//! inserts, NULL and not, off-page columns in the oldest format, keys of prefixes.

use super::{FORMATS, Work, numbers};

/// Rows that come ascending, descending and at random, shrink, grow, go, and come back into the room of others.
pub async fn heap(work: &mut Work<'_>) {
    for format in FORMATS {
        let table = format!("heap_{format}");
        work.run(format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, k INT, v VARBINARY(400), c CHAR(11), f BINARY(7), KEY k (k), \
             KEY vk (v(40), k)) ROW_FORMAT={format}"
        ))
        .await;
        change_heap(work, &table).await;
    }
}

/// Random statements on a table of `heap`.
async fn change_heap(work: &mut Work<'_>, table: &str) {
    let (mut low, mut high) = (500_000_u64, 500_000_u64);
    let steps = 22 * work.scale;
    for step in 0..steps {
        let count = 30 + work.random.below(200);
        let length = 1 + work.random.below(300);
        let part = 2 + work.random.below(9);
        let at = work.random.below(part);
        let value = format!("LEFT(REPEAT(SHA2(n, 512), 4), n * 13 % {length})");
        let statement = match work.random.below(13) {
            _ if step < 3 => ascending(table, &mut high, count, &value),
            0 | 1 => ascending(table, &mut high, count, &value),
            2 | 3 => {
                low -= count;
                // One by one from the top: each goes before the one that came last.
                format!(
                    "INSERT INTO {table} SELECT {low} + {count} - 1 - n, n, {value}, 'down', 'f' FROM {}",
                    numbers(0, count)
                )
            }
            4 => format!(
                "INSERT IGNORE INTO {table} SELECT {low} + n * 7919 % {}, n % 50, {value}, NULL, 'random' FROM {}",
                high - low + 1,
                numbers(step * 1000, count)
            ),
            5 => format!("DELETE FROM {table} WHERE id % {part} = {at} ORDER BY id LIMIT {}", count * 2),
            6 => format!("DELETE FROM {table} WHERE id % {part} = {at} ORDER BY id DESC LIMIT {}", count * 2),
            7 => format!("UPDATE {table} SET v = LEFT(v, {length} % 30) WHERE id % {part} = {at}"),
            8 => format!(
                "UPDATE {table} SET v = CONCAT(v, LEFT(SHA2(id, 512), {length} % 120)) WHERE id % {part} = {at}"
            ),
            // Of the same size: in their place.
            9 => format!("UPDATE {table} SET f = LEFT(SHA2(id + {step}, 224), 7), k = k + 1 WHERE id % {part} = {at}"),
            10 => format!(
                "UPDATE {table} SET c = IF(c IS NULL, 'not null', NULL), k = NULLIF(k % 5, 2) WHERE id % {part} = {at}"
            ),
            11 => format!(
                "UPDATE {table} SET v = IF(v IS NULL, LEFT(SHA2(id, 256), {length} % 50), NULL) WHERE id % {part} = {at}"
            ),
            // As long as it was, byte for byte another.
            _ => format!("UPDATE {table} SET v = REPEAT(CHAR(65 + {step} % 26), LENGTH(v)) WHERE id % {part} = {at}"),
        };
        let undone = work.random.chance(15);
        if undone {
            work.run("BEGIN").await;
        }
        work.run(statement).await;
        if undone {
            work.run("ROLLBACK").await;
        }
    }
    // The last row of a page's directory, again and again.
    for _ in 0..6 {
        work.run(format!("DELETE FROM {table} ORDER BY id DESC LIMIT 1")).await;
    }
}

fn ascending(table: &str, high: &mut u64, count: u64, value: &str) -> String {
    let from = *high + 1;
    *high += count;
    format!(
        "INSERT INTO {table} SELECT {from} + n, n * 31 % 211, {value}, IF(n % 3, 'up', NULL), 'f' FROM {}",
        numbers(0, count)
    )
}

/// The oldest format's ways: NULL of fixed columns keeps its room, offsets of one and of two bytes, off-page columns
/// with and without a part in the row, keys of prefixes.
pub async fn redundant(work: &mut Work<'_>) {
    let long = (work.page_size() / 8).min(2000);
    work.run(format!(
        "CREATE TABLE red (id INT PRIMARY KEY, a INT, b BIGINT, c CHAR(20), d DATETIME, v VARCHAR(60), w VARBINARY({long}), \
         t TEXT, KEY a (a), KEY t (t(30)), KEY c (c(5), b)) ROW_FORMAT=REDUNDANT"
    ))
    .await;
    let count = 250 * work.scale;
    work.run_all([
        format!(
            "INSERT INTO red SELECT n, IF(n % 3, n, NULL), IF(n % 4, n, NULL), IF(n % 5, SHA2(n, 224), NULL), \
             IF(n % 2, '2026-01-02 03:04:05', NULL), LEFT(SHA2(n, 256), n % 60), REPEAT('w', n * 17 % {long}), \
             IF(n % 20, LEFT(SHA2(n, 512), n % 100), REPEAT(SHA2(n, 512), n % 300)) FROM {}",
            numbers(1, count)
        ),
        "UPDATE red SET a = NULL, b = NULL WHERE id % 4 = 0".to_owned(),
        "UPDATE red SET a = id, b = id * 3 WHERE id % 8 = 0".to_owned(),
        "UPDATE red SET c = NULL, d = NULL WHERE id % 5 < 3".to_owned(),
        "UPDATE red SET c = 'back', d = '2000-01-01 00:00:00' WHERE id % 10 = 1".to_owned(),
        "UPDATE red SET v = NULL WHERE id % 6 = 0".to_owned(),
        "UPDATE red SET v = 'not null' WHERE id % 12 = 0".to_owned(),
        "UPDATE red SET t = REPEAT(SHA2(id, 384), 200) WHERE id % 21 = 0".to_owned(),
        "UPDATE red SET t = NULL WHERE id % 42 = 0".to_owned(),
        format!("UPDATE red SET w = REPEAT('x', {long} - LENGTH(w)) WHERE id % 3 = 1"),
        "DELETE FROM red WHERE id % 7 = 2".to_owned(),
        "BEGIN".to_owned(),
        "UPDATE red SET a = NULL, c = IF(c IS NULL, 'c', NULL), b = IF(b IS NULL, 1, NULL)".to_owned(),
        "ROLLBACK".to_owned(),
    ])
    .await;
    // Rows so short that their offsets take one byte each.
    work.run_all([
        "CREATE TABLE red_short (id SMALLINT PRIMARY KEY, a TINYINT, c CHAR(3) CHARACTER SET latin1) ROW_FORMAT=REDUNDANT"
            .to_owned(),
        format!("INSERT INTO red_short SELECT n, IF(n % 2, n % 100, NULL), IF(n % 3, 'abc', NULL) FROM {}", numbers(1, 900)),
        "UPDATE red_short SET a = IF(a IS NULL, 5, NULL)".to_owned(),
        "UPDATE red_short SET c = IF(c IS NULL, 'xyz', NULL) WHERE id % 5 = 1".to_owned(),
        "DELETE FROM red_short WHERE id % 3 = 1".to_owned(),
        format!("INSERT IGNORE INTO red_short SELECT n, 1, 'new' FROM {}", numbers(1, 900)),
    ])
    .await;
}
