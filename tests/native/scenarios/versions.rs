//! Columns added and dropped at once, over and over, with rows of every version on the same pages.

use super::{Work, numbers};

pub async fn versions(work: &mut Work<'_>) {
    for format in ["DYNAMIC", "COMPACT", "REDUNDANT"] {
        let table = format!("ver_{format}");
        work.run(format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, a INT, b VARCHAR(60), z CHAR(9) NOT NULL, KEY a (a)) ROW_FORMAT={format}"
        ))
        .await;
        // The longest row that could be must fit into half a page, and a TEXT takes up to 788 bytes of it.
        let mut texts = (work.page_size() / 2048).saturating_sub(2);
        for version in 0..12_u64 {
            let part = 2 + work.random.below(7);
            let place = *work.random.pick(&["FIRST", "AFTER id", "AFTER a", ""]);
            let kind = *work.random.pick(&[
                "VARCHAR(20) DEFAULT 'd'",
                "INT NOT NULL DEFAULT 7",
                "BIGINT",
                if texts == 0 { "VARBINARY(30)" } else { "TEXT" },
                "CHAR(12) CHARACTER SET latin1 DEFAULT 'c'",
            ]);
            texts -= u64::from(kind == "TEXT");
            let value = if kind.contains("INT") { "id" } else { "LEFT(SHA2(id, 224), id % 12)" };
            work.run_all([
                // Between those that are there already.
                format!(
                    "INSERT INTO {table} (id, a, b, z) SELECT n * 20 + {version}, n, REPEAT('b', n * 3 % 60), 'z' FROM {}",
                    numbers(0, 90 * work.scale)
                ),
                format!("ALTER TABLE {table} ADD COLUMN x{version} {kind} {place}, ALGORITHM=INSTANT"),
                format!("UPDATE {table} SET x{version} = {value} WHERE id % {part} = 0"),
                format!("UPDATE {table} SET a = a + 1 WHERE id % {part} = 1"),
                format!("UPDATE {table} SET b = NULL, a = NULL WHERE id % {} = 3", part + 5),
                format!("UPDATE {table} SET z = 'same size' WHERE id % {part} = 1"),
                format!("DELETE FROM {table} WHERE id % {} = 2", part + 9),
            ])
            .await;
            if version % 4 == 3 {
                work.run_all([
                    format!("ALTER TABLE {table} DROP COLUMN x{}, ALGORITHM=INSTANT", version - 1),
                    format!("UPDATE {table} SET b = REPEAT('dropped', id % 8) WHERE id % {part} = 0"),
                    format!("DELETE FROM {table} WHERE id % {} = 5", part + 9),
                ])
                .await;
            }
        }
        work.run_all([
            format!("ALTER TABLE {table} DROP COLUMN b, ALGORITHM=INSTANT"),
            format!("INSERT INTO {table} (id, a, z) SELECT n * 20 + 15, n, 'last' FROM {}", numbers(0, 60)),
            "BEGIN".to_owned(),
            format!("UPDATE {table} SET a = 1, z = 'rolled' WHERE id % 3 = 0"),
            "ROLLBACK".to_owned(),
        ])
        .await;
    }
    // Built anew: one version again.
    work.run("ALTER TABLE ver_COMPACT FORCE, ALGORITHM=COPY").await;
}
