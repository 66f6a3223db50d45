//! A server that follows another, and proofs that two servers hold the same.
//!
//! ```text
//!   source ──binlog──► replica (started on a restored directory; its gtid_executed says where to begin)
//!      └──── CHECKSUM TABLE of every table of both, compared ────┘
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;

use super::server::Server;
use super::workload::schema::quoted;

const PATIENCE: Duration = Duration::from_mins(3);

/// Makes `replica` follow `source` from its own `gtid_executed` on. Panics when replication does not start.
pub async fn follow(replica: &Server, source: &Server) {
    assert!(source.gtid(), "a source needs GTIDs and a binary log");
    source
        .sql(
            "CREATE USER IF NOT EXISTS sf_replica@'%' IDENTIFIED BY 'replica-password' REQUIRE NONE;\n\
             GRANT REPLICATION SLAVE ON *.* TO sf_replica@'%'",
        )
        .await;
    let change = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='sf_replica', \
         SOURCE_PASSWORD='replica-password', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, \
         SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=5",
        source.port()
    );
    replica.sql(&change).await;
    replica.sql("START REPLICA").await;
}

/// Waits until `replica` has applied all that `source` has executed by now. Panics with the replica's error when it
/// cannot.
pub async fn catch_up(replica: &Server, source: &Server) {
    let target = source.gtid_executed().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let query = format!("SELECT GTID_SUBSET('{target}', @@GLOBAL.gtid_executed)");
        if replica.row::<(u8,)>(&query).await == (1,) {
            return;
        }
        if let Some(error) = replication_error(replica).await {
            panic!("replication stopped: {error}");
        }
        assert!(Instant::now() < deadline, "the replica has only {} of {target}", replica.gtid_executed().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Follows, catches up and stops following.
pub async fn prove_replica(replica: &Server, source: &Server) {
    follow(replica, source).await;
    catch_up(replica, source).await;
    replica.sql("STOP REPLICA").await;
}

async fn replication_error(replica: &Server) -> Option<String> {
    let query = "SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker \
                 WHERE LAST_ERROR_NUMBER <> 0 UNION ALL \
                 SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_coordinator \
                 WHERE LAST_ERROR_NUMBER <> 0 UNION ALL \
                 SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_connection_status \
                 WHERE LAST_ERROR_NUMBER <> 0 AND SERVICE_STATE = 'OFF'";
    replica.rows::<(String,)>(query).await.into_iter().next().map(|(error,)| error)
}

/// Every table that a user made, qualified and quoted, views left out.
pub async fn user_tables(server: &Server) -> Vec<String> {
    let query = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
                 AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema') ORDER BY 1, 2";
    let rows: Vec<(String, String)> = server.rows(query).await;
    rows.iter().map(|(schema, table)| format!("{}.{}", quoted(schema), quoted(table))).collect()
}

/// `CHECKSUM TABLE` of every user table, and of those system tables that a replica shares with its source.
///
/// Two kinds of tables are summed up from their visible columns instead, because of what MySQL 9.7.4 does: its checksum
/// of a table with a multi-valued index is another one at each call (it takes in a hidden column that it never sets),
/// and that of an ARCHIVE table covers only as many rows as the handle knew of at some earlier statement, none at first.
pub async fn checksums(server: &Server) -> BTreeMap<String, u64> {
    const SHARED: [&str; 8] =
        ["user", "db", "tables_priv", "columns_priv", "procs_priv", "global_grants", "func", "role_edges"];
    let mut tables = user_tables(server).await;
    tables.extend(SHARED.map(|table| format!("`mysql`.`{table}`")));
    let unstable = without_checksum(server).await;
    let mut conn = server.connect().await;
    let mut sums = BTreeMap::new();
    for table in tables {
        let query = match unstable.get(&table) {
            Some(columns) => {
                format!("SELECT '', CAST(COALESCE(SUM(CRC32(CONCAT({columns}))), 0) AS UNSIGNED) FROM {table}")
            }
            None => format!("CHECKSUM TABLE {table}"),
        };
        let row: Option<(String, Option<u64>)> =
            conn.query_first(&query).await.unwrap_or_else(|e| panic!("{query}: {e}"));
        let sum = row.and_then(|(_, sum)| sum).unwrap_or_else(|| panic!("{query} has no answer: the table is broken"));
        sums.insert(table, sum);
    }
    conn.disconnect().await.ok();
    sums
}

/// Tables whose checksum says nothing, each with its visible columns as the arguments of a `CONCAT`.
async fn without_checksum(server: &Server) -> BTreeMap<String, String> {
    let query = "SELECT DISTINCT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, c.ORDINAL_POSITION \
                 FROM information_schema.COLUMNS c JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME) \
                 LEFT JOIN information_schema.STATISTICS s USING (TABLE_SCHEMA, TABLE_NAME) \
                 WHERE t.ENGINE = 'ARCHIVE' OR s.EXPRESSION LIKE '% array)%' ORDER BY 1, 2, 4";
    let rows: Vec<(String, String, String, u32)> = server.rows(query).await;
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    for (schema, table, column, _) in rows {
        let columns = tables.entry(format!("{}.{}", quoted(&schema), quoted(&table))).or_default();
        let comma = if columns.is_empty() { "" } else { ", " };
        write!(columns, "{comma}COALESCE({}, 'NULL'), '|'", quoted(&column)).unwrap();
    }
    tables
}

/// Panics unless both servers have the same tables with the same contents. Says how many were compared.
pub async fn compare_checksums(one: &Server, other: &Server) -> usize {
    let (left, right) = tokio::join!(checksums(one), checksums(other));
    let tables: Vec<&String> = left.keys().chain(right.keys()).collect();
    let mut different = Vec::new();
    for table in tables.into_iter().filter(|table| left.get(*table) != right.get(*table)) {
        let count = format!("SELECT COUNT(*) FROM {table}");
        let (one, other): (Vec<(u64,)>, Vec<(u64,)>) = (one.rows(&count).await, other.rows(&count).await);
        different.push(format!("{table}: rows {one:?}, {other:?}"));
    }
    assert!(different.is_empty(), "tables differ or are missing: {different:?}");
    left.len()
}

/// Panics unless `CHECK TABLE` finds every user table good. Says how many were checked.
pub async fn check_tables(server: &Server) -> usize {
    let tables = user_tables(server).await;
    let mut conn = server.connect().await;
    for table in &tables {
        let query = format!("CHECK TABLE {table} EXTENDED");
        let rows: Vec<(String, String, String, String)> =
            conn.query(&query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        let good = |kind: &str, text: &str| {
            // Engines that cannot be checked say so in a note.
            (kind == "status" && text == "OK") || (kind == "note" && text.contains("support check"))
        };
        let bad: Vec<_> = rows.iter().filter(|(_, _, kind, text)| !good(kind, text)).collect();
        assert!(bad.is_empty() && !rows.is_empty(), "{query}: {bad:?}");
    }
    conn.disconnect().await.ok();
    tables.len()
}
