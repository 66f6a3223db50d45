//! Backups on a PersistentVolumeClaim, which the operator itself cannot reach: taken, listed, restored, pinned, imported,
//! kept by rules and removed, all by pods that have the volume.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup, backup_spec, gtids, with};
use crate::harness::space::{condition_of, message_of, text};
use crate::harness::{MYSQL_IMAGE, Space, fill, say, scenario, until};

const CLAIM: &str = "backups";

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": CLAIM },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "4Gi" } } },
    })
}

fn storage(change: &Value) -> Value {
    let object = json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "BackupStorage", "metadata": { "name": "volume" },
        "spec": { "persistentVolumeClaim": { "claimName": CLAIM, "path": "shop/nightly" }, "probePeriodSeconds": 30 },
    });
    with(object, &json!({ "spec": change }))
}

/// The files of a backup on the volume, besides what says that it was deleted.
async fn files(space: &Space, id: &str) -> Result<Vec<String>> {
    let script = "cd /data && find . -type f | sort";
    let values = [("NAME", "look"), ("IMAGE", MYSQL_IMAGE), ("CLAIM", CLAIM), ("SCRIPT", script)];
    // As a member of the group that such a volume belongs to: nobody else sees into it.
    let pod = fill(include_str!("../fixtures/look.yaml"), &values)
        .replace("runAsUser: 1000", "supplementalGroups: [65532], runAsUser: 1000");
    let run = space.run_pod(&pod, Duration::from_mins(3)).await?;
    ensure!(run.exit_code == 0, "the volume cannot be looked at: {}", run.log);
    Ok(run.log.lines().filter(|path| path.contains(id)).map(str::to_owned).collect())
}

/// Waits until no pod of ours is left that has ended or asks the storage.
async fn nothing_is_left(space: &Space) -> Result<()> {
    until("pods and authority to go", MINUTES, || async {
        let mut left = Vec::new();
        for kind in ["Pod", "ConfigMap"] {
            let found = space.list(kind, "app.kubernetes.io/name=stillframe").await?;
            left.extend(found.iter().map(|object| text(object, "/metadata/name").to_owned()));
        }
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_on_a_volume_are_as_good_as_in_a_bucket() -> Result<()> {
    scenario("volume-storage", |space| async move {
        // Named before it is there.
        space.apply_object(&storage(&json!({}))).await?;
        let (mysql, load) = loaded_server(&space, "mysql").await?;
        let said = space.condition("BackupStorage", "volume", "Ready", "False", MINUTES).await?;
        let message = message_of(&said, "Ready");
        ensure!(message.contains(CLAIM), "the missing claim is not named: {message}");
        space.apply_object(&claim()).await?;
        space.condition("BackupStorage", "volume", "Ready", "True", MINUTES).await?;
        say("the storage waited for its claim");

        space.apply_object(&backup("first", "volume", &mysql)).await?;
        let first = space.succeeded("MySQLBackup", "first").await?;
        let place = format!("pvc://{CLAIM}/shop/nightly");
        ensure!(text(&first, "/status/destination") == place, "{first}");
        load.stop().await?;
        let goes = json!({ "spec": { "deletionPolicy": "Delete" } });
        space.apply_object(&with(backup("second", "volume", &mysql), &goes)).await?;
        let second = space.succeeded("MySQLBackup", "second").await?;
        let counts = |storage: &Value| storage.pointer("/status/backupCount").and_then(Value::as_i64) == Some(2);
        space.wait("BackupStorage", "volume", "lists two backups", MINUTES, counts).await?;
        say("taken under load and at rest, and listed");

        let (back, done) = mysql.brought_back("second").await?;
        ensure!(back.gtid_executed(0).await? == gtids(&done)?, "other GTIDs than the status says");
        say("restored: the same rows");

        pins_and_imports(&space, text(&first, "/status/backupId")).await?;

        let id = text(&second, "/status/backupId");
        ensure!(files(&space, id).await?.len() > 3, "where are its files?");
        space.delete("MySQLBackup", "second").await?;
        space.gone("MySQLBackup", "second", MINUTES).await?;
        let left = files(&space, id).await?;
        ensure!(left.iter().all(|path| path.ends_with("/manifest.json")), "its data stays: {left:?}");
        say("deleted with its data");
        nothing_is_left(&space).await
    })
    .await
}

/// A pin is told to the volume, and an object that was deleted comes back from it, pinned.
async fn pins_and_imports(space: &Space, id: &str) -> Result<()> {
    space.patch("MySQLBackup", "first", &json!({ "spec": { "pinned": true } })).await?;
    space.condition("MySQLBackup", "first", "Recorded", "True", MINUTES).await?;
    space.delete("MySQLBackup", "first").await?;
    space.gone("MySQLBackup", "first", MINUTES).await?;
    space.apply_object(&storage(&json!({ "importExisting": true }))).await?;
    let name = until("the imported backup", MINUTES, || async {
        let all = space.list("MySQLBackup", "stillframe.dev/imported-from=volume").await?;
        let found = all.iter().find(|backup| text(backup, "/spec/existing/backupId") == id);
        Ok(found.map(|backup| text(backup, "/metadata/name").to_owned()).ok_or_else(|| "not listed".to_owned()))
    });
    let shown = space.reason("MySQLBackup", &name.await?, "Succeeded", "Imported", MINUTES).await?;
    ensure!(shown.pointer("/spec/pinned").and_then(Value::as_bool) == Some(true), "the pin is lost: {shown}");
    say("the volume keeps pins, and shows what it has");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_keeps_the_last_ones_on_a_volume() -> Result<()> {
    scenario("volume-schedule", |space| async move {
        space.apply_object(&claim()).await?;
        space.apply_object(&storage(&json!({}))).await?;
        let (mysql, load) = loaded_server(&space, "mysql").await?;
        load.stop().await?;
        space.condition("BackupStorage", "volume", "Ready", "True", MINUTES).await?;
        let often = json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "CronBackup", "metadata": { "name": "often" },
            "spec": {
                "schedule": "* * * * *", "immediate": true, "concurrencyPolicy": "Forbid",
                "retention": { "keepLast": 1 }, "backupTemplate": { "spec": backup_spec("volume", &mysql) },
            },
        });
        space.apply_object(&often).await?;
        let first = until("the first backup", MINUTES, || async {
            let all = space.list("MySQLBackup", "stillframe.dev/schedule=often").await?;
            Ok(all.first().map(|one| text(one, "/metadata/name").to_owned()).ok_or_else(|| "none".to_owned()))
        })
        .await?;
        let id = text(&space.succeeded("MySQLBackup", &first).await?, "/status/backupId").to_owned();
        space.gone("MySQLBackup", &first, MINUTES).await?;
        let left = files(&space, &id).await?;
        ensure!(left.iter().all(|path| path.ends_with("/manifest.json")), "its data stays: {left:?}");
        // No more of them, or the one that is looked at may be the next to go.
        space.patch("CronBackup", "often", &json!({ "spec": { "suspend": true } })).await?;
        let good = &until("the newest good one alone to be left", MINUTES, || async {
            let all = space.list("MySQLBackup", "stillframe.dev/schedule=often").await?;
            let is_good = |backup: &Value| {
                condition_of(backup, "Succeeded").is_some_and(|condition| text(condition, "/status") == "True")
            };
            Ok(match all.as_slice() {
                [one] if is_good(one) => Ok(one.clone()),
                all => Err(format!("{} are there", all.len())),
            })
        })
        .await?;
        ensure!(files(&space, text(good, "/status/backupId")).await?.len() > 3, "its files are gone");
        say("the older one went with its files, the newer one is there");

        // Nothing new can be made in a namespace that goes, so nobody can be asked to remove the files: it goes all the same.
        let name = text(good, "/metadata/name").to_owned();
        space.delete("CronBackup", "often").await?;
        space.patch("MySQLBackup", &name, &json!({ "spec": { "deletionPolicy": "Delete" } })).await?;
        let held = |backup: &Value| backup.pointer("/metadata/finalizers/0").is_some();
        space.wait("MySQLBackup", &name, "is held", MINUTES, held).await?;
        space.remove().await?;
        say("the namespace went, backups on a volume in it");
        Ok(())
    })
    .await
}
