//! Manifests that are applied again and again, with labels that change, by tools that prune; and edits that are refused.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{backup, restore, storage, with};
use crate::harness::space::text;
use crate::harness::{Bucket, Mysql, say, scenario};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_manifests_again_change_nothing() -> Result<()> {
    scenario("gitops", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        let tracked = |revision: &str| {
            json!({ "metadata": {
            "labels": { "argocd.argoproj.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "shop" },
            "annotations": { "argocd.argoproj.io/tracking-id": format!("shop:{revision}") },
        } })
        };
        let target = json!({ "newClaim": { "name": "data-restored-0", "template": { "storage": "2Gi" } } });
        let objects =
            [storage("bucket", &bucket, "shop"), backup("first", "bucket", &mysql), restore("back", "first", &target)];
        for object in &objects {
            space.apply_as("argocd-controller", &with(object.clone(), &tracked("1")).to_string()).await?;
        }
        let taken = space.succeeded("MySQLBackup", "first").await?;
        let restored = space.succeeded("MySQLRestore", "back").await?;
        let volume = space.get("PersistentVolumeClaim", "data-restored-0").await?;

        // What the operator made must not look like the tool's own.
        for kind in ["Pod", "ConfigMap", "PersistentVolumeClaim", "ServiceAccount"] {
            let tracked = space.list(kind, "argocd.argoproj.io/instance").await?;
            let names: Vec<&str> = tracked.iter().map(|child| text(child, "/metadata/name")).collect();
            ensure!(names.is_empty(), "of kind {kind}, {names:?} carry the tracking label: a tool would prune them");
        }

        for revision in ["2", "3"] {
            for object in &objects {
                space.apply_as("argocd-controller", &with(object.clone(), &tracked(revision)).to_string()).await?;
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        for (kind, name, before) in [("MySQLBackup", "first", &taken), ("MySQLRestore", "back", &restored)] {
            let after = space.get(kind, name).await?;
            ensure!(after.get("status") == before.get("status"), "{kind} {name} did something again: {after}");
        }
        let claim = space.get("PersistentVolumeClaim", "data-restored-0").await?;
        ensure!(text(&claim, "/metadata/uid") == text(&volume, "/metadata/uid"), "the claim was made anew");
        let runs = bucket.objects("shop").await?.iter().filter(|path| path.ends_with("/manifest.json")).count();
        ensure!(runs == 1, "{runs} backups in the bucket");
        Mysql::start(&space, "restored", 1, 200).await?.has_the_rows_of(0, &mysql, 0).await?;
        say("applied three times, done once");

        for (change, wanted) in [
            (json!({ "spec": { "storageRef": { "name": "other" } } }), "storageRef"),
            (json!({ "spec": { "parallelism": 3 } }), "parallelism"),
            (json!({ "spec": { "source": { "port": 3307 } } }), "source"),
        ] {
            let why = space.refusal(&with(backup("first", "bucket", &mysql), &change).to_string()).await?;
            ensure!(why.contains(wanted) && why.contains("cannot be changed"), "{change}: {why}");
        }
        space.apply_object(&with(backup("first", "bucket", &mysql), &json!({ "spec": { "pinned": true } }))).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup_is_refused_until_there_are_any() -> Result<()> {
    scenario("incremental", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space
            .apply_object(&with(
                backup("changes", "bucket", &mysql),
                &json!({ "spec": { "type": "Incremental", "incremental": { "fallback": "Fail" } } }),
            ))
            .await?;
        let (reason, message) = space.failed("MySQLBackup", "changes", Duration::from_secs(90)).await?;
        ensure!(reason == "Unsupported" && message.contains("ncremental"), "{reason}: {message}");
        ensure!(bucket.objects("shop").await?.iter().all(|path| !path.contains("changes-")), "something was stored");
        Ok(())
    })
    .await
}
