//! What must be true before a backup exists: its objects are there, its id is still its own, its process was not dead.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use stillframe::ops::error::ErrorKind;
use stillframe::store::{Repository, StoreSettings};

use crate::help::{assert_no_backup, files, listed, listing, locks_left, small, write_redo};
use crate::support::cli::Cli;
use crate::support::proxy::{Fault, Proxy, Request};
use crate::support::round;
use crate::support::s3::{self, S3Server};
use crate::support::server::Server;
use crate::support::wait::{SOON, until, within};

/// One of the tables that are stored when all packs are.
fn is_table(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("/data/") && !request.path.contains("-0000")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_lost_by_the_end_is_missed_before_the_commit() {
    let server = small(Server::builder()).await;
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.address());
    let url = s3.url("p");
    let cli = |cli: Cli| cli.envs(&s3::environment(&proxy.endpoint()));
    let lose: [fn(PathBuf); 2] = [
        |pack| std::fs::remove_file(pack).unwrap(),
        |pack| std::fs::File::options().write(true).open(pack).unwrap().set_len(1000).unwrap(),
    ];
    for lose in lose {
        let held = proxy.fail(usize::MAX, Fault::Hold, is_table);
        let backup = cli(round::backup(&server, &url)).spawn();
        until("all packs are stored", async || held.count() > 0).await;
        let packs: Vec<PathBuf> =
            listing(&s3.bucket()).into_keys().filter(|path| path.ends_with("pack-000001")).collect();
        assert_eq!(packs.len(), 1, "{packs:?}");
        lose(packs[0].clone());
        proxy.heal();
        let outcome = backup.wait().await;
        outcome.assert_failed(ErrorKind::DamagedBackup, "pack-000001");
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let list = cli(Cli::new("list").args(["--store", &url])).json().await;
        assert!(list.as_array().unwrap().iter().all(|entry| entry["state"] != "Complete"), "{list}");
        round::assert_nothing_left(&server).await;
    }
    cli(round::backup(&server, &url)).run().await.assert_success();
}

/// Redo that cannot be stored makes the whole copy worthless, so it is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_for_good_ends_the_backup_at_once() {
    let server = small(Server::builder()).await;
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.address());
    let url = s3.url("p");
    let backup =
        || round::backup(&server, &url).envs(&s3::environment(&proxy.endpoint())).args(["--compression", "none"]);
    for (object, throttle) in [("redo-000001", "200K"), ("pack-000001", "1G")] {
        let refused = proxy.fail(usize::MAX, Fault::Answer(400, "EntityTooLarge"), move |request| {
            matches!(request.method.as_str(), "PUT" | "POST") && request.path.ends_with(object)
        });
        let mut running = backup().args(["--throttle", throttle]).spawn();
        running.wait_until_said("  copy").await;
        if object.starts_with("redo") {
            // More than waits for the end of the backup.
            write_redo(&server, 24 << 20).await;
        }
        let outcome = running.wait().await;
        outcome.assert_failed(ErrorKind::Store, object);
        assert!(outcome.stderr.contains("EntityTooLarge"), "{outcome}");
        assert!(!outcome.stderr.contains("  cut"), "it went on: {outcome}");
        assert!(refused.count() < 10, "what is refused for good was tried {} times", refused.count());
        proxy.heal();
        round::assert_nothing_left(&server).await;
    }
    backup().run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_id_is_taken_away_gives_up_in_the_midst_of_its_copy() {
    let server = small(Server::builder()).await;
    let (folder, store) = round::folder_store();
    let mut backup = round::backup(&server, &store).args(["--throttle", "200K"]).spawn();
    backup.wait_until_said("  copy").await;
    let (id, state) = listed(&store).await.remove(0);
    assert_eq!(state, "Running");
    Cli::new("delete").args(["--store", &store, &id]).run().await.assert_failed(ErrorKind::IncompleteBackup, "at work");
    // Nobody takes it for one that could be restored.
    let datadir = folder.path().join("data");
    for verb in [Cli::new("verify").args(["--store", &store, &id]), Cli::restore(&store, &id, &datadir)] {
        verb.run().await.assert_failed(ErrorKind::IncompleteBackup, "at work");
    }
    Cli::restore(&store, "backup", &datadir).run().await.assert_failed(ErrorKind::IncompleteBackup, &id);
    assert!(!datadir.exists());
    let settings = StoreSettings::new::<String, String>([]);
    let repository = Repository::open_with(&store.parse().unwrap(), settings, false).await.unwrap();
    assert!(repository.call_off(&id.parse().unwrap()).await.unwrap());
    let outcome = backup.wait().await;
    outcome.assert_failed(ErrorKind::Cancelled, "cancelled by somebody else");
    assert!(!outcome.stderr.contains("  cut"), "it went on with a copy that nobody can commit: {outcome}");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
}

/// As on a machine that is suspended, or a node that is frozen: others must be able to go on without it, and it must not
/// come back to an end of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_stands_still_loses_its_locks_and_can_never_commit() {
    let server = small(Server::builder()).await;
    let (folder, store) = round::folder_store();
    let mut backup = round::backup(&server, &store).args(["--redo-consumer", "on", "--throttle", "200K"]).spawn();
    backup.wait_until_said("  copy").await;
    assert!(locks_left(&server).await > 0, "it copies under the lock");
    backup.signal(Signal::STOP);
    // The server waits for a silent connection for 30 s, and by its defaults it would for eight hours.
    within(SOON, "the server takes its locks back", async || locks_left(&server).await == 0).await;
    server.sql("CREATE TABLE d.soon (a INT)").await;
    let consumer = async || server.row::<(i64,)>("SELECT innodb_redo_log_consumer_register()").await.0 == 0;
    within(SOON, "nothing waits for it to take redo", consumer).await;

    let (id, _) = listed(&store).await.remove(0);
    let lease = folder.path().join("repository/backups").join(&id).join("lease.json");
    let file = std::fs::File::options().write(true).open(lease).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_hours(1)).unwrap();
    let pruned = Cli::new("prune").args(["--store", &store, "--stale"]).json().await;
    assert_eq!(pruned["stale"][0]["id"], id.as_str(), "{pruned}");

    backup.signal(Signal::CONT);
    let outcome = backup.wait().await;
    assert!([3, 6].contains(&outcome.code().unwrap()), "{outcome}");
    assert!(!outcome.stderr.contains("  cut"), "{outcome}");
    assert!(listed(&store).await.iter().all(|(_, state)| state != "Complete" && state != "Running"));
    round::assert_nothing_left(&server).await;
    let left = files(&folder.path().join("repository/backups").join(&id));
    assert!(left.keys().all(|name| name == "manifest.json"), "only the tombstone stays: {left:?}");
}
