//! What dies in the middle: the runner, the operator, the backup object, the namespace with everything in it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, gtids, restore, with};
use crate::harness::operator;
use crate::harness::space::{message_of, text};
use crate::harness::{Bucket, Mysql, Space, say, scenario, until};

/// Slow enough that the copy can be met while it runs.
fn slow(name: &str, mysql: &Mysql) -> Value {
    with(backup(name, "bucket", mysql), &json!({ "spec": { "throttle": { "maxBytesPerSecond": 2_000_000 } } }))
}

/// Restores a backup into a claim, starts a server on it, and compares.
async fn prove(space: &Space, backup: &str, mysql: &Mysql) -> Result<()> {
    let taken = space.get("MySQLBackup", backup).await?;
    let claim = format!("data-{backup}-0");
    space
        .apply_object(&restore(
            backup,
            backup,
            &json!({ "newClaim": { "name": claim, "template": { "storage": "2Gi" } } }),
        ))
        .await?;
    space.succeeded("MySQLRestore", backup).await?;
    let restored = Mysql::start(space, backup, 1, 200).await?;
    check_invariants(&restored, 0).await?;
    ensure!(restored.gtid_executed(0).await? == gtids(&taken)?, "the restored server has other GTIDs than the status");
    restored.follow(0, mysql, 0).await?;
    restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
    restored.has_the_rows_of(0, mysql, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_is_noticed_and_replaced() -> Result<()> {
    scenario("runner-killed", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&slow("survivor", &mysql)).await?;
        let first = space.copying("survivor").await?;
        space.kill9(&first).await?;
        say("killed the runner in the middle of the copy");
        let retried = space
            .wait("MySQLBackup", "survivor", "tries again", MINUTES, |backup| {
                backup.pointer("/status/runner/attempt").and_then(Value::as_i64) == Some(2)
            })
            .await?;
        ensure!(
            retried.pointer("/status/failedAttempts").and_then(Value::as_i64) == Some(1),
            "the failed try is not counted: {retried}"
        );
        space.succeeded("MySQLBackup", "survivor").await?;
        mysql.unlocked(0).await?;
        load.stop().await?;
        prove(&space, "survivor", &mysql).await
    })
    .await
}

/// Waits until the first try of a backup has failed, for a reason that is told until the next one begins.
async fn tells(space: &Space, name: &str, reason: &str) -> Result<()> {
    let failed = |backup: &Value| backup.pointer("/status/failedAttempts") == Some(&json!(1));
    let seen = space.wait("MySQLBackup", name, "tells of its failed try", MINUTES, failed).await?;
    let message = message_of(&seen, "Succeeded");
    ensure!(message.contains(&format!("({reason})")), "{name}: {message}");
    say(format!("{name}: {message}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_runner_is_said() -> Result<()> {
    scenario("runner-fates", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let little =
            json!({ "spec": { "backoffLimit": 0, "runner": { "resources": { "limits": { "memory": "20Mi" } } } } });
        space.apply_object(&with(backup("starved", "bucket", &mysql), &little)).await?;
        let (reason, message) = space.failed("MySQLBackup", "starved", MINUTES).await?;
        ensure!(reason == "RunnerOutOfMemory" && message.contains("resources.limits"), "{reason}: {message}");
        mysql.unlocked(0).await?;
        say("starved: it says that memory was too little");

        // An operator that is away would not have seen them run.
        let alone = operator::ALONE.lock().await;
        for name in ["drained", "evicted", "lost"] {
            space.apply_object(&slow(name, &mysql)).await?;
        }
        for name in ["drained", "evicted", "lost"] {
            let seen = |backup: &Value| !text(backup, "/status/runner/podUID").is_empty();
            space.wait("MySQLBackup", name, "was seen to have a runner", MINUTES, seen).await?;
        }
        space.evict(&space.copying("drained").await?).await?;
        space.evict_by_kubelet(&space.copying("evicted").await?).await?;
        space.lose(&space.copying("lost").await?).await?;
        tokio::try_join!(
            tells(&space, "drained", "RunnerEvicted"),
            tells(&space, "evicted", "RunnerEvicted"),
            tells(&space, "lost", "RunnerLost")
        )?;
        drop(alone);
        for name in ["drained", "evicted", "lost"] {
            let done = space.succeeded("MySQLBackup", name).await?;
            ensure!(
                done.pointer("/status/failedAttempts") == Some(&json!(1)),
                "{name}: more tries than it took: {done}"
            );
        }
        load.stop().await?;
        prove(&space, "lost", &mysql).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_operator_finds_its_work_again() -> Result<()> {
    scenario("operator-killed", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&slow("orphan", &mysql)).await?;
        let runner = space.copying("orphan").await?;
        let system = operator::system(&space);
        let alone = operator::ALONE.lock().await;

        // One that stands still loses its turn. When it goes on, there are two for a moment.
        let first = operator::leader(&space).await?;
        system.signal(&first, "stillframe", "STOP").await?;
        space.apply_object(&slow("meanwhile", &mysql)).await?;
        let other = space.copying("meanwhile").await;
        let second = operator::leader(&space).await?;
        system.signal(&first, "stillframe", "CONT").await?;
        let other = other?;
        ensure!(second != first, "{first} stands still, and nobody took its turn");
        say("a second operator did the work of one that stood still, which then went on");

        for pod in system.list("Pod", "app.kubernetes.io/component=operator").await? {
            system.kill9(text(&pod, "/metadata/name")).await?;
        }
        drop(alone);
        say("killed both operators in the middle of the copy");
        for (name, runner) in [("orphan", runner), ("meanwhile", other)] {
            let done = space.succeeded("MySQLBackup", name).await?;
            ensure!(
                text(&done, "/status/runner/podName") == runner,
                "another runner was started for the same backup: {done}"
            );
            ensure!(done.pointer("/status/failedAttempts").is_none(), "a try failed: {done}");
        }
        ensure!(
            bucket.objects("shop").await?.iter().filter(|path| path.ends_with("/manifest.json")).count() == 2,
            "more than one backup of an object in the bucket"
        );
        load.stop().await?;
        prove(&space, "orphan", &mysql).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_running_backup_cancels_it() -> Result<()> {
    scenario("deleted-while-running", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&slow("unwanted", &mysql)).await?;
        space.copying("unwanted").await?;
        space.delete("MySQLBackup", "unwanted").await?;
        space.gone("MySQLBackup", "unwanted", Duration::from_secs(90)).await?;
        mysql.unlocked(0).await?;
        let left = bucket.objects("shop").await?;
        // What stays is the tombstone in the manifest's place: nothing can be committed under that id any more.
        let data: Vec<&String> =
            left.iter().filter(|path| path.contains("/unwanted-") && !path.ends_with("manifest.json")).collect();
        ensure!(data.is_empty(), "remains are left: {data:?}");
        mysql.sql(0, "CREATE TABLE shop.after_cancel (id INT PRIMARY KEY)").await?;

        // The database may go before its backup.
        space.apply_object(&slow("orphan", &mysql)).await?;
        space.copying("orphan").await?;
        space.delete("StatefulSet", "mysql").await?;
        space.reason("MySQLBackup", "orphan", "Succeeded", "NoSourcePod", MINUTES).await?;
        space.delete("MySQLBackup", "orphan").await?;
        space.gone("MySQLBackup", "orphan", Duration::from_secs(90)).await?;
        let left = bucket.objects("shop").await?;
        ensure!(!left.iter().any(|path| path.contains("/orphan-") && path.contains("/data/")), "remains: {left:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_can_be_deleted_when_its_storage_is_gone() -> Result<()> {
    scenario("namespace-deleted", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let owned = with(backup("owned", "bucket", &mysql), &json!({ "spec": { "deletionPolicy": "Delete" } }));
        space.apply_object(&owned).await?;
        space.succeeded("MySQLBackup", "owned").await?;
        space.apply_object(&slow("running", &mysql)).await?;
        space.copying("running").await?;
        bucket.stop().await?;
        space.delete("Secret", &bucket.secret()).await?;
        // Namespace, storage and backups go at the same time; finalizers must let go within a bounded time. What was left
        // behind is counted: an event would have no namespace any more.
        let counted = until("what is left behind to be counted", MINUTES, || async {
            let of_it = format!("namespace=\"{}\"", space.name);
            // Others restart the operator meanwhile.
            let pages = operator::metrics(&space).await.unwrap_or_default();
            let counted = operator::samples(&pages, "stillframe_backup_data_left_behind_total", &of_it)?;
            Ok(if counted.iter().sum::<f64>() >= 1.0 { Ok(()) } else { Err(format!("{counted:?}")) })
        });
        tokio::try_join!(space.remove(), counted).map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_at_once_are_two_backups() -> Result<()> {
    scenario("two-at-once", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        // One of them, and its storage, as long as names may be.
        let storage = format!("{}.storage", "s".repeat(245));
        space.ready_storage(&storage, &bucket, "shop").await?;
        let long = format!("{}.a-backup", "b".repeat(244));
        space.apply_object(&backup("one", "bucket", &mysql)).await?;
        space.apply_object(&backup(&long, &storage, &mysql)).await?;
        let one = space.succeeded("MySQLBackup", "one").await?;
        let two = space.succeeded("MySQLBackup", &long).await?;
        ensure!(text(&one, "/status/backupId") != text(&two, "/status/backupId"), "both are the same");
        load.stop().await?;
        prove(&space, "one", &mysql).await?;
        let target = json!({ "newClaim": { "name": "data-two-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore(&long, &long, &target)).await?;
        space.succeeded("MySQLRestore", &long).await?;
        let restored = Mysql::start(&space, "two", 1, 300).await?;
        restored.follow(0, &mysql, 0).await?;
        restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
        restored.has_the_rows_of(0, &mysql, 0).await
    })
    .await
}
