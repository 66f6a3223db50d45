//! What is done with backups that are there: shown, pinned, pruned. All by the binary, over a folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stillframe::ops::error::ErrorKind;

use super::support::cli::Cli;
use super::support::round;
use super::support::server::{Server, scratch};

fn verb(name: &str, store: &str) -> Cli {
    Cli::new(name).args(["--store", store])
}

fn id_of(report: &Value) -> String {
    report["id"].as_str().unwrap().to_owned()
}

/// Ids and states, oldest first.
async fn listed(store: &str) -> Vec<(String, String)> {
    let list = verb("list", store).json().await;
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|entry| (text(entry, "id"), text(entry, "state"))).collect()
}

async fn complete(store: &str) -> Vec<String> {
    listed(store).await.into_iter().filter(|(_, state)| state == "Complete").map(|(id, _)| id).collect()
}

/// The ids of one part of a report of `prune`.
fn ids(report: &Value, part: &str) -> Vec<String> {
    report[part].as_array().unwrap().iter().map(id_of).collect()
}

/// Three backups of one name, each of a second of its own, so that it is known which is the newest.
async fn three(server: &Server, store: &str) -> [String; 3] {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(id_of(&round::backup(server, store).args(["--name", "nightly"]).json().await));
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    ids.try_into().unwrap()
}

/// The folder of a backup's data.
fn data(folder: &Path, id: &str) -> PathBuf {
    folder.join("repository/backups").join(id).join("data")
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_what_no_rule_and_no_pin_keeps_and_runs_that_died() {
    let server = Server::builder().start().await;
    round::minimal_user(&server).await;
    let (folder, store) = round::folder_store();
    let [first, second, third] = three(&server, &store).await;
    let other = id_of(&round::backup(&server, &store).args(["--name", "weekly"]).json().await);
    verb("pin", &store).arg(&first).run().await.assert_success();
    let prune = |args: &[&str]| verb("prune", &store).args(args);
    prune(&[]).run().await.assert_failed(ErrorKind::Usage, "neither a rule");

    let dry = prune(&["--keep-last", "1", "--dry-run"]).json().await;
    assert_eq!(ids(&dry, "removed"), [second.as_str()]);
    assert_eq!(complete(&store).await.len(), 4, "a dry run removes nothing");

    let pruned = prune(&["--keep-last", "1"]).json().await;
    assert_eq!(ids(&pruned, "removed"), [second.as_str()]);
    assert_eq!(complete(&store).await, [&first, &third, &other].map(Clone::clone));
    assert!(!data(folder.path(), &second).exists(), "its data stays");
    verb("show", &store).arg(&second).run().await.assert_failed(ErrorKind::NotFound, &second);
    let kept = pruned["kept"].to_string();
    assert!(kept.contains("pinned"), "nothing says why the pinned one stays: {kept}");
    for id in [&first, &third] {
        assert_eq!(verb("verify", &store).arg(id).json().await["good"], true, "{id}");
    }

    let refused = verb("delete", &store).arg(&first).run().await;
    refused.assert_failed(ErrorKind::Protected, "pinned");
    verb("show", &store).arg(&first).run().await.assert_success();
    verb("unpin", &store).arg(&first).run().await.assert_success();
    assert_eq!(ids(&prune(&["--keep-last", "1"]).json().await, "removed"), [first.as_str()]);
    assert_eq!(complete(&store).await, [&third, &other].map(Clone::clone));
    assert_eq!(prune(&["--keep-last", "1"]).json().await["removed"], json!([]), "there is nothing more to do");

    // A run that is killed: while its lease is fresh somebody may be at work there, later it is dead.
    let mut killed = round::backup(&server, &store).args(["--name", "dead", "--throttle", "1M"]).spawn();
    killed.wait_until_said("  copy").await;
    killed.signal(Signal::KILL);
    killed.wait().await;
    let is_dead = |(id, _): &(String, String)| id.starts_with("dead-");
    let (dead, state) = listed(&store).await.into_iter().find(is_dead).unwrap();
    assert_eq!(state, "Running");
    assert_eq!(ids(&prune(&["--stale"]).json().await, "stale"), Vec::<String>::new());
    let lease = data(folder.path(), &dead).with_file_name("lease.json");
    let file = std::fs::File::options().write(true).open(&lease).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    file.set_modified(written - Duration::from_hours(1)).unwrap();
    assert_eq!(listed(&store).await.into_iter().find(is_dead).unwrap().1, "Stale");
    assert_eq!(prune(&["--keep-last", "1"]).json().await["stale"], json!([]), "no rule is for runs that died");
    let pruned = prune(&["--stale"]).json().await;
    assert_eq!(
        (ids(&pruned, "stale"), &pruned["removed"], &pruned["failed"]),
        (vec![dead.clone()], &json!([]), &json!([]))
    );
    assert!(!data(folder.path(), &dead).exists() && !lease.exists(), "its remains stay");
    assert_eq!(complete(&store).await, [&third, &other].map(Clone::clone));
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_all_that_a_restore_or_a_replica_has_to_know() {
    let server = Server::builder().start().await;
    server.sql("CREATE DATABASE d;\nCREATE TABLE d.t (id INT PRIMARY KEY);\nINSERT INTO d.t VALUES (1)").await;
    round::minimal_user(&server).await;
    let (_folder, store) = round::folder_store();
    let keys = scratch();
    let key = keys.path().join("key");
    std::fs::write(&key, "5a5b".repeat(16)).unwrap();
    let plain = round::backup(&server, &store).args(["--name", "plain", "--compression", "lz4"]).json().await;
    let sealed = round::backup(&server, &store).args(["--name", "sealed", "--encryption-key-file"]).arg(&key);
    let sealed = sealed.json().await;

    for report in [&plain, &sealed] {
        let show = || verb("show", &store).arg(id_of(report));
        let shown = show().json().await;
        for same in [
            "id",
            "name",
            "type",
            "parent",
            "lsn",
            "binlog",
            "gtidExecuted",
            "startTime",
            "completionTime",
            "durationSeconds",
            "lockHeldMilliseconds",
            "globalReadLockMilliseconds",
            "ddlWaitMilliseconds",
            "bytes",
            "warnings",
        ] {
            assert!(report.get(same).is_some(), "the report has no {same}: {report}");
            assert_eq!(subset(&shown[same], &report[same]), report[same], "{same}");
        }
        let lsn = |name: &str| shown["lsn"][name].to_string().trim_matches('"').parse::<u64>().unwrap();
        assert!(lsn("checkpoint") > 0 && lsn("end") >= lsn("checkpoint"), "{shown}");
        assert!(shown["binlog"]["file"].as_str().is_some_and(|file| file.starts_with("binlog.")), "{shown}");
        assert!(shown["gtidExecuted"].as_str().is_some_and(|set| set.contains(':')), "{shown}");
        assert_eq!(shown["server"]["uuid"], server.variable("server_uuid").await);
        assert_eq!(shown["server"]["version"], server.variable("version").await);
        for setting in ["innodb_page_size", "lower_case_table_names", "character_set_server", "gtid_mode"] {
            assert_eq!(shown["server"]["settings"][setting], server.variable(setting).await, "{setting}");
        }
        for table in ["objects", "redoTable", "files"] {
            let digest = shown["contents"][table]["digest"].as_str().unwrap_or_default();
            assert!(digest.len() >= 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{table}: {shown}");
        }
        // The text has it all, too.
        let text = show().run().await;
        text.assert_success();
        let parsed: Value = serde_yaml::from_str(&text.stdout).unwrap();
        assert_eq!(parsed, shown);
    }
    // Its inner tables tell of files, so they need the key.
    let inspect = |name: &str| Cli::new("inspect").args(["backup", "--store", &store, name]);
    inspect("sealed").run().await.assert_failed(ErrorKind::WrongKey, "given none");
    for inside in [inspect("plain"), inspect("sealed").arg("--encryption-key-file").arg(&key)] {
        let inside = inside.json().await.to_string();
        for wanted in ["pack-000001", "redo-000001"] {
            assert!(inside.contains(wanted), "{wanted} is not in {inside}");
        }
    }
    let shown = verb("show", &store).arg("plain").json().await;
    assert_eq!((&shown["codec"], &shown["cipher"]), (&json!("lz4"), &Value::Null));
    assert_eq!(shown["digest"].as_str().map(str::len), Some(64), "SHA-256 of what nobody signs");
    let shown = verb("show", &store).arg("sealed").json().await;
    assert!(shown["codec"].as_str().is_some_and(|codec| codec.starts_with("zstd")), "{shown}");
    assert_eq!(shown["cipher"]["algorithm"], "AES-256-GCM");
    assert_eq!(shown["cipher"]["keyIds"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["hmac"].as_str().map(str::len), Some(64));
    assert!(!shown.to_string().contains("5a5b5a5b"), "a secret is shown");
}

/// What `whole` says of those members that `part` has.
fn subset(whole: &Value, part: &Value) -> Value {
    match part {
        Value::Object(members) => {
            members.keys().map(|name| (name.clone(), whole.get(name).cloned().unwrap_or_default())).collect()
        }
        _ => whole.clone(),
    }
}
