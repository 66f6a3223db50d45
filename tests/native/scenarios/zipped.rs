//! Compressed tables of many shapes, changed at random: what their pages describe of their rows, and what they keep of
//! them, depends on the shape; what is logged, on switches that are turned meanwhile.

use super::{Work, numbers, wait_for_purge};

/// Columns and indexes, behind `CREATE TABLE name (`; every table has `n INT` and the columns that `SETS` change.
const SHAPES: [&str; 7] = [
    // A key of several columns, fixed and variable, and one that may be NULL in every index.
    "a INT NOT NULL, n INT, b VARCHAR(30) NOT NULL, f CHAR(10) CHARACTER SET latin1, t TEXT, u VARCHAR(300) CHARACTER SET latin1, \
     PRIMARY KEY (b, a), UNIQUE KEY a (a), KEY f (f, n), KEY u (u(50))",
    // No key: the server's own.
    "a INT NOT NULL, n INT, b VARCHAR(200), f BINARY(8), t LONGTEXT, u VARBINARY(120), KEY n (n, a), KEY b (b(20))",
    // Columns of fixed size that do not fit together into one.
    "a INT NOT NULL, w CHAR(250) CHARACTER SET latin1 NOT NULL DEFAULT 'w', x BINARY(255) NOT NULL DEFAULT 'x', \
     y BINARY(255) NOT NULL DEFAULT 'y', z BINARY(70) NOT NULL DEFAULT 'z', n INT, b VARCHAR(20), f CHAR(3), t TEXT, \
     u VARCHAR(20), PRIMARY KEY (a), KEY w (w, n), KEY zf (z, f)",
    // Several large objects, and small rows beside.
    "a BIGINT NOT NULL, n INT, b LONGTEXT, f INT, t LONGBLOB, u MEDIUMBLOB, PRIMARY KEY (a), KEY f (f)",
    // Many fields that may be NULL: more than one byte of bits, also in node pointers.
    "a INT NOT NULL, n INT, b VARCHAR(12), f CHAR(4), t TINYTEXT, u VARCHAR(9), c1 INT, c2 INT, c3 DATE, c4 DOUBLE, \
     c5 VARCHAR(5), PRIMARY KEY (a), KEY many (b, f, n, c1, c2, c3, c4, c5, u), UNIQUE KEY u (u, a)",
    // Indexes of computed columns, of texts and of places.
    "a INT NOT NULL, n INT, b VARCHAR(100), f CHAR(9), t TEXT, u VARCHAR(60), v INT AS (n % 7) VIRTUAL, \
     s INT AS (n * 2) STORED, g POINT NOT NULL SRID 0 DEFAULT (POINT(a, a * 7 % 100)), PRIMARY KEY (a), KEY v (v, s), \
     SPATIAL KEY g (g), FULLTEXT KEY b (b)",
    // Rows so small that a page has hundreds.
    "a INT NOT NULL, n INT, b VARCHAR(4), f TINYINT, t TINYTEXT, u TINYINT, PRIMARY KEY (a), KEY f (f), KEY n (n)",
];

const SETS: [&str; 9] = [
    "n = n + 1",
    "n = NULL",
    "f = NULL",
    "f = n % 10",
    "u = LEFT(SHA2(a + {r}, 512), 3 + {r} % 17)",
    "u = NULL",
    "t = REPEAT(SHA2(a + {r}, 224), {r} % 7)",
    "b = IF(a % 3, LEFT(SHA2(a * {r}, 256), 4), LEFT(SHA2({r}, 224), 2))",
    "n = n, u = 'same'",
];

/// Fills and changes tables of every shape.
pub async fn shapes(work: &mut Work<'_>) {
    if work.page_size() > 16384 {
        return;
    }
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let most = if work.page_size() < 16384 { 4 } else { 16 };
        for kib in [2, 4, 8, 16].into_iter().filter(|kib| *kib <= most) {
            // Fixed columns of 800 bytes and their index fit into no smaller page.
            if kib < 8 && shape.contains("y BINARY") {
                continue;
            }
            if work.random.chance(45) || shape.contains("y BINARY") {
                let table = format!("shape_{number}_{kib}");
                work.run(format!("CREATE TABLE {table} ({shape}) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={kib}")).await;
                change(work, &table).await;
            }
        }
    }
    work.run_all(["SET GLOBAL innodb_log_compressed_pages = ON", "SET GLOBAL innodb_compression_level = DEFAULT"])
        .await;
}

/// Trees of several levels whose node pointers fill pages, without images of pages in the log.
pub async fn levels(work: &mut Work<'_>) {
    if work.page_size() > 16384 {
        return;
    }
    work.run("SET GLOBAL innodb_log_compressed_pages = OFF").await;
    for kib in [1, 2, 4] {
        let (table, key) = (format!("levels_{kib}"), 40 * kib);
        work.run(format!(
            "CREATE TABLE {table} (a VARBINARY({key}), n INT, c VARBINARY({key}), PRIMARY KEY (a), KEY c (c, n)) \
             ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={kib}"
        ))
        .await;
        let count = 700 * work.scale;
        // Texts that hardly get smaller, so that few fit on a page.
        let text =
            |salt: u32| format!("LEFT(UNHEX(CONCAT(SHA2(n * 7 + {salt}, 512), SHA2(n, 512), SHA2(-n, 512))), {key})");
        for (salt, order) in [(1, "n"), (2, "n DESC"), (3, "SHA2(n, 224)")] {
            work.run(format!(
                "INSERT INTO {table} SELECT {}, n, IF(n % 3, {}, NULL) FROM {} ORDER BY {order}",
                text(salt),
                text(salt + 10),
                numbers(1, count)
            ))
            .await;
        }
        work.run_all([
            format!("DELETE FROM {table} ORDER BY a LIMIT {count}"),
            format!("DELETE FROM {table} WHERE n % 3 = 0"),
            format!("UPDATE {table} SET c = REVERSE(c) WHERE n % 2"),
        ])
        .await;
        wait_for_purge(work.server).await;
        work.run(format!("INSERT IGNORE INTO {table} SELECT {}, n, NULL FROM {}", text(1), numbers(1, count))).await;
    }
    // So many columns that may be NULL that their number takes two bytes, in node pointers.
    for count in [150, 300] {
        let columns: Vec<_> = (0..count).map(|number| format!("c{number} TINYINT")).collect();
        let rows = numbers(1, 1300 * work.scale);
        work.run_all([
            format!(
                "CREATE TABLE columns_{count} (a BINARY(180) PRIMARY KEY, f CHAR(90) CHARACTER SET latin1, {}) \
                 ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
                columns.join(", ")
            ),
            format!("INSERT INTO columns_{count} (a, f, c7, c9) SELECT SHA2(n, 512), n, n % 9, n % 7 FROM {rows}"),
            format!("UPDATE columns_{count} SET c7 = c9, c2 = 5 WHERE c9 < 4"),
            format!("DELETE FROM columns_{count} WHERE c9 = 3"),
            format!("INSERT INTO columns_{count} (a, c8) SELECT SHA2(-n, 512), 1 FROM {rows}"),
        ])
        .await;
    }
    work.run("SET GLOBAL innodb_log_compressed_pages = ON").await;
}

async fn change(work: &mut Work<'_>, table: &str) {
    let count = 300 * work.scale;
    for round in 0..12 * work.scale {
        let (r, from) = (work.random.below(1000), work.random.below(3 * count));
        let hash = work.random.chance(50);
        let order = if hash { "ORDER BY SHA2(n, 224)" } else { "" };
        let limit = 1 + work.random.below(count / 2);
        let by = *work.random.pick(&["a", "a DESC", "SHA2(a, 224)", "n"]);
        let statement = match if round < 2 { 0 } else { work.random.below(9) } {
            0 | 1 => format!(
                "INSERT IGNORE INTO {table} (a, n, b, f, t, u) SELECT n, n * {r} % 97, LEFT(SHA2(n + {r}, 256), n % 5), n % 9, \
                 IF(n % 11, LEFT(SHA2(n, 224), n % 30), REPEAT(SHA2(n, 512), IF(n % 2, 1, {r} % 200))), LEFT(SHA2(n, 224), n % 8) \
                 FROM {} {order}",
                numbers(from, count)
            ),
            2 => format!("DELETE FROM {table} ORDER BY {by} LIMIT {limit}"),
            3 => format!("UPDATE {table} SET a = a + {} ORDER BY a DESC LIMIT {limit}", 10 * count),
            4 => format!(
                "INSERT IGNORE INTO {table} (a, n, b, t, u) SELECT n, {r}, 'b', REPEAT(RANDOM_BYTES(20), 1), 'again' FROM {}",
                numbers(from, limit)
            ),
            _ => {
                let set = work.random.pick(&SETS).replace("{r}", &r.to_string());
                let part = 1 + work.random.below(4);
                format!("UPDATE IGNORE {table} SET {set} WHERE a % {part} = 0")
            }
        };
        let undone = work.random.chance(15);
        if undone {
            work.run("BEGIN").await;
        }
        work.run(statement).await;
        if undone {
            work.run("ROLLBACK").await;
        }
        let level = work.random.below(10);
        match work.random.below(8) {
            0 => wait_for_purge(work.server).await,
            1 => work.run(format!("SET GLOBAL innodb_compression_level = {level}")).await,
            2 => work.run("SET GLOBAL innodb_log_compressed_pages = OFF").await,
            3 => work.run("SET GLOBAL innodb_log_compressed_pages = ON").await,
            4 if work.random.chance(20) => work.run(format!("OPTIMIZE TABLE {table}")).await,
            _ => (),
        }
    }
}
