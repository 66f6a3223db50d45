//! Restores that are refused before a byte is written, and those that were interrupted: what they leave never starts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use stillframe::ops::error::ErrorKind;

use crate::help::{Stored, key_file, listing, program, small};
use crate::support::cli::Cli;
use crate::support::round;
use crate::support::server::{Server, scratch};
use crate::support::workload::text::Random;

const MARKER: &str = "stillframe-restore-incomplete";

async fn take(server: &Server, args: &[&str]) -> Stored {
    let (folder, store) = round::folder_store();
    let report = round::backup(server, &store).args(args).json().await;
    Stored::new(folder, &report)
}

/// Runs a restore that must be refused, and sees that nothing below `watched` has changed.
async fn refused(cli: Cli, watched: &Path, kind: ErrorKind, text: &str) {
    let before = listing(watched);
    cli.run().await.assert_failed(kind, text);
    assert_eq!(listing(watched), before, "the refused restore wrote something");
}

/// A program that says what `mysqld --version` and `mysqld --verbose --help` say.
fn fake_mysqld(folder: &Path, name: &str, version: &str, variables: &str) -> PathBuf {
    let path = folder.join(name);
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*) echo '{name}  Ver {version} for Linux on x86_64 (fake)';; \
         *) printf '%b' '{variables}';; esac\n"
    );
    program(&path, &text);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_take_the_backup_is_left_as_it_is() {
    let server = small(Server::builder()).await;
    let folder = scratch();
    let key = key_file(folder.path(), "key", 1);
    let wrong = key_file(folder.path(), "wrong", 3);
    let stored = take(&server, &["--encryption-key-file", &key]).await;
    let place = scratch();
    let datadir = place.path().join("data");
    let restore = |to: &Path| Cli::restore(&stored.url(), &stored.id, to).args(["--encryption-key-file", &key]);

    std::fs::create_dir(&datadir).unwrap();
    std::fs::write(datadir.join("precious"), "x").unwrap();
    refused(restore(&datadir), place.path(), ErrorKind::TargetNotEmpty, "not empty").await;
    let forced = restore(&datadir).arg("--overwrite-incomplete");
    refused(forced, place.path(), ErrorKind::TargetNotEmpty, "not empty").await;
    std::fs::remove_dir_all(&datadir).unwrap();

    // A running server; with a marker that somebody put there, too.
    let running = small(Server::builder()).await;
    let onto = || restore(running.datadir());
    onto().run().await.assert_failed(ErrorKind::TargetInUse, "running server");
    std::fs::write(running.datadir().join(MARKER), "{}").unwrap();
    onto().arg("--overwrite-incomplete").run().await.assert_failed(ErrorKind::TargetInUse, "running server");
    assert_eq!(running.row::<(u64,)>("SELECT COUNT(*) FROM d.a").await, (2,));
    drop(running);

    // A file system without a byte of room that everybody has.
    let full = Path::new("/sys/stillframe-has-no-room-here");
    restore(full).run().await.assert_failed(ErrorKind::TargetTooSmall, "bytes free");

    let good = "innodb-page-size 16384\\nlower-case-table-names 0\\n";
    for (name, version, variables, text) in [
        ("old", "9.7.3", good, "older"),
        ("pages", "9.9.9", "innodb-page-size 4096\\nlower-case-table-names 0\\n", "innodb_page_size 4096"),
        ("names", "9.9.9", "innodb-page-size 16384\\nlower-case-table-names 1\\n", "lower_case_table_names 1"),
        ("other", "nothing", good, "no MySQL server"),
    ] {
        let fake = fake_mysqld(folder.path(), name, version, variables);
        let cli = restore(&datadir).arg("--mysqld").arg(fake);
        refused(cli, place.path(), ErrorKind::TargetMismatch, text).await;
    }

    let cli = Cli::restore(&stored.url(), &stored.id, &datadir).args(["--encryption-key-file", &wrong]);
    refused(cli, place.path(), ErrorKind::WrongKey, "given").await;
    let cli = Cli::restore(&stored.url(), &stored.id, &datadir);
    refused(cli, place.path(), ErrorKind::WrongKey, "given none").await;
    let cli = Cli::restore(&stored.url(), "no-such-backup", &datadir);
    refused(cli, place.path(), ErrorKind::NotFound, "no-such-backup").await;

    let newer = stored.copy();
    let text = std::fs::read_to_string(newer.manifest()).unwrap();
    assert!(text.contains("\"format\": 1,"), "{text}");
    std::fs::write(newer.manifest(), text.replacen("\"format\": 1,", "\"format\": 99,", 1)).unwrap();
    let cli = Cli::restore(&newer.url(), &newer.id, &datadir).args(["--encryption-key-file", &key]);
    refused(cli, place.path(), ErrorKind::UnsupportedFormat, "99").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_data_comes_back_only_where_its_keyring_is() {
    let server = small(Server::builder().keyring().option("innodb_undo_log_encrypt", "ON")).await;
    server
        .sql(
            "CREATE TABLE d.secret (id INT PRIMARY KEY, note TEXT) ENCRYPTION='Y';
             INSERT INTO d.secret VALUES (1, 'told to few')",
        )
        .await;
    let (folder, store) = round::folder_store();
    let outcome = round::backup(&server, &store).run().await;
    outcome.assert_failed(ErrorKind::KeyMissing, "encrypted");
    assert!(!outcome.stderr.contains("  lock"), "refused before a lock is taken: {outcome}");
    assert!(outcome.stderr.contains("--keyring-file"), "{outcome}");
    round::assert_nothing_left(&server).await;
    let keyring = server.keyring_file().unwrap();
    let other = folder.path().join("other-keyring");
    std::fs::write(&other, r#"{"version":"1.0","elements":[]}"#).unwrap();
    let outcome = round::backup(&server, &store).arg("--keyring-file").arg(&other).run().await;
    outcome.assert_failed(ErrorKind::KeyMissing, "INNODBKey");

    let report = round::backup(&server, &store).args(["--encrypted-pages", "copy-unverified"]).json().await;
    let warned = |value: &Value| value["warnings"].to_string().contains("without looking inside");
    assert!(warned(&report), "{report}");
    let stored = Stored::new(folder, &report);
    let shown = Cli::new("show").args(["--store", &store, &stored.id]).json().await;
    assert!(shown["pages"]["unverified"].as_u64().unwrap() > 0 && warned(&shown), "{shown}");
    let verified = Cli::new("verify").args(["--store", &store, &stored.id]).json().await;
    assert!(verified["pages"]["unverified"].as_u64().unwrap() > 0, "{verified}");
    let said = Cli::new("verify").args(["--store", &store, &stored.id]).run().await;
    assert!(said.stdout.contains("good as far as can be seen"), "{said}");

    let place = scratch();
    let datadir = place.path().join("data");
    let restore = || Cli::restore(&store, &stored.id, &datadir);
    refused(restore(), place.path(), ErrorKind::KeyMissing, "INNODBKey").await;
    refused(restore().arg("--keyring-file").arg(&other), place.path(), ErrorKind::KeyMissing, "INNODBKey").await;
    restore().arg("--keyring-file").arg(&keyring).arg("--mysqld").arg(server.mysqld()).run().await.assert_success();
    let copy = round::stock(&server).on_datadir(&datadir).start().await;
    assert_eq!(copy.row::<(String,)>("SELECT note FROM d.secret").await.0, "told to few");
    copy.error_log().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_never_starts_and_can_be_done_again() {
    let server = small(Server::builder()).await;
    let stored = take(&server, &["--compression", "none"]).await;
    let place = scratch();
    let restore =
        |to: &Path, recovery: &str| Cli::restore(&stored.url(), &stored.id, to).args(["--recovery", recovery]);
    let began = Instant::now();
    let mut process = restore(&place.path().join("whole"), "native").spawn();
    process.wait_until_said("  restore").await;
    let before = began.elapsed();
    process.wait().await.assert_success();
    let writing = u64::try_from((began.elapsed().saturating_sub(before)).as_millis()).unwrap();
    let mut random = Random::new(u64::from(std::process::id()));
    let mut interrupted = 0;
    let moments = [
        ("check target", 0),
        ("restore", 0),
        ("restore", 10),
        ("restore", 50),
        ("restore", 100),
        ("redo", 0),
        ("sync", 0),
        ("sync", 50),
    ];
    // Some kills come before the first byte or after the last: again, until enough of them met a restore at work.
    for (number, (step, share)) in moments.into_iter().cycle().enumerate() {
        if number >= moments.len() && interrupted >= 4 {
            break;
        }
        assert!(number < 5 * moments.len(), "{interrupted} kills met a restore at work of {writing} ms");
        let (recovery, name) =
            if number % 2 == 0 { (round::Recovery::Server, "server") } else { (round::Recovery::Native, "native") };
        let datadir = place.path().join("killed");
        let mut process = restore(&datadir, name).spawn();
        process.wait_until_said(&format!("  {step}")).await;
        tokio::time::sleep(Duration::from_millis(random.below(writing * share / 100 + 1))).await;
        let signal = if number % 4 < 2 { Signal::KILL } else { Signal::TERM };
        process.signal(signal);
        let outcome = process.wait().await;
        if signal == Signal::TERM && outcome.code() != Some(0) {
            outcome.assert_failed(ErrorKind::Cancelled, "");
        }
        // The marker goes last: without it all is there, though the process was killed before it could say so.
        let whole = datadir.join("#innodb_redo").exists() && !datadir.join(MARKER).exists();
        let done = outcome.code() == Some(0) || (outcome.stderr.contains("  sync") && whole);
        if listing(&datadir).is_empty() {
            // Before the first byte.
            std::fs::remove_dir(&datadir).ok();
            continue;
        }
        if !done {
            interrupted += 1;
            // It is whole, but for the marker that has not gone yet, only behind the last sync.
            let synced = outcome.stderr.contains("  sync");
            assert!(synced || !datadir.join("#innodb_redo").exists(), "a redo log before the sync: {outcome}");
            assert_is_no_database(&server, &datadir).await;
            restore(&datadir, name).run().await.assert_failed(ErrorKind::TargetNotEmpty, "--overwrite-incomplete");
            let again = Cli::restore(&stored.url(), &stored.id, &datadir).arg("--overwrite-incomplete");
            recovery.assert_done(&recovery.of(again, &server).json().await);
        }
        let copy = round::stock(&server).on_datadir(&datadir).start().await;
        assert_eq!(copy.row::<(u64,)>("SELECT COUNT(*) FROM d.a").await, (2,));
        copy.error_log().assert_clean();
        drop(copy);
        std::fs::remove_dir_all(&datadir).unwrap();
    }
}

/// Neither starts a server on it, nor makes one a new database of it.
async fn assert_is_no_database(source: &Server, datadir: &Path) {
    let complete = datadir.join("#innodb_redo").exists();
    let marked = datadir.join(MARKER).exists();
    assert!(marked, "no marker: {:?}", listing(datadir));
    let mut copy = round::stock(source).on_datadir(datadir).create();
    if !complete {
        copy.try_start().await.expect_err("a server started on half a database");
    }
    let initialize = Command::new(copy.mysqld()).args(copy.arguments()).arg("--initialize-insecure").output().unwrap();
    assert!(!initialize.status.success(), "half a database was initialised: {initialize:?}");
    assert!(datadir.join(MARKER).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_this_user_may_not_write_is_named() {
    let server = small(Server::builder()).await;
    let stored = take(&server, &[]).await;
    let place = scratch();
    let closed = place.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let cli = Cli::restore(&stored.url(), &stored.id, closed.join("data")).without_capabilities();
    refused(cli, place.path(), ErrorKind::LocalIo, "closed").await;
}
