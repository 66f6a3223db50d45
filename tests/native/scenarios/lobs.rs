//! What does not fit into a page: large objects, undo logs over many pages, and transactions that are prepared and left.

use mysql_async::prelude::Queryable as _;

use super::{FORMATS, Work, numbers};

/// Large objects that come, change in part, grow, and are purged.
pub async fn lobs(work: &mut Work<'_>) {
    // The old formats keep the beginning of each in the row, and that of three is too much for the smallest page.
    let formats = if work.page_size() < 8192 { &FORMATS[..1] } else { &FORMATS[..] };
    for format in formats {
        let table = format!("lob_{format}");
        work.run_all([
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT, j JSON, KEY (t(20))) ROW_FORMAT={format}"),
            format!(
                "INSERT INTO {table} SELECT n, REPEAT(RANDOM_BYTES(500), n * 7 % 90), REPEAT(SHA2(n, 256), n * 11 % 400), \
                 JSON_OBJECT('n', n, 't', REPEAT('j', 20000), 'u', REPEAT('k', 9000)) FROM {}",
                numbers(1, 22 * work.scale)
            ),
            // Parts of a document: the server writes only those.
            format!("UPDATE {table} SET j = JSON_SET(j, '$.n', 7, '$.u', REPEAT('l', 9000)) WHERE id % 2 = 0"),
            format!("UPDATE {table} SET j = JSON_REPLACE(j, '$.n', 8)"),
            format!("UPDATE {table} SET j = JSON_REMOVE(j, '$.u') WHERE id % 3 = 0"),
            format!("UPDATE {table} SET b = REPEAT(RANDOM_BYTES(900), id % 40) WHERE id % 3 = 1"),
            format!("UPDATE {table} SET t = CONCAT(t, 'more') WHERE id % 4 = 1"),
            format!("DELETE FROM {table} WHERE id % 5 = 0"),
            "BEGIN".to_owned(),
            format!("UPDATE {table} SET b = REPEAT('undone', 9000), t = NULL WHERE id % 6 = 1"),
            "ROLLBACK".to_owned(),
        ])
        .await;
    }
}

/// Undo records of all sizes, logs that span pages, pages that are used again; transactions left open.
pub async fn undo(work: &mut Work<'_>) {
    work.run_all([
        "CREATE TABLE un (id INT AUTO_INCREMENT PRIMARY KEY, v VARBINARY(1500), w VARCHAR(200), KEY (w(40)))"
            .to_owned(),
        format!(
            "INSERT INTO un (v, w) SELECT RANDOM_BYTES(n % 1000), SHA2(n, 512) FROM {}",
            numbers(1, 300 * work.scale)
        ),
        "UPDATE un SET v = RANDOM_BYTES(1000)".to_owned(),
        "UPDATE un SET v = LEFT(v, 300), w = REVERSE(w)".to_owned(),
        "BEGIN".to_owned(),
        "UPDATE un SET w = LEFT(w, 9), v = REPEAT('u', 999)".to_owned(),
        "DELETE FROM un WHERE id % 2 = 0".to_owned(),
        "ROLLBACK".to_owned(),
    ])
    .await;
    // Many short ones: their pages are used again and again.
    for step in 0..120 * work.scale {
        work.run(format!("INSERT INTO un (v, w) VALUES ('{step}', 'short')")).await;
        if step % 3 == 0 {
            work.run(format!("UPDATE un SET v = 'x' WHERE w = 'short' AND id % 7 = {}", step % 7)).await;
        }
    }
}

/// Transactions that are prepared when the server dies, some of them since long.
pub async fn prepared(work: &mut Work<'_>, count: u64) {
    work.run("CREATE TABLE xa (id INT PRIMARY KEY, v VARCHAR(90))").await;
    for number in 0..count {
        // A prepared one leaves its session.
        let mut conn = work.server.connect().await;
        let end = if number % 4 == 0 { "XA COMMIT" } else { "XA PREPARE" };
        for statement in [
            format!("XA START 'xa{number}', 'branch', 7"),
            format!("INSERT INTO n.xa VALUES ({number}, REPEAT('x', {}))", number % 90),
            format!("INSERT INTO n.xa VALUES ({}, NULL)", number + 100_000),
            format!("XA END 'xa{number}', 'branch', 7"),
            format!("XA PREPARE 'xa{number}', 'branch', 7"),
        ] {
            conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        }
        if end == "XA COMMIT" {
            conn.query_drop(format!("XA COMMIT 'xa{number}', 'branch', 7")).await.unwrap();
        }
        conn.disconnect().await.ok();
    }
}

/// A transaction that is open when the server dies; it lives as long as what is given back.
pub async fn open(work: &mut Work<'_>) -> mysql_async::Conn {
    let mut conn = work.server.connect().await;
    for statement in
        ["BEGIN", "UPDATE n.un SET v = REPEAT('o', 700) WHERE id % 3 = 1", "DELETE FROM n.un WHERE id % 9 = 2"]
    {
        conn.query_drop(statement).await.unwrap();
    }
    conn
}
