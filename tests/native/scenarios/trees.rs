//! Pages that split, merge, and rise: lists of rows moved from page to page, node pointers with NULL in them, trees of
//! three levels; and the trees that are not of rows: spatial, full-text, of several values, of computed columns.

use super::{FORMATS, Work, numbers};

/// Trees with keys so long that a few hundred rows make three levels, split in every way and merged again.
pub async fn levels(work: &mut Work<'_>) {
    // Four rows to a page at the least; an index page holds a key at most 3072 bytes long.
    let key = (work.page_size() / 24).min(700);
    // Some with a column that comes when half of the rows are there.
    let plain = FORMATS.map(|format| (format, false));
    for (format, versioned) in plain.into_iter().chain([("DYNAMIC", true), ("REDUNDANT", true)]) {
        let table = if versioned { format!("tree_{format}_later") } else { format!("tree_{format}") };
        work.run(format!(
            "CREATE TABLE {table} (a VARBINARY({key}) NOT NULL, b INT, c VARBINARY({key}), d CHAR(20), PRIMARY KEY (a), \
             KEY cb (c, b), KEY d (d)) ROW_FORMAT={format}"
        ))
        .await;
        let count = 500 * work.scale;
        let text = |salt: &str| format!("LEFT(CONCAT(SHA2(CONCAT(n, '{salt}'), 256), REPEAT('k', {key})), {key})");
        for (round, order) in ["n", "n DESC", "SHA2(n, 224)"].into_iter().enumerate() {
            let from = 1 + u64::try_from(round).unwrap() * count;
            if versioned && round == 1 {
                work.run(format!("ALTER TABLE {table} ADD COLUMN e INT DEFAULT 7 AFTER a, ALGORITHM=INSTANT")).await;
            }
            work.run(format!(
                "INSERT INTO {table} (a, b, c, d) SELECT {}, IF(n % 3, n, NULL), IF(n % 4, {}, NULL), IF(n % 2, n, NULL) FROM {} ORDER BY {order}",
                if round == 2 { text("a") } else { format!("CONCAT(LPAD(n, 9, '0'), REPEAT('k', {key} - 9))") },
                text("c"),
                numbers(from, count)
            ))
            .await;
        }
        // Whole ranges: pages empty out and are merged with what is beside.
        let third = count / 3;
        work.run_all([
            format!("DELETE FROM {table} ORDER BY a LIMIT {third}"),
            format!("DELETE FROM {table} ORDER BY a DESC LIMIT {third}"),
            format!("DELETE FROM {table} WHERE b % 5 < 3"),
            format!("UPDATE {table} SET c = NULL WHERE b % 5 = 3"),
            format!("UPDATE {table} SET c = LEFT(SHA2(a, 512), 100) WHERE b IS NULL"),
        ])
        .await;
        super::wait_for_purge(work.server).await;
        work.run(format!(
            "INSERT IGNORE INTO {table} (a, b, c, d) SELECT {}, n, {}, 'again' FROM {}",
            text("again"),
            text("c"),
            numbers(1, third)
        ))
        .await;
    }
}

/// Rows of half a page: the leftmost page of a level goes, and what pointed to it.
pub async fn leftmost(work: &mut Work<'_>) {
    let size = (work.page_size() / 2 - 320).min(15_000);
    for format in FORMATS {
        let table = format!("left_{format}");
        work.run_all([
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, v VARBINARY({size}) NOT NULL) ROW_FORMAT={format}"),
            format!("INSERT INTO {table} SELECT n, REPEAT('b', {size}) FROM {}", numbers(1, 60)),
            format!("DELETE FROM {table} WHERE id <= 20"),
        ])
        .await;
    }
}

/// Trees that are not of rows by their keys.
pub async fn other_trees(work: &mut Work<'_>) {
    let count = 260 * work.scale;
    for (table, format) in [("geo", "DYNAMIC"), ("geo_red", "REDUNDANT")] {
        work.run_all([
            format!(
                "CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, v VARCHAR(50), \
                 SPATIAL INDEX (g)) ROW_FORMAT={format}"
            ),
            format!(
                "INSERT INTO {table} (g, v) SELECT POINT(n * 37 % 1000, n * 91 % 1000), 'v' FROM {}",
                numbers(1, count)
            ),
            format!(
                "INSERT INTO {table} (g) SELECT LINESTRING(POINT(n, n), POINT(n + 9, n % 70)) FROM {}",
                numbers(1, count)
            ),
            format!("UPDATE {table} SET g = POINT(id, id % 13) WHERE id % 5 = 0"),
            format!("UPDATE {table} SET v = 'not g' WHERE id % 3 = 0"),
            format!("DELETE FROM {table} WHERE id % 3 = 1"),
            format!(
                "INSERT INTO {table} (g, v) SELECT POINT(n * 7 % 100, n * 3 % 100), NULL FROM {}",
                numbers(1, count)
            ),
            "BEGIN".to_owned(),
            format!("DELETE FROM {table} WHERE id % 4 = 2"),
            "ROLLBACK".to_owned(),
        ])
        .await;
    }
    work.run_all([
        "CREATE TABLE fts (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT, FULLTEXT (t))".to_owned(),
        format!(
            "INSERT INTO fts (t) SELECT CONCAT('word', n % 97, ' other', n, ' and more ', SHA2(n, 224)) FROM {}",
            numbers(1, count)
        ),
        "DELETE FROM fts WHERE id % 2 = 0".to_owned(),
        "SET GLOBAL innodb_optimize_fulltext_only = ON".to_owned(),
        "OPTIMIZE TABLE fts".to_owned(),
        "SET GLOBAL innodb_optimize_fulltext_only = OFF".to_owned(),
        "CREATE TABLE js (id INT PRIMARY KEY, j JSON, x INT GENERATED ALWAYS AS (j->'$.n') VIRTUAL, \
         y VARCHAR(90) GENERATED ALWAYS AS (CONCAT(j->'$.n', 'y', x)) STORED, KEY (x), KEY (y), \
         KEY m ((CAST(j->'$.a' AS UNSIGNED ARRAY))))"
            .to_owned(),
        format!(
            "INSERT INTO js (id, j) SELECT n, JSON_OBJECT('n', n, 'a', JSON_ARRAY(n, n + 1, n % 7), 't', REPEAT('j', n % 90)) FROM {}",
            numbers(1, count)
        ),
        "UPDATE js SET j = JSON_SET(j, '$.n', 7) WHERE id % 2 = 0".to_owned(),
        "UPDATE js SET j = JSON_SET(j, '$.a', JSON_ARRAY(1, 2, 3, id)) WHERE id % 3 = 0".to_owned(),
        "DELETE FROM js WHERE id % 5 = 0".to_owned(),
    ])
    .await;
}
