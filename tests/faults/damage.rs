//! Stored backups that were tampered with, or are looked at without the right key. Both `verify` and `restore` must
//! name the object, and no restore may leave a directory that a server starts on.

use std::path::{Path, PathBuf};

use stillframe::ops::error::ErrorKind;

use crate::help::{Stored, files, flip, key_file, listed, small};
use crate::support::cli::{Cli, Outcome};
use crate::support::round;
use crate::support::server::{Server, scratch};

/// What is done to a backup, and the object that must be named.
struct Damage {
    what: String,
    object: String,
    act: Box<dyn Fn(&Stored)>,
}

impl Damage {
    fn new(what: &str, object: &str, act: impl Fn(&Path) + 'static) -> Self {
        let name = object.to_owned();
        let act = move |stored: &Stored| act(&stored.objects()[&name]);
        Self { what: format!("{object} {what}"), object: object.to_owned(), act: Box::new(act) }
    }
}

fn cut_short(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - (length / 2).min(100)).unwrap();
}

fn swap(one: &Path, other: &Path) {
    let (first, second) = (std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
    std::fs::write(one, second).unwrap();
    std::fs::write(other, first).unwrap();
}

/// Every object altered in one bit, and packs and redo in every other way.
fn damages(stored: &Stored) -> Vec<Damage> {
    let objects: Vec<String> = stored.objects().into_keys().collect();
    let packs: Vec<&String> = objects.iter().filter(|name| name.starts_with("pack")).collect();
    assert!(packs.len() >= 2, "{objects:?}");
    assert!(objects.len() > packs.len() + 2, "tables and redo are objects, too: {objects:?}");
    let mut damages: Vec<Damage> = objects.iter().map(|name| Damage::new("with a flipped bit", name, flip)).collect();
    damages.push(Damage::new("cut short", packs[0], cut_short));
    let missing = |name: &String| Damage::new("missing", name, |path| std::fs::remove_file(path).unwrap());
    damages.push(missing(packs[1]));
    // Redo without which the pages are of no point in time.
    let redo: Vec<&String> = objects.iter().filter(|name| name.starts_with("redo")).collect();
    assert!(!redo.is_empty(), "{objects:?}");
    damages.extend(redo.iter().map(|name| missing(name)));
    damages.extend(redo.iter().map(|name| Damage::new("cut short", name, cut_short)));
    let other = packs[1].clone();
    let mut swapped = Damage::new("swapped with another", packs[0], |_| ());
    let name = swapped.object.clone();
    swapped.act = Box::new(move |stored| swap(&stored.objects()[&name], &stored.objects()[&other]));
    // Either of them is a right answer.
    "pack-".clone_into(&mut swapped.object);
    damages.push(swapped);
    for what in ["\"end\":", "\"gtidExecuted\":", "\"checkpoint\":"] {
        damages.push(Damage {
            what: format!("manifest with another digit in {what}"),
            object: "manifest.json".to_owned(),
            act: Box::new(move |stored| change_digit_after(&stored.manifest(), what)),
        });
    }
    damages
}

/// Changes the last digit of the text that follows `field`.
fn change_digit_after(manifest: &Path, field: &str) {
    let mut bytes = std::fs::read(manifest).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let start = text.find(field).unwrap() + field.len();
    let end = start + text[start..].find('\n').unwrap();
    let at = start + text[start..end].rfind(|c: char| c.is_ascii_digit()).unwrap();
    bytes[at] = if bytes[at] == b'9' { b'8' } else { bytes[at] + 1 };
    std::fs::write(manifest, bytes).unwrap();
}

/// Whether no server could start on the directory.
fn is_no_database(datadir: &Path) -> bool {
    let names = files(datadir);
    names.is_empty() || !names.contains_key("#innodb_redo") && names.contains_key("stillframe-restore-incomplete")
}

fn verify(stored: &Stored, keys: &[String]) -> Cli {
    with_keys(Cli::new("verify").args(["--store", &stored.url(), &stored.id]), keys)
}

fn with_keys(cli: Cli, keys: &[String]) -> Cli {
    keys.iter().fold(cli, |cli, key| cli.args(["--encryption-key-file", key]))
}

fn restore(stored: &Stored, keys: &[String], datadir: &Path) -> Cli {
    with_keys(Cli::restore(&stored.url(), &stored.id, datadir), keys)
}

/// The object is named as a file would be: its name and nothing that only begins like it.
fn names_object(outcome: &Outcome, object: &str) -> bool {
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    said.contains(object.trim_end_matches(".json"))
}

async fn every_damage_is_named(whole: &Stored, keys: &[String]) {
    verify(whole, keys).run().await.assert_success();
    let kind = i32::from(ErrorKind::DamagedBackup.exit_code());
    let mut missed = Vec::new();
    for damage in damages(whole) {
        let stored = whole.copy();
        (damage.act)(&stored);
        let target = scratch();
        let datadir = target.path().join("data");
        let verified = verify(&stored, keys).run().await;
        // Who leaves the redo to a server has to find what is wrong with it, too.
        let other = restore(&stored, keys, &target.path().join("other")).args(["--recovery", "server"]).run().await;
        let restored = restore(&stored, keys, &datadir).run().await;
        // Who restores everything reads whole packs: the way to single pages is not needed for that.
        let unneeded = damage.object.starts_with("index") && restored.code() == Some(0);
        for outcome in if unneeded { vec![verified] } else { vec![verified, restored, other] } {
            if outcome.code() != Some(kind) || !names_object(&outcome, &damage.object) {
                missed.push(format!("{}: {outcome}", damage.what));
            }
        }
        for left in [datadir, target.path().join("other")] {
            if !unneeded && !is_no_database(&left) {
                missed.push(format!("{}: left {:?}", damage.what, files(&left).into_keys()));
            }
        }
    }
    assert!(missed.is_empty(), "not noticed, or not named: {}", missed.join("\n\n"));
}

/// A server whose names and rows can be searched for.
async fn source() -> Server {
    let server = small(Server::builder()).await;
    server
        .sql(
            "CREATE TABLE d.payroll_of_everybody (id INT PRIMARY KEY, note TEXT);
             INSERT INTO d.payroll_of_everybody VALUES (1, REPEAT('nobody may read this; ', 20));
             CREATE TABLE d.myisam_of_everybody (note TEXT) ENGINE=MyISAM;
             INSERT INTO d.myisam_of_everybody VALUES (REPEAT('nobody may read this; ', 20))",
        )
        .await;
    server
}

async fn take(server: &Server, args: &[&str]) -> Stored {
    let (folder, store) = round::folder_store();
    let report = round::backup(server, &store).args(["--parallel", "2", "--compression", "none"]).args(args);
    let report = report.json().await;
    Stored::new(folder, &report)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_of_a_plain_backup_is_named() {
    let server = source().await;
    let stored = take(&server, &[]).await;
    drop(server);
    // It is this that the next test does not find.
    assert!(
        contains(&stored.repository(), "payroll_of_everybody") && contains(&stored.repository(), "nobody may read")
    );
    every_damage_is_named(&stored, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_of_a_sealed_backup_is_named_and_it_opens_with_its_keys_only() {
    let server = source().await;
    let folder = scratch();
    let [first, second, wrong] =
        [("first", 1), ("second", 2), ("wrong", 3)].map(|(name, seed)| key_file(folder.path(), name, seed));
    let stored = take(&server, &["--encryption-key-file", &first, "--encryption-key-file", &second]).await;
    drop(server);

    for text in ["payroll_of_everybody", "myisam_of_everybody", "nobody may read"] {
        assert!(!contains(&stored.repository(), text), "{text} can be read in the store");
    }
    let ids: Vec<String> = stored.keys().into_keys().map(|name| name.trim_end_matches(".json").to_owned()).collect();
    assert_eq!(ids.len(), 2);
    let target = scratch();
    let datadir = target.path().join("data");
    for keys in [vec![], vec![wrong.clone()]] {
        for run in [verify(&stored, &keys), restore(&stored, &keys, &datadir)] {
            let outcome = run.run().await;
            outcome.assert_failed(ErrorKind::WrongKey, &ids[0]);
            assert!(outcome.stderr.contains(&ids[1]), "wanted: {outcome}");
            let given = outcome.stderr.split("given ").nth(1).unwrap_or_default();
            assert_eq!(given.starts_with("none"), keys.is_empty(), "{outcome}");
        }
        assert!(!datadir.exists());
    }

    // One recipient's wrapped key is lost: that is damage, but no reason to refuse the other's key.
    let maimed = stored.copy();
    let (lost, path) = maimed.keys().into_iter().next().unwrap();
    std::fs::remove_file(path).unwrap();
    let mut opened = 0;
    for (number, key) in [&first, &second].into_iter().enumerate() {
        let keys = std::slice::from_ref(key);
        verify(&maimed, keys).run().await.assert_failed(ErrorKind::DamagedBackup, "");
        let datadir = target.path().join(format!("opened-{number}"));
        let outcome = restore(&maimed, keys, &datadir).run().await;
        if outcome.code() == Some(0) {
            opened += 1;
            let said = verify(&maimed, keys).run().await;
            assert!(said.stdout.contains(&lost), "{lost} is not named: {said}");
        } else {
            outcome.assert_failed(ErrorKind::DamagedBackup, &lost);
            assert!(!datadir.exists());
        }
    }
    assert_eq!(opened, 1, "the other key opens it");

    every_damage_is_named(&stored, &[second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_repository_and_two_backups_a_server() {
    let (one, other) = tokio::join!(small(Server::builder()), small(Server::builder()));
    // With all that a backup may lock.
    one.sql("CREATE TABLE d.m (id INT) ENGINE=MyISAM;\nINSERT INTO d.m VALUES (1)").await;
    let (_folder, store) = round::folder_store();
    let backup = |server| round::backup(server, &store).args(["--throttle", "20M"]).json();
    let (first, second, third) = tokio::join!(backup(&one), backup(&other), backup(&one));
    let ids = [&first, &second, &third].map(|report| report["id"].as_str().unwrap());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    let list = Cli::new("list").args(["--store", &store]).json().await;
    let uuids: Vec<&str> =
        list.as_array().unwrap().iter().map(|entry| entry["server"]["uuid"].as_str().unwrap()).collect();
    for (server, report) in [(&one, &first), (&other, &second)] {
        let uuid = server.variable("server_uuid").await;
        assert_eq!(report["server"]["uuid"], uuid.as_str());
        assert!(uuids.contains(&uuid.as_str()), "{list}");
    }
    assert!(listed(&store).await.iter().all(|(_, state)| state == "Complete"));
    for id in ids {
        Cli::new("verify").args(["--store", &store, id]).run().await.assert_success();
    }
    round::assert_nothing_left(&one).await;
    Cli::new("delete").args(["--store", &store, first["id"].as_str().unwrap()]).run().await.assert_success();
    Cli::new("verify").args(["--store", &store, second["id"].as_str().unwrap()]).run().await.assert_success();
}

/// Whether a text is in the name or the bytes of any file below a folder.
fn contains(folder: &Path, text: &str) -> bool {
    let all: Vec<PathBuf> = crate::help::listing(folder).into_keys().collect();
    all.iter().any(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        path.to_string_lossy().contains(text) || bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
