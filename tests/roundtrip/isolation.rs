//! A restored server keeps to itself: its copy of the source's replication does not start, nor do its events run, until
//! its owner says so. Seen with servers that read option files, and with them what was persisted, as any real one does.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::cli::Cli;
use super::support::round;
use super::support::server::{Server, scratch};

/// A server on a restored directory, started by an option file instead of `--no-defaults`.
struct Started {
    server: Server,
    child: Child,
}

impl Started {
    async fn on(source: &Server, datadir: &Path) -> Self {
        let server = round::stock(source).on_datadir(datadir).create();
        let file = server.root().join("my.cnf");
        std::fs::write(&file, "[mysqld]\n").unwrap();
        let arguments = server.arguments();
        assert_eq!(arguments[0], "--no-defaults");
        let child = Command::new(server.mysqld())
            .arg(format!("--defaults-file={}", file.display()))
            .args(&arguments[1..])
            .args(rustix::process::geteuid().is_root().then_some("--user=root"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut started = Self { server, child };
        let began = Instant::now();
        while started.server.try_connect().await.is_err() {
            let ended = started.child.try_wait().unwrap();
            let log = || started.server.error_log().text;
            assert!(ended.is_none() && began.elapsed() < Duration::from_mins(1), "{ended:?}: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        started
    }

    async fn stop(mut self) {
        self.server.sql("SHUTDOWN").await;
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap();
    }

    /// Whether it starts replicas, its scheduler, and what its replication channel is at.
    async fn state(&self) -> (String, String, String) {
        let query = "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status";
        let (channel,): (String,) = self.server.row(query).await;
        (self.server.variable("skip_replica_start").await, self.server.variable("event_scheduler").await, channel)
    }

    /// How many events ran in the time that two of them take.
    async fn ticks(&self) -> u64 {
        let count = "SELECT COUNT(*) FROM d.ticks";
        let (before,): (u64,) = self.server.row(count).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        self.server.row::<(u64,)>(count).await.0 - before
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A replica, of a server that nobody can reach, with an event that runs every second.
async fn source() -> Server {
    let source = Server::builder().start().await;
    source
        .sql(
            "CREATE DATABASE d;\n\
             CREATE TABLE d.ticks (id INT PRIMARY KEY AUTO_INCREMENT);\n\
             CREATE EVENT d.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO d.ticks VALUES ();\n\
             CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=1, SOURCE_USER='nobody', \
             SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=1000000;\n\
             START REPLICA",
        )
        .await;
    round::minimal_user(&source).await;
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_keeps_to_itself_until_it_is_told_otherwise() {
    let source = source().await;
    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let own = source.variable("server_uuid").await;
    let target = scratch();
    let restore = |name: &str| Cli::restore(&store, "backup", target.path().join(name));
    let restored = restore("apart").json().await;
    let kept = restore("kept").arg("--keep-replication").json().await;
    let lines = |report: &Value| report["isolation"].to_string();
    assert!(lines(&restored).contains("skip_replica_start=ON") && lines(&restored).contains("RESET PERSIST"));
    assert!(!lines(&kept).contains("skip_replica_start"), "{kept}");

    let apart = Started::on(&source, &target.path().join("apart")).await;
    let state = |on: &str, scheduler: &str, channel: &str| (on.to_owned(), scheduler.to_owned(), channel.to_owned());
    assert_eq!(apart.state().await, state("1", "OFF", "OFF"));
    assert_eq!(apart.ticks().await, 0, "an event runs twice: here and where it comes from");
    let its = apart.server.variable("server_uuid").await;

    let other = Started::on(&source, &target.path().join("kept")).await;
    assert_eq!(other.state().await, state("0", "ON", "CONNECTING"));
    assert!(other.ticks().await > 0, "its events are to go on");
    let kept = other.server.variable("server_uuid").await;
    assert!(own != its && own != kept && its != kept, "{own} {its} {kept}");
    other.stop().await;

    // What the report says is enough to lift it.
    let mut report = restored["isolation"].as_array().unwrap().iter().filter_map(Value::as_str);
    let lift = report.find_map(|line| line.strip_prefix("to lift it: ")).unwrap();
    for statement in lift.split(';').map(str::trim).filter(|part| part.starts_with("RESET PERSIST")) {
        apart.server.sql(statement).await;
    }
    apart.stop().await;
    let lifted = Started::on(&source, &target.path().join("apart")).await;
    assert_eq!(lifted.state().await, state("0", "ON", "CONNECTING"));
    assert_eq!(lifted.server.variable("server_uuid").await, its, "the new identity stays");
    lifted.stop().await;
}
