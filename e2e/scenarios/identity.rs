//! A storage that only a ServiceAccount opens. What a cloud's webhook does to pods of such an account, an admission policy
//! does here: it gives them credentials, and nobody else has any. Everything is done by pods of that account.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup, storage, with};
use crate::harness::space::text;
use crate::harness::{Bucket, Space, fill, say, scenario};

const ACCOUNT: &str = "cloud-identity";

/// Credentials for the pods of one account, made as a cloud's webhook does: when a pod is admitted.
async fn give_identity(space: &Space, bucket: &Bucket) -> Result<()> {
    let secret = bucket.secret();
    let values = [("NAMESPACE", space.name.as_str()), ("ACCOUNT", ACCOUNT), ("SECRET", &secret)];
    space.apply(&fill(include_str!("../fixtures/identity.yaml"), &values)).await?;
    Ok(())
}

async fn take_identity_back(space: &Space) -> Result<()> {
    space.delete("MutatingAdmissionPolicyBinding", &space.name).await?;
    space.delete("MutatingAdmissionPolicy", &space.name).await
}

/// The accounts of our pods that are there at the moment, with what they do.
async fn accounts(space: &Space) -> Result<BTreeSet<(String, String)>> {
    let pods = space.list("Pod", "app.kubernetes.io/name=stillframe").await?;
    let work = |pod: &Value| text(pod, "/metadata/labels/app.kubernetes.io~1component").to_owned();
    Ok(pods.iter().map(|pod| (work(pod), text(pod, "/spec/serviceAccountName").to_owned())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_only_an_account_opens() -> Result<()> {
    scenario("identity", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        give_identity(&space, &bucket).await?;
        let nobodys = with(
            storage("bucket", &bucket, "shop"),
            &json!({ "spec": { "s3": { "credentials": null }, "serviceAccountName": ACCOUNT, "probePeriodSeconds": 30 } }),
        );
        space.apply_object(&nobodys).await?;
        let mut seen = BTreeSet::new();
        let goes = json!({ "spec": { "deletionPolicy": "Delete" } });
        space.apply_object(&with(backup("first", "bucket", &mysql), &goes)).await?;
        let taken = async { space.succeeded("MySQLBackup", "first").await };
        let watched = async {
            loop {
                seen.append(&mut accounts(&space).await?);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let taken = tokio::select! {
            taken = taken => taken?,
            stopped = watched => return stopped,
        };
        space.condition("BackupStorage", "bucket", "Ready", "True", MINUTES).await?;
        let of = |work: &str| (work.to_owned(), ACCOUNT.to_owned());
        ensure!(seen.contains(&of("runner")) && seen.contains(&of("store")), "other accounts were at work: {seen:?}");
        let id = text(&taken, "/status/backupId");
        ensure!(!bucket.objects("shop").await?.is_empty(), "the bucket is empty");
        let counts = |storage: &Value| storage.pointer("/status/backupCount").and_then(Value::as_i64) == Some(1);
        space.wait("BackupStorage", "bucket", "lists the backup", MINUTES, counts).await?;
        say("probed, taken, confirmed and listed by pods of the account");

        let _ = mysql.brought_back("first").await?;
        space.delete("MySQLBackup", "first").await?;
        space.gone("MySQLBackup", "first", MINUTES).await?;
        let left: Vec<String> = bucket.objects("shop").await?.into_iter().filter(|path| path.contains(id)).collect();
        ensure!(left.iter().all(|path| path.ends_with("/manifest.json")), "its data stays: {left:?}");
        say("restored with the same rows, and deleted, by pods of the account");
        take_identity_back(&space).await
    })
    .await
}
