//! The databases that are measured. They are loaded without durability, then run with the server's defaults.
//!
//! ```text
//!   STILLFRAME_BENCH_DATA unset      made for this run, below the target folder, and removed after it
//!   STILLFRAME_BENCH_DATA=DIR        DIR/large-2, DIR/small-20000: made if they are not there, kept, used again
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;

use crate::support::server::{Builder, Server};
use crate::support::workload::fill;
use crate::support::workload::schema::{EMPTY, MAIN, ODD, quoted};

use super::say;

/// A server of some size, with the server's own defaults of durability.
pub fn builder() -> Builder {
    Server::builder()
        .option("innodb_buffer_pool_size", "512M")
        .option("innodb_redo_log_capacity", "512M")
        .option("table_definition_cache", 2000)
        .option("innodb_buffer_pool_load_at_startup", "OFF")
        .option("plugin_load_add", "mysql_clone.so")
}

/// The same without places that go when the server goes.
fn kept() -> Builder {
    builder().external_dir(false)
}

/// Where the databases are, and whether they stay there.
pub struct Data {
    dir: PathBuf,
    is_kept: bool,
}

impl Data {
    /// Below `place`, unless the environment names a folder that keeps them.
    pub fn new(place: &Path) -> Self {
        match std::env::var_os("STILLFRAME_BENCH_DATA") {
            Some(dir) => Self { dir: dir.into(), is_kept: true },
            None => Self { dir: place.join("data"), is_kept: false },
        }
    }

    /// One table of about so many bytes.
    pub async fn one_large_table(&self, bytes: u64) -> Server {
        let name = format!("large-{}", bytes >> 30);
        self.server(&name, async |server: &Server| {
            server.sql("CREATE DATABASE bench").await;
            fill(&server.opts().into(), "bench.large", bytes, 1).await;
        })
        .await
    }

    /// So many tables of a few rows each, in a few schemas.
    pub async fn many_tables(&self, count: u64) -> Server {
        let name = format!("small-{count}");
        self.server(&name, async |server: &Server| {
            let make = |number| tokio::spawn(make_tables(server.opts(), number, count));
            let tasks: Vec<_> = (0..CONNECTIONS).map(make).collect();
            for task in tasks {
                task.await.expect("making tables failed");
            }
        })
        .await
    }

    /// A durable server on data that was kept, or on data that `load` makes now, on one that syncs nothing.
    async fn server(&self, name: &str, load: impl AsyncFnOnce(&Server)) -> Server {
        let place = self.dir.join(name);
        if !place.exists() {
            say(&format!("making {}", place.display()));
            std::fs::create_dir_all(&self.dir).unwrap();
            let began = Instant::now();
            let careless = kept().log_bin(false).option("innodb_doublewrite", "OFF");
            let mut server = careless.option("innodb_flush_method", "nosync").start().await;
            load(&server).await;
            server.stop().await;
            keep(server.datadir(), &place);
            say(&format!("made in {:?}", began.elapsed()));
        }
        let server = kept().on_datadir(place).start().await;
        server.sql("RESET BINARY LOGS AND GTIDS").await;
        server
    }

    /// Removes what is not to be kept.
    pub fn done_with(&self, server: Server) {
        let datadir = server.datadir().to_owned();
        drop(server);
        if !self.is_kept {
            std::fs::remove_dir_all(datadir).ok();
        }
    }
}

/// Moves a data directory to where it is kept; its name there says that it is whole.
fn keep(datadir: &Path, kept: &Path) {
    let partial = kept.with_extension("partial");
    std::fs::remove_dir_all(&partial).ok();
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    let moved = std::process::Command::new("mv").arg(datadir).arg(&partial).status();
    assert!(moved.is_ok_and(|status| status.success()), "cannot move {}", datadir.display());
    stillframe::util::fs::durable_rename(&partial, kept).unwrap();
}

const CONNECTIONS: u64 = 4;

/// One connection's share of the tables. The rows come in few transactions: the tables are what takes time.
async fn make_tables(opts: mysql_async::OptsBuilder, number: u64, count: u64) {
    let mut conn = mysql_async::Conn::new(opts).await.expect("cannot connect");
    let schema = format!("small_{number}");
    let first = [
        "SET sql_log_bin = 0".to_owned(),
        format!("CREATE DATABASE {schema}"),
        format!("CREATE TABLE {schema}.model (id INT PRIMARY KEY, pad VARCHAR(200), KEY (pad))"),
    ];
    for statement in first {
        conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
    }
    let own: Vec<u64> = (number..count).step_by(usize::try_from(CONNECTIONS).unwrap()).collect();
    for some in own.chunks(500) {
        for table in some {
            conn.query_drop(format!("CREATE TABLE {schema}.t{table} LIKE {schema}.model")).await.unwrap();
        }
        conn.query_drop("BEGIN").await.unwrap();
        for table in some {
            let rows = format!("INSERT INTO {schema}.t{table} VALUES (1, 'one'), (2, 'two'), (3, 'three')");
            conn.query_drop(rows).await.unwrap();
        }
        conn.query_drop("COMMIT").await.unwrap();
    }
    conn.disconnect().await.ok();
}

/// Removes what a workload made, of this run or of one that was ended.
pub async fn clear_workload(server: &Server) {
    let mut made: Vec<String> =
        [MAIN, ODD, EMPTY].map(|name| format!("DROP DATABASE IF EXISTS {}", quoted(name))).into();
    let spaces =
        "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'General' AND NAME LIKE 'sf%'";
    let spaces = server.rows::<(String,)>(spaces).await;
    made.extend(spaces.iter().map(|(name,)| format!("DROP TABLESPACE {}", quoted(name))));
    server.sql(&made.join(";\n")).await;
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
