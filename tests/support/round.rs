//! What most tests of a round trip need: the documented minimal user, and proofs that a run left nothing behind.

use stillframe::mysql::grants_sql;

use super::cli::Cli;
use super::server::{Builder, Server, scratch};
use super::wait::{FREED, within};

/// The account that `stillframe grants` prints, and its password.
pub const USER: &str = "stillframe";
const PASSWORD: &str = "a pass'word";

/// Makes the account that the documentation asks for, and no more than that.
pub async fn minimal_user(server: &Server) {
    for statement in super::server::split_statements(&grants_sql(USER, "localhost")) {
        server.sql(statement).await;
    }
    server.sql(&format!("ALTER USER {USER}@localhost IDENTIFIED BY '{}'", PASSWORD.replace('\'', "''"))).await;
}

/// `stillframe backup` as the minimal user.
pub fn backup(server: &Server, store: &str) -> Cli {
    backup_by(Cli::new("backup"), server, store)
}

/// The same with a spool elsewhere.
pub fn backup_through(server: &Server, store: &str, spool: &std::path::Path) -> Cli {
    backup_with(Cli::new("backup"), server, store, spool)
}

/// The same for a `cli` that is made already.
pub fn backup_by(cli: Cli, server: &Server, store: &str) -> Cli {
    backup_with(cli, server, store, &server.root().join("spool"))
}

/// The file with the minimal user's password.
pub fn password_file(server: &Server) -> std::path::PathBuf {
    let file = server.root().join("backup-password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    file
}

fn backup_with(cli: Cli, server: &Server, store: &str, spool: &std::path::Path) -> Cli {
    let file = password_file(server);
    cli.args(["--store", store, "--user", USER, "--socket"])
        .arg(server.socket())
        .arg("--password-file")
        .arg(file)
        .arg("--spool-dir")
        .arg(spool)
}

/// Who applies the redo of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// A server, run once on the restored directory.
    Server,
    /// Stillframe.
    Native,
}

impl Recovery {
    /// What `STILLFRAME_TEST_RECOVERY` says (`server`, or `native`, the default): so that every round trip can be made with
    /// both. Set by hand, where one of them is in doubt.
    pub fn of_environment() -> Self {
        match std::env::var("STILLFRAME_TEST_RECOVERY").as_deref() {
            Ok("native") | Err(_) => Self::Native,
            Ok("server") => Self::Server,
            Ok(other) => panic!("STILLFRAME_TEST_RECOVERY is {other}"),
        }
    }

    /// `cli`, a restore, with this recovery.
    pub fn of(self, cli: Cli, source: &Server) -> Cli {
        match self {
            Self::Server => cli.args(["--recovery", "server", "--mysqld"]).arg(source.mysqld()),
            Self::Native => cli.args(["--recovery", "native"]),
        }
    }

    /// Panics unless the report of such a restore says that all is recovered.
    pub fn assert_done(self, restored: &serde_json::Value) {
        let state = match self {
            Self::Server => "Recovered",
            Self::Native => "Applied",
        };
        assert_eq!(restored["recovery"], state, "{restored}");
        if self == Self::Native {
            let applied = |what: &str| restored["applied"][what].as_u64().unwrap();
            assert!(applied("records") > 0 && applied("pages") > 0, "{restored}");
        }
    }
}

/// A server with the source's formats and features, but with default places: what a user would start on a restored
/// directory.
pub fn stock(source: &Server) -> Builder {
    source.sibling().default_places()
}

/// Panics when a backup's lock, its consumer, its sessions or its spool are still there.
pub async fn assert_nothing_left(server: &Server) {
    let locks: Vec<(String,)> = server
        .rows("SELECT OBJECT_TYPE FROM performance_schema.metadata_locks WHERE OBJECT_TYPE IN ('BACKUP LOCK', 'GLOBAL') AND LOCK_DURATION = 'EXPLICIT'")
        .await;
    assert!(locks.is_empty(), "locks were left: {locks:?}");
    // The server takes a moment to see that a client has gone; what the session held is gone before.
    let sessions = format!("SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_USER = '{USER}'");
    within(FREED, "no session is left", async || server.row::<(u64,)>(&sessions).await.0 == 0).await;
    // Only one consumer can be registered: that this works proves that none is.
    let (taken,): (i64,) = server.row("SELECT innodb_redo_log_consumer_register()").await;
    assert_eq!(taken, 0, "a redo consumer was left");
    let left: Vec<_> =
        std::fs::read_dir(server.root().join("spool")).map(|dir| dir.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "spool files were left: {left:?}");
}

/// A new repository in a folder: keep the folder as long as the store is used.
pub fn folder_store() -> (tempfile::TempDir, String) {
    let folder = scratch();
    let url = format!("file://{}", folder.path().join("repository").display());
    (folder, url)
}
