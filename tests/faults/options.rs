//! What is refused before the copy begins, each with its reason and what to do, and what the options promise.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use stillframe::ops::error::ErrorKind;

use crate::help::{assert_no_backup, small, write_redo};
use crate::support::cli::{Cli, Outcome};
use crate::support::round::{self, USER};
use crate::support::server::{Server, scratch};
use crate::support::wait::SOON;

/// Runs a backup that must be refused soon, before it copies anything.
async fn refused(cli: Cli, kind: ErrorKind, text: &str) -> Outcome {
    let outcome = cli.run().await;
    outcome.assert_failed(kind, text);
    assert!(!outcome.stderr.contains("  copy"), "refused too late: {outcome}");
    outcome
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_the_copy() {
    let (server, other) = tokio::join!(small(Server::builder()), small(Server::builder()));
    let (folder, store) = round::folder_store();
    let backup = || round::backup(&server, &store);

    let outcome =
        refused(backup().arg("--datadir").arg(other.datadir()), ErrorKind::ServerMismatch, "is of server").await;
    for server in [&server, &other] {
        assert!(outcome.stderr.contains(&server.variable("server_uuid").await), "{outcome}");
    }
    refused(backup().arg("--datadir").arg(folder.path()), ErrorKind::ServerMismatch, "auto.cnf").await;

    // Files that this user may not read. Permissions of what the server has open change nothing for it.
    let system = server.datadir().join("ibdata1");
    chmod(&system, 0);
    refused(backup().without_capabilities(), ErrorKind::LocalIo, "ibdata1").await;
    chmod(&system, 0o640);

    let read_only = folder.path().join("read-only");
    std::fs::create_dir(&read_only).unwrap();
    chmod(&read_only, 0o555);
    let url = format!("file://{}", read_only.join("repository").display());
    let outcome = round::backup(&server, &url).without_capabilities().run().await;
    assert!([19, 20].contains(&outcome.code().unwrap()) && outcome.stderr.contains("read-only"), "{outcome}");
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("holiday.jpg"), "x").unwrap();
    refused(round::backup(&server, &format!("file://{}", foreign.display())), ErrorKind::Preflight, "holiday").await;

    let inside = round::backup_through(&server, &store, &server.datadir().join("spool"));
    refused(inside, ErrorKind::Preflight, "data directory").await;
    assert!(!server.datadir().join("spool").exists());
    refused(round::backup_through(&server, &store, Path::new("/sys/spool")), ErrorKind::LocalIo, "/sys/spool").await;
    refused(backup().args(["--spool-bytes", "64K"]), ErrorKind::SpoolFull, "--spool-bytes").await;

    server.sql(&format!("REVOKE BACKUP_ADMIN ON *.* FROM {USER}@localhost")).await;
    let outcome = refused(backup(), ErrorKind::Privileges, "GRANT BACKUP_ADMIN ON *.* TO").await;
    assert!(!outcome.stderr.contains("RELOAD"), "only what is missing is named: {outcome}");
    server.sql(&format!("GRANT BACKUP_ADMIN ON *.* TO {USER}@localhost")).await;
    server.sql(&format!("REVOKE SELECT ON performance_schema.log_status FROM {USER}@localhost")).await;
    refused(backup(), ErrorKind::Privileges, "GRANT SELECT ON performance_schema.log_status TO").await;
    round::minimal_user(&server).await;

    server.sql("CREATE TABLE d.m (id INT) ENGINE=MyISAM").await;
    let outcome = refused(backup().args(["--non-transactional", "refuse"]), ErrorKind::Preflight, "m.MYD").await;
    assert!(outcome.stderr.contains("--non-transactional"), "{outcome}");

    let bad = server.root().join("bad-password");
    std::fs::write(&bad, "wrong\n").unwrap();
    let cli = Cli::new("backup").args(["--store", &store, "--user", USER, "--socket"]).arg(server.socket());
    let outcome = refused(cli.arg("--password-file").arg(bad), ErrorKind::Connection, "Access denied").await;
    assert!(!outcome.stderr.contains("wrong\n"), "{outcome}");
    let nowhere = Cli::new("backup").args(["--store", &store, "--user", USER, "--socket", "/nowhere/socket"]);
    refused(nowhere, ErrorKind::Connection, "/nowhere/socket").await;

    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
    backup().run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_redo_can_be_skipped_and_it_is_said() {
    let server = small(Server::builder()).await;
    server.sql("CREATE TABLE d.m (id INT) ENGINE=MyISAM;\nINSERT INTO d.m VALUES (1)").await;
    let (_folder, store) = round::folder_store();
    let report = round::backup(&server, &store).args(["--non-transactional", "skip"]).json().await;
    assert_eq!(report["globalReadLockMilliseconds"], 0);
    assert!(report["warnings"].to_string().contains("skipped"), "{report}");
    let place = scratch();
    let datadir = place.path().join("data");
    let restored = Cli::restore(&store, "backup", &datadir).json().await;
    assert!(restored["warnings"].to_string().contains("skipped"), "{restored}");
    assert!(!datadir.join("d/m.MYD").exists() && datadir.join("d/a.ibd").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_fills_up_ends_the_backup_and_spares_the_server() {
    let server = small(Server::builder().option("innodb_flush_log_at_trx_commit", 0).option("sync_binlog", 0)).await;
    let (_folder, store) = round::folder_store();
    server.sql("CREATE TABLE d.m (pad LONGBLOB) ENGINE=MyISAM").await;
    server.sql("INSERT INTO d.m VALUES (REPEAT('m', 40000000))").await;
    // Files that are copied under the global read lock must fit; when they do not, nobody is stopped for it.
    let flushes = "SELECT SUM(COUNT_STAR) FROM performance_schema.events_statements_summary_global_by_event_name \
                   WHERE EVENT_NAME = 'statement/sql/flush'";
    let (before,): (u64,) = server.row(flushes).await;
    let outcome = round::backup(&server, &store).args(["--spool-bytes", "32M"]).run().await;
    outcome.assert_failed(ErrorKind::SpoolFull, "is full");
    assert_eq!(server.row::<(u64,)>(flushes).await, (before,), "it asked for the lock in vain");
    assert!(outcome.stderr.contains("--spool-bytes"), "{outcome}");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
    write_redo(&server, 1 << 20).await;
    round::backup(&server, &store).args(["--spool-bytes", "100M"]).run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_throttle_and_the_number_of_threads_keep_their_word() {
    let server = small(Server::builder()).await;
    write_redo(&server, 4 << 20).await;
    let (_folder, store) = round::folder_store();
    let began = Instant::now();
    let slow = round::backup(&server, &store).args(["--name", "one", "--parallel", "1", "--throttle", "12M"]);
    let one = slow.json().await;
    let took = began.elapsed();
    let bytes = one["bytes"]["read"].as_u64().unwrap();
    let least = Duration::from_millis(bytes.saturating_sub(8 << 20) * 1000 / (12 << 20));
    assert!(took >= least, "{bytes} bytes in {took:?}, {least:?} is the least at 12 MiB/s");
    let four = round::backup(&server, &store).args(["--name", "four", "--parallel", "4"]).json().await;

    let place = scratch();
    for name in ["one", "four"] {
        let threads = if name == "one" { "4" } else { "1" };
        let restore = Cli::restore(&store, name, place.path().join(name)).args(["--parallel", threads]);
        restore.run().await.assert_success();
    }
    let read = |name: &str, file: &str| std::fs::read(place.path().join(name).join(file)).unwrap();
    for file in ["d/a.ibd", "d/b.ibd", "d/redo.ibd"] {
        assert!(read("one", file) == read("four", file), "{file} differs");
    }
    assert_shape(&one);
    assert_eq!(one["server"]["uuid"], four["server"]["uuid"]);
}

/// Scheduling classes of a process's threads, as the kernel numbers them.
fn classes(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    // The name, in parentheses, may hold spaces; the class is the 39th field behind it.
    stats.filter_map(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(38).map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_backup_steps_back_and_comes_to_its_end() {
    const IDLE: &str = "5";
    let server = small(Server::builder()).await;
    write_redo(&server, 24 << 20).await;
    let (_folder, store) = round::folder_store();
    let options = ["--polite", "--parallel", "2", "--throttle", "5M"];
    let filter = "stillframe::capture::polite=debug";
    let mut backup = round::backup(&server, &store).args(options).env("STILLFRAME_LOG", filter).spawn();
    backup.wait_until_said("  copy").await;
    let mut seen = Vec::new();
    let deadline = Instant::now() + SOON;
    // Two readers, two workers and the redo's uploader; the rest, the redo's follower with it, is as it was.
    while seen.iter().filter(|class| *class == IDLE).count() != 5 {
        assert!(backup.is_running() && Instant::now() < deadline, "{seen:?}: {}", backup.said());
        tokio::time::sleep(Duration::from_millis(2)).await;
        seen = classes(backup.pid());
    }
    assert!(seen.iter().filter(|class| *class != IDLE).count() > 4, "{seen:?}");
    let outcome = backup.wait().await;
    outcome.assert_success();
    assert!(outcome.stderr.contains("polite copy"), "nobody listened: {outcome}");

    let place = scratch();
    let restore = Cli::restore(&store, "backup", place.path().join("data")).args(["--external-files", "inside"]);
    restore.arg("--mysqld").arg(server.mysqld()).run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_kept_from_writing_for_longer_than_the_budget() {
    let server = small(Server::builder()).await;
    server.sql("CREATE TABLE d.m (pad LONGBLOB) ENGINE=MyISAM;\nINSERT INTO d.m VALUES (REPEAT('m', 40000000))").await;
    let (_folder, store) = round::folder_store();
    let outcome = round::backup(&server, &store).args(["--read-lock-budget", "0"]).run().await;
    outcome.assert_failed(ErrorKind::ReadLockBudget, "--read-lock-budget");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
    server.sql("INSERT INTO d.m VALUES ('written')").await;
    round::backup(&server, &store).run().await.assert_success();
}

/// The names that scripts rely on.
fn assert_shape(report: &Value) {
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let has = |value: &Value, wanted: &[&str]| {
        let missing: Vec<_> = wanted.iter().filter(|name| !names(value).contains(**name)).collect();
        assert!(missing.is_empty(), "{missing:?} is missing in {value}");
    };
    has(
        report,
        &[
            "name",
            "id",
            "type",
            "parent",
            "lsn",
            "binlog",
            "gtidExecuted",
            "server",
            "bytes",
            "pages",
            "durationSeconds",
            "lockHeldMilliseconds",
            "ddlWaitMilliseconds",
        ],
    );
    has(&report["lsn"], &["checkpoint", "end"]);
    has(&report["binlog"], &["file", "position"]);
    has(&report["server"], &["version", "uuid"]);
    has(&report["bytes"], &["read", "stored"]);
    has(&report["pages"], &["copied", "zero", "reread"]);
    assert!(report["lsn"]["end"].is_string() && report["type"] == "Full" && report["parent"].is_null(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_goes_to_standard_error_and_the_report_alone_to_standard_output() {
    let server = small(Server::builder()).await;
    let (_folder, store) = round::folder_store();
    let outcome = round::backup(&server, &store).args(["-o", "json"]).run().await;
    outcome.assert_success();
    assert_shape(&outcome.json());
    let mut from = 0;
    for step in ["preflight", "lock", "copy", "cut", "upload", "index", "commit"] {
        let found = outcome.stderr[from..].find(&format!("  {step}\n"));
        from += found.unwrap_or_else(|| panic!("no line for the step {step}: {outcome}"));
    }
    assert!(outcome.stderr.contains("  copy: "), "how much was copied, and how fast: {outcome}");
    let text = round::backup(&server, &store).run().await;
    text.assert_success();
    assert!(text.stdout.starts_with("Backup") && text.stdout.contains("GTID set"), "{text}");
    assert!(!text.stdout.contains("preflight"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_sees_a_bar_with_bytes_rate_rest_and_lag() {
    let server = small(Server::builder()).await;
    let (folder, store) = round::folder_store();
    let report = folder.path().join("report.json");
    let backup = round::backup(&server, &store).args(["--throttle", "12M", "-o", "json"]);
    let outcome = backup.on_a_terminal(&report).run().await;
    outcome.assert_success();
    // It is drawn again and again, each time over the last one.
    let bars: Vec<&str> = outcome.stdout.split(['\r', '\n']).filter(|line| line.contains('━')).collect();
    assert!(bars.len() > 3, "{outcome}");
    for wanted in [" MiB/", " MiB/s, ", "ETA ", "lag "] {
        assert!(bars.iter().any(|bar| bar.contains("copy") && bar.contains(wanted)), "no {wanted:?}: {bars:?}");
    }
    assert_shape(&serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap());
}
