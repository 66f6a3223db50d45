//! Storages that do not work, and that work once what was wrong is mended.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{backup, restore, storage, with};
use crate::harness::space::{condition_of, message_of, text};
use crate::harness::{Bucket, Mysql, Space, say, scenario};

const SOON: Duration = Duration::from_mins(3);

/// Waits until a storage is not ready, and returns why.
async fn why_not(space: &Space, name: &str) -> Result<String> {
    let object = space.condition("BackupStorage", name, "Ready", "False", SOON).await?;
    Ok(condition_of(&object, "Ready")
        .map(|condition| format!("{}: {}", text(condition, "/reason"), text(condition, "/message")))
        .unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_says_what_is_wrong_with_it() -> Result<()> {
    scenario("wrong-storages", |space| async move {
        let bucket = Bucket::start(&space, "s3").await?;
        // What is wrong, and a word that a person needs to see to mend it.
        let cases: [(&str, Value, &str); 4] = [
            ("wrong-endpoint", json!({ "spec": { "s3": { "endpoint": "http://nobody.e2e-wrong-storages.svc:7070" } } }), "nobody"),
            ("wrong-bucket", json!({ "spec": { "s3": { "bucket": "no-such-bucket" } } }), "no-such-bucket"),
            ("plain-as-tls", json!({ "spec": { "s3": { "endpoint": bucket.endpoint().replace("http:", "https:") } } }), "svc:7070"),
            ("no-secret", json!({ "spec": { "s3": { "credentials": { "accessKeyIdRef": { "name": "later" }, "secretAccessKeyRef": { "name": "later" } } } } }), "later"),
        ];
        for (name, wrong, _) in &cases {
            space.apply_object(&with(storage(name, &bucket, name), wrong)).await?;
        }
        for (name, _, word) in &cases {
            let why = why_not(&space, name).await?;
            say(format!("{name}: {why}"));
            ensure!(why.contains(word), "{name} does not say {word:?}: {why}");
            ensure!(!why.contains("e2e-secret-key"), "{name} tells the secret");
        }

        // A secret that comes later heals it, without anybody touching the storage.
        let secret = space.get("Secret", &bucket.secret()).await?;
        space.apply_object(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "later" }, "data": secret.get("data") })).await?;
        space.condition("BackupStorage", "no-secret", "Ready", "True", SOON).await?;
        // So does a mended spec.
        space.apply_object(&storage("wrong-endpoint", &bucket, "wrong-endpoint")).await?;
        space.condition("BackupStorage", "wrong-endpoint", "Ready", "True", SOON).await?;

        // What changes behind its back is seen by the next probe.
        let often = json!({ "spec": { "probePeriodSeconds": 30 } });
        space.apply_object(&with(storage("watched", &bucket, "watched"), &often)).await?;
        space.condition("BackupStorage", "watched", "Ready", "True", SOON).await?;
        bucket.stop().await?;
        space.condition("BackupStorage", "watched", "Ready", "False", SOON).await?;
        bucket.go_on().await?;
        space.condition("BackupStorage", "watched", "Ready", "True", SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_certificate_of_its_own() -> Result<()> {
    scenario("wrong-ca", |space| async move {
        let (bucket, _other) = tokio::try_join!(Bucket::start_tls(&space, "s3"), Bucket::start_tls(&space, "other"))?;
        let trusting = |name: &str, secret: &str| {
            with(
                storage(name, &bucket, name),
                &json!({ "spec": { "s3": { "caSecretRef": { "name": secret, "key": "ca.crt" } } } }),
            )
        };
        space.apply_object(&trusting("right-ca", "s3-tls")).await?;
        space.apply_object(&trusting("wrong-ca", "other-tls")).await?;
        space.apply_object(&storage("no-ca", &bucket, "no-ca")).await?;
        space.condition("BackupStorage", "right-ca", "Ready", "True", SOON).await?;
        for name in ["wrong-ca", "no-ca"] {
            let why = why_not(&space, name).await?;
            ensure!(why.contains("certificate"), "{name} does not speak of the certificate: {why}");
        }

        // Runners trust it, too: there and back.
        let (mysql, load) = loaded_server(&space, "mysql").await?;
        load.stop().await?;
        space.apply_object(&backup("first", "right-ca", &mysql)).await?;
        space.succeeded("MySQLBackup", "first").await?;
        let target = json!({ "newClaim": { "name": "data-restored-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore("back", "first", &target)).await?;
        space.succeeded("MySQLRestore", "back").await?;
        Mysql::start(&space, "restored", 1, 200).await?.has_the_rows_of(0, &mysql, 0).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_waits_for_what_is_not_there_yet() -> Result<()> {
    scenario("waits", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.delete("Secret", "mysql-backup-user").await?;
        space.apply_object(&backup("patient", "bucket", &mysql)).await?;
        space.reason("MySQLBackup", "patient", "Succeeded", "WaitingForReference", SOON).await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let waiting = space.reason("MySQLBackup", "patient", "Succeeded", "WaitingForReference", SOON).await?;
        let message = message_of(&waiting, "Succeeded");
        ensure!(message.contains("mysql-backup-user"), "it does not say what it waits for: {message}");
        space
            .apply_object(&json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mysql-backup-user" },
                "stringData": { "username": crate::harness::mysql::BACKUP_USER, "password": crate::harness::mysql::BACKUP_PASSWORD },
            }))
            .await?;
        space.succeeded("MySQLBackup", "patient").await?;
        Ok(())
    })
    .await
}
