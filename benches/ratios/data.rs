//! The databases that are measured. They are loaded without durability, then run with the server's defaults.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;

use crate::support::server::{Builder, Server};
use crate::support::workload::fill;

/// A server of some size, with the server's own defaults of durability.
pub fn builder() -> Builder {
    Server::builder()
        .option("innodb_buffer_pool_size", "512M")
        .option("innodb_redo_log_capacity", "512M")
        .option("table_definition_cache", 2000)
        .option("innodb_buffer_pool_load_at_startup", "OFF")
}

/// One table of about so many bytes.
pub async fn one_large_table(bytes: u64) -> Server {
    let mut server = builder().start().await;
    relax(&server).await;
    server.sql("CREATE DATABASE bench").await;
    fill(&server.opts().into(), "bench.large", bytes, 1).await;
    server.restart().await;
    server
}

/// So many tables of a few rows each.
pub async fn many_tables(count: u64) -> Server {
    const CONNECTIONS: u64 = 4;
    let mut server = builder().start().await;
    relax(&server).await;
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut conn = server.connect().await;
        tasks.push(tokio::spawn(async move {
            conn.query_drop("SET sql_log_bin = 0").await.unwrap();
            conn.query_drop(format!("CREATE DATABASE small_{connection}")).await.unwrap();
            for number in (connection..count).step_by(usize::try_from(CONNECTIONS).unwrap()) {
                let table = format!("small_{connection}.t{number}");
                conn.query_drop(format!("CREATE TABLE {table} (id INT PRIMARY KEY, pad VARCHAR(200), KEY (pad))"))
                    .await
                    .unwrap();
                conn.query_drop(format!("INSERT INTO {table} VALUES (1, 'one'), (2, 'two'), (3, 'three')"))
                    .await
                    .unwrap();
            }
            conn.disconnect().await.ok();
        }));
    }
    for task in tasks {
        task.await.expect("making tables failed");
    }
    server.restart().await;
    server
}

async fn relax(server: &Server) {
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 0;\nSET GLOBAL sync_binlog = 0").await;
}

/// Waits until the server has nothing left to write, so that no measurement pays for what was before it.
pub async fn settle(server: &Server) {
    server.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0").await;
    let dirty = "SELECT CAST(VARIABLE_VALUE AS UNSIGNED) FROM performance_schema.global_status \
                 WHERE VARIABLE_NAME = 'Innodb_buffer_pool_pages_dirty'";
    let deadline = Instant::now() + Duration::from_mins(2);
    while server.row::<(u64,)>(dirty).await.0 > 10 {
        assert!(Instant::now() < deadline, "the server does not come to rest");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.sql("SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT").await;
    // What the kernel still holds of it is written too.
    tokio::task::spawn_blocking(|| std::process::Command::new("sync").status()).await.unwrap().expect("cannot sync");
}
