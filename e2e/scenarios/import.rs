//! The bucket is the truth: a second namespace that knows nothing but the bucket lists its backups and restores one.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, restore, storage, with};
use crate::harness::space::{condition_of, text};
use crate::harness::{Bucket, Mysql, Space, say, scenario, until};

/// A storage that shows what is in it, and looks often.
fn importing(bucket: &Bucket, mode: &str) -> Value {
    let spec = json!({ "spec": { "importExisting": true, "accessMode": mode, "probePeriodSeconds": 30 } });
    with(storage("bucket", bucket, "shop"), &spec)
}

/// The object that import made of a backup.
async fn imported(space: &Space, id: &str) -> Result<Value> {
    let name = until("the imported backup", MINUTES, || async {
        let all = space.list("MySQLBackup", "stillframe.dev/imported-from=bucket").await?;
        let found = all.iter().find(|backup| text(backup, "/spec/existing/backupId") == id);
        Ok(found.map(|backup| text(backup, "/metadata/name").to_owned()).ok_or_else(|| "not listed".to_owned()))
    });
    space.reason("MySQLBackup", &name.await?, "Succeeded", "Imported", MINUTES).await
}

fn same(found: &Value, taken: &Value) -> Result<()> {
    for field in [
        "/status/gtidExecuted",
        "/status/lsn/checkpoint",
        "/status/lsn/end",
        "/status/binlog/file",
        "/status/source/serverUUID",
        "/status/completionTime",
        "/status/destination",
        "/status/origin/namespace",
    ] {
        ensure!(text(found, field) == text(taken, field), "{field} differs: {found}");
        ensure!(!text(found, field).is_empty(), "{field} is missing: {found}");
    }
    // When a try was decided on is the operator's word, when the copy began is the manifest's.
    ensure!(!text(found, "/status/startTime").is_empty(), "when it began is missing: {found}");
    ensure!(found.pointer("/status/sizeBytes") == taken.pointer("/status/sizeBytes"), "{found}");
    ensure!(
        condition_of(found, "Restorable").is_some_and(|said| text(said, "/status") == "True"),
        "it cannot be restored: {found}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_tells_another_namespace_what_it_has() -> Result<()> {
    scenario("shared", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let until = "2099-01-01T00:00:00Z";
        let first = with(
            backup("first", "bucket", &mysql),
            &json!({ "spec": { "pinned": true, "expirationTime": until, "deletionPolicy": "Delete" } }),
        );
        space.apply_object(&first).await?;
        space.succeeded("MySQLBackup", "first").await?;
        let deleted = json!({ "spec": { "deletionPolicy": "Delete" } });
        space.apply_object(&with(backup("third", "bucket", &mysql), &deleted)).await?;
        let third = space.succeeded("MySQLBackup", "third").await?;
        space.apply_object(&backup("second", "bucket", &mysql)).await?;
        let second = space.succeeded("MySQLBackup", "second").await?;
        let told = |backup: &Value| text(backup, "/status/recorded/expirationTime") == until;
        let taken = space.wait("MySQLBackup", "first", "is told to the storage", MINUTES, told).await?;

        scenario("shared-other", move |other| async move {
            bucket.share_credentials(&other).await?;
            other.apply_object(&importing(&bucket, "ReadWrite")).await?;
            other.condition("BackupStorage", "bucket", "Ready", "True", Duration::from_secs(90)).await?;
            let found = imported(&other, text(&taken, "/status/backupId")).await?;
            same(&found, &taken)?;
            ensure!(found.pointer("/spec/pinned") == Some(&json!(true)), "the pin was lost: {found}");
            ensure!(text(&found, "/spec/expirationTime") == until, "the expiry was lost: {found}");
            ensure!(found.pointer("/metadata/ownerReferences").is_none(), "{found}");
            let plain = imported(&other, text(&second, "/status/backupId")).await?;
            ensure!(plain.pointer("/spec/pinned") == Some(&json!(false)), "{plain}");
            say("shown elsewhere, pin and expiry included");

            // A pin that is set there holds here, too, against an expiry that is set here.
            let name = text(&plain, "/metadata/name").to_owned();
            other.patch("MySQLBackup", &name, &json!({ "spec": { "pinned": true } })).await?;
            other.reason("MySQLBackup", &name, "Recorded", "Recorded", MINUTES).await?;
            let past = json!({ "spec": { "expirationTime": "2020-01-01T00:00:00Z" } });
            space.patch("MySQLBackup", "second", &past).await?;
            let kept = space.reason("MySQLBackup", "second", "Expired", "Pinned", MINUTES).await?;
            ensure!(kept.pointer("/spec/pinned") == Some(&json!(true)), "the object does not follow: {kept}");
            // Without the pin the expiry, of which the other side learns now, is due: there, and so here.
            other.patch("MySQLBackup", &name, &json!({ "spec": { "pinned": false } })).await?;
            other.gone("MySQLBackup", &name, MINUTES).await?;
            let data = |id: &str, paths: Vec<String>| {
                paths.into_iter().filter(|path| path.contains(id) && !path.ends_with("/manifest.json")).count()
            };
            let id = text(&second, "/status/backupId").to_owned();
            ensure!(data(&id, bucket.objects("shop").await?) == 0, "the data of {id} stays");
            space.apply_object(&importing(&bucket, "ReadWrite")).await?;
            space.reason("MySQLBackup", "second", "Restorable", "GoneFromStorage", MINUTES).await?;
            say("pinned here, expired there: the bucket told both");

            // What is deleted there goes here.
            let third = imported(&other, text(&third, "/status/backupId")).await?;
            space.delete("MySQLBackup", "third").await?;
            space.gone("MySQLBackup", "third", MINUTES).await?;
            other.gone("MySQLBackup", text(&third, "/metadata/name"), MINUTES).await?;
            say("deleted in the one, gone in the other");

            // What merely disappears is told, and stays.
            bucket.remove(&format!("shop/backups/{}/manifest.json", text(&taken, "/status/backupId"))).await?;
            for (space, name) in [(&space, "first"), (&other, text(&found, "/metadata/name"))] {
                space.reason("MySQLBackup", name, "Restorable", "GoneFromStorage", MINUTES).await?;
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_enough() -> Result<()> {
    scenario("import", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&backup("first", "bucket", &mysql)).await?;
        let taken = space.succeeded("MySQLBackup", "first").await?;
        load.stop().await?;

        scenario("import-other", move |other| async move {
            // The other cluster, as far as objects go: the same bucket, credentials of its own, read-only.
            bucket.share_credentials(&other).await?;
            other.apply_object(&importing(&bucket, "ReadOnly")).await?;
            other.condition("BackupStorage", "bucket", "Ready", "True", Duration::from_secs(90)).await?;
            let found = imported(&other, text(&taken, "/status/backupId")).await?;
            same(&found, &taken)?;
            let name = text(&found, "/metadata/name");
            say(format!("{name} was found in the bucket"));

            let target = json!({ "newClaim": { "name": "data-restored-0", "template": { "storage": "2Gi" } } });
            other.apply_object(&restore("back", name, &target)).await?;
            other.succeeded("MySQLRestore", "back").await?;
            let restored = Mysql::start(&other, "restored", 1, 200).await?;
            check_invariants(&restored, 0).await?;
            restored.follow(0, &mysql, 0).await?;
            restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
            restored.has_the_rows_of(0, &mysql, 0).await
        })
        .await
    })
    .await
}
