//! What several of the themes need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::cli::Cli;
use crate::support::round::{self, USER};
use crate::support::server::{Builder, Server, scratch};
use crate::support::wait::{METADATA_WAITS, until};

/// A server with a few tables of InnoDB, and the minimal user.
pub async fn small(builder: Builder) -> Server {
    let server = builder.start().await;
    server
        .sql(
            "CREATE DATABASE d;
             CREATE TABLE d.a (id INT PRIMARY KEY, v INT);
             INSERT INTO d.a VALUES (1, 0), (2, 0);
             CREATE TABLE d.b (id INT PRIMARY KEY, v INT);
             INSERT INTO d.b VALUES (1, 0), (2, 0);
             CREATE TABLE d.redo (id INT PRIMARY KEY, pad LONGBLOB)",
        )
        .await;
    round::minimal_user(&server).await;
    server
}

/// A program `path` of this text.
pub fn program(path: &Path, text: &str) {
    let source = path.with_extension("text");
    std::fs::write(&source, text).unwrap();
    // By way of another process: one that is open for writing in a forked child cannot be started.
    let done = Command::new("install").args(["-m", "755"]).arg(&source).arg(path).status().unwrap();
    assert!(done.success());
}

/// Makes the server write at least so many bytes of redo.
pub async fn write_redo(server: &Server, bytes: u64) {
    let mut conn = server.connect().await;
    conn.query_drop("SET sql_log_bin = 0").await.unwrap();
    // Not the LSN on disk, which may follow a second later.
    let lsn = async || status(server, "Innodb_redo_log_current_lsn").await;
    let goal = lsn().await + bytes;
    for round in 0_u32.. {
        if lsn().await >= goal {
            break;
        }
        let byte = char::from(b'a' + u8::try_from(round % 26).unwrap());
        conn.query_drop(format!("REPLACE INTO d.redo VALUES ({}, REPEAT('{byte}', 100000))", round % 8)).await.unwrap();
    }
    conn.disconnect().await.ok();
}

/// A number of `performance_schema.global_status`.
pub async fn status(server: &Server, name: &str) -> u64 {
    let sql = format!("SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = '{name}'");
    server.row::<(String,)>(&sql).await.0.parse().unwrap()
}

/// Runs statements on a connection of their own, in the background; returns when the last one runs.
pub async fn background(server: &Server, statements: &str) -> JoinHandle<()> {
    let mut conn = server.connect().await;
    let id = conn.id();
    let statements: Vec<String> = statements.split(';').map(|one| one.trim().to_owned()).collect();
    let last = statements.last().unwrap().replace('\'', "''");
    let task = tokio::spawn(async move {
        for statement in statements {
            // It may be killed, or find that the server is gone.
            conn.query_drop(statement).await.ok();
        }
    });
    let runs = format!("SELECT COUNT(*) FROM performance_schema.processlist WHERE id = {id} AND info = '{last}'");
    until(&last, async || server.row::<(u64,)>(&runs).await.0 == 1).await;
    task
}

/// DDL that has the server's backup lock, because it waits for a transaction. Ends with [`Blocked::end`].
pub struct Blocked {
    transaction: mysql_async::Conn,
    ddl: JoinHandle<()>,
}

impl Blocked {
    pub async fn begin(server: &Server) -> Self {
        let mut transaction = server.connect().await;
        transaction.query_drop("BEGIN").await.unwrap();
        transaction.query_drop("SELECT * FROM d.a").await.unwrap();
        let ddl = background(server, "ALTER TABLE d.a COMMENT 'waits'").await;
        Self { transaction, ddl }
    }

    pub async fn end(self) {
        let Self { mut transaction, ddl } = self;
        transaction.query_drop("COMMIT").await.unwrap();
        ddl.await.unwrap();
    }
}

/// A client that writes all the time, and how often the server made it wait for a lock on metadata: such are all
/// locks of a backup.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Writer {
    /// Writes with `statement`, over and over.
    pub async fn start(server: &Server, statement: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut conn, told, statement) = (server.connect().await, Arc::clone(&stop), statement.to_owned());
        let task = tokio::spawn(async move {
            while !told.load(Ordering::Relaxed) {
                conn.query_drop(&statement).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            conn.query_first(METADATA_WAITS).await.unwrap().unwrap()
        });
        Self { stop, task }
    }

    /// Ends it, and says how often it waited.
    pub async fn waits(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// How many sessions of the backup's user hold or wait for a lock.
pub async fn locks_left(server: &Server) -> u64 {
    let sql = format!(
        "SELECT COUNT(*) FROM performance_schema.metadata_locks l JOIN performance_schema.threads t \
         ON t.THREAD_ID = l.OWNER_THREAD_ID WHERE t.PROCESSLIST_USER = '{USER}' \
           AND l.OBJECT_TYPE IN ('BACKUP LOCK', 'GLOBAL', 'COMMIT')"
    );
    server.row::<(u64,)>(&sql).await.0
}

/// What `list` says: id and state of each.
pub async fn listed(store: &str) -> Vec<(String, String)> {
    if store.strip_prefix("file://").is_some_and(|folder| !Path::new(folder).exists()) {
        return Vec::new();
    }
    let list = Cli::new("list").args(["--store", store]).json().await;
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|entry| (text(entry, "id"), text(entry, "state"))).collect()
}

/// Panics if anything in the store looks like a backup.
pub async fn assert_no_backup(store: &str) {
    let listed = listed(store).await;
    assert!(listed.iter().all(|(_, state)| state != "Complete"), "{listed:?}");
}

/// A stored backup, open to be tampered with.
pub struct Stored {
    folder: TempDir,
    pub id: String,
}

impl Stored {
    /// The backup `id` of a store that is the folder `repository` of `folder`.
    pub fn new(folder: TempDir, report: &Value) -> Self {
        Self { folder, id: report["id"].as_str().unwrap().to_owned() }
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.repository().display())
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub fn manifest(&self) -> PathBuf {
        self.backup().join("manifest.json")
    }

    pub fn keys(&self) -> BTreeMap<String, PathBuf> {
        let keys = self.backup().join("keys");
        // Without encryption there are none.
        let attempt = std::fs::read_dir(keys).ok().and_then(|mut attempts| attempts.next());
        attempt.map_or_else(BTreeMap::new, |attempt| files(&attempt.unwrap().path()))
    }

    fn backup(&self) -> PathBuf {
        self.repository().join("backups").join(&self.id)
    }

    /// Its objects by name.
    pub fn objects(&self) -> BTreeMap<String, PathBuf> {
        let data = self.backup().join("data");
        let attempt = std::fs::read_dir(data).unwrap().next().unwrap().unwrap();
        files(&attempt.path())
    }

    /// A second one with the same bytes.
    pub fn copy(&self) -> Self {
        let folder = scratch();
        copy_tree(&self.repository(), &folder.path().join("repository"));
        Self { folder, id: self.id.clone() }
    }
}

/// The files of a folder by name.
pub fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

pub fn copy_tree(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(done.success(), "cannot copy {}", from.display());
}

/// Changes one bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Everything below a folder with its size, to see that nothing was touched.
pub fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                todo.push(entry.path());
            }
            found.insert(entry.path(), if metadata.is_dir() { 0 } else { metadata.len() });
        }
    }
    found
}

/// A file with a key made of `seed`.
pub fn key_file(folder: &Path, name: &str, seed: u8) -> String {
    let path = folder.join(name);
    let key: Vec<u8> = (0..32_u8).map(|byte| byte.wrapping_mul(7) ^ seed).collect();
    std::fs::write(&path, hex::encode(key)).unwrap();
    path.display().to_string()
}
