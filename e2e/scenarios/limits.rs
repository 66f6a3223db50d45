//! What may be used up: a backup's time, its tries, the namespace's room for pods.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stillframe::api::conditions::reasons;

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup, restore, storage, with};
use crate::harness::space::{message_of, text};
use crate::harness::{Bucket, Mysql, Space, say, scenario, until};

/// A backup that failed holds no lock and no pod, and nothing in the bucket can be taken for it.
async fn left_nothing(space: &Space, bucket: &Bucket, mysql: &Mysql, name: &str) -> Result<()> {
    mysql.unlocked(0).await?;
    until("its runners and their authority to go", MINUTES, || async {
        let mut left = Vec::new();
        for kind in ["Pod", "ConfigMap", "Role", "RoleBinding"] {
            let found = space.list(kind, "app.kubernetes.io/name=stillframe").await?;
            // A runner that ended is left for whoever wants to read its log.
            let ended = |object: &Value| ["Failed", "Succeeded"].contains(&text(object, "/status/phase"));
            left.extend(found.iter().filter(|one| !ended(one)).map(|one| text(one, "/metadata/name").to_owned()));
        }
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await?;
    until("its remains to go", MINUTES, || async {
        // What stays is the tombstone in the manifest's place.
        let mut left = bucket.objects("shop").await?;
        left.retain(|path| path.contains(&format!("/{name}-")) && !path.ends_with("/manifest.json"));
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await?;
    // Whoever looks into that bucket for the first time finds no backup.
    let look = format!("look-after-{name}");
    space.apply_object(&with(storage(&look, bucket, "shop"), &json!({ "spec": { "accessMode": "ReadOnly" } }))).await?;
    let seen = space.condition("BackupStorage", &look, "Ready", "True", MINUTES).await?;
    ensure!(seen.pointer("/status/backupCount") == Some(&json!(0)), "a backup is listed: {seen}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_tries_of_a_backup_end() -> Result<()> {
    scenario("limits", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        // So slow that it would take a quarter of an hour.
        let endless = json!({ "spec": { "throttle": { "maxBytesPerSecond": 65_536 } } });
        let slow =
            |name: &str, limit: Value| with(with(backup(name, "bucket", &mysql), &endless), &json!({ "spec": limit }));

        space.apply_object(&slow("late", json!({ "activeDeadlineSeconds": 45 }))).await?;
        let runner = space.copying("late").await?;
        let (reason, message) = space.failed("MySQLBackup", "late", MINUTES).await?;
        ensure!(
            reason == reasons::ACTIVE_DEADLINE_EXCEEDED && message.contains("activeDeadlineSeconds"),
            "{reason}: {message}"
        );
        space.gone("Pod", &runner, MINUTES).await?;
        left_nothing(&space, &bucket, &mysql, "late").await?;
        say("late: it failed, and left nothing");

        space.apply_object(&slow("hopeless", json!({ "backoffLimit": 1 }))).await?;
        for attempt in 1..=2 {
            let copies = |backup: &Value| {
                backup.pointer("/status/runner/attempt") == Some(&json!(attempt))
                    && text(backup, "/status/progress/step") == "copy"
            };
            let working =
                space.wait("MySQLBackup", "hopeless", &format!("copies in try {attempt}"), MINUTES, copies).await?;
            space.kill9(text(&working, "/status/runner/podName")).await?;
        }
        let (reason, message) = space.failed("MySQLBackup", "hopeless", MINUTES).await?;
        ensure!(reason == reasons::RUNNER_DIED, "{reason}: {message}");
        let failed = space.get("MySQLBackup", "hopeless").await?;
        ensure!(
            failed.pointer("/status/failedAttempts") == Some(&json!(2)),
            "two tries, no more and no less: {failed}"
        );
        let told = space.event(&failed, "BackupRunnerDied").await?;
        ensure!(text(&told, "/type") == "Warning" && text(&told, "/message") == message, "{told}");
        left_nothing(&space, &bucket, &mysql, "hopeless").await?;
        say("killed in each of its tries: it failed, and left nothing");
        Ok(())
    })
    .await
}

/// From now on the namespace takes no more pods.
async fn full(space: &Space) -> Result<()> {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "full" }, "spec": { "hard": { "pods": "0" } },
    });
    space.apply_object(&quota).await?;
    let counts = |quota: &Value| quota.pointer("/status/used/pods").is_some();
    space.wait("ResourceQuota", "full", "counts", MINUTES, counts).await?;
    Ok(())
}

async fn refused(space: &Space, kind: &str, name: &str) -> Result<()> {
    let told = space.reason(kind, name, "Succeeded", reasons::POD_REFUSED, MINUTES).await?;
    let message = message_of(&told, "Succeeded");
    ensure!(message.contains("exceeded quota: full"), "it does not say what the API server said: {message}");
    say(format!("{kind}: {message}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_namespace_is_waited_for() -> Result<()> {
    scenario("quota", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        full(&space).await?;
        space.apply_object(&backup("patient", "bucket", &mysql)).await?;
        let hasty = json!({ "spec": { "activeDeadlineSeconds": 10 } });
        space.apply_object(&with(backup("hasty", "bucket", &mysql), &hasty)).await?;
        refused(&space, "MySQLBackup", "patient").await?;
        let (reason, message) = space.failed("MySQLBackup", "hasty", Duration::from_mins(2)).await?;
        ensure!(
            reason == reasons::ACTIVE_DEADLINE_EXCEEDED,
            "a deadline holds where no pod can be made, too: {reason}: {message}"
        );
        space.delete("ResourceQuota", "full").await?;
        let taken = space.succeeded("MySQLBackup", "patient").await?;
        ensure!(taken.pointer("/status/failedAttempts").is_none(), "what was refused is no failed try: {taken}");
        say("the backup went on by itself");

        full(&space).await?;
        let target = json!({ "newClaim": { "name": "data-back-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore("back", "patient", &target)).await?;
        refused(&space, "MySQLRestore", "back").await?;
        space.delete("ResourceQuota", "full").await?;
        let _ = mysql.brought_back("patient").await?;
        say("so did the restore: the same rows");
        Ok(())
    })
    .await
}

/// A `LimitRange` with one limit.
fn limit_range(limit: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "house-rules" }, "spec": { "limits": [limit] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_namespace_hold_for_runners() -> Result<()> {
    scenario("limit-range", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;

        // Less than a runner asks for by itself.
        space.apply_object(&limit_range(&json!({ "type": "Container", "max": { "memory": "384Mi" } }))).await?;
        space.apply_object(&backup("usual", "bucket", &mysql)).await?;
        let told = space.reason("MySQLBackup", "usual", "Succeeded", reasons::POD_REFUSED, MINUTES).await?;
        let message = message_of(&told, "Succeeded");
        ensure!(message.contains("maximum memory usage per Container is 384Mi, but limit is 512Mi"), "{message}");
        say(format!("usual: {message}"));
        let small = json!({ "spec": { "runner": { "resources": { "limits": { "memory": "384Mi" } } } } });
        space.apply_object(&with(backup("small", "bucket", &mysql), &small)).await?;
        space.succeeded("MySQLBackup", "small").await?;
        ensure!(
            text(&space.get("MySQLBackup", "usual").await?, "/status/conditions/0/reason") == reasons::POD_REFUSED,
            "the other one does not wait any more"
        );
        say("one that asks for less was taken");

        // What a runner does not ask for, the namespace may say.
        let defaults = json!({ "type": "Container", "default": { "cpu": "900m" }, "max": { "memory": "1Gi" } });
        space.apply_object(&limit_range(&defaults)).await?;
        let taken = space.succeeded("MySQLBackup", "usual").await?;
        ensure!(taken.pointer("/status/failedAttempts").is_none(), "what was refused is no failed try: {taken}");
        let runner = space.get("Pod", text(&taken, "/status/runner/podName")).await?;
        let limits = runner.pointer("/spec/containers/0/resources/limits").cloned().unwrap_or_default();
        ensure!(limits == json!({ "cpu": "900m", "memory": "512Mi" }), "not the limits of both: {limits}");
        say("the other one went on by itself, with the namespace's limit of processors");

        let claims = json!({ "type": "PersistentVolumeClaim", "max": { "storage": "1Gi" } });
        space.apply_object(&limit_range(&claims)).await?;
        let target = json!({ "newClaim": { "name": "data-back-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore("back", "usual", &target)).await?;
        let told = space.reason("MySQLRestore", "back", "Succeeded", reasons::POD_REFUSED, MINUTES).await?;
        let message = message_of(&told, "Succeeded");
        ensure!(message.contains("maximum storage usage per PersistentVolumeClaim is 1Gi"), "{message}");
        space.delete("LimitRange", "house-rules").await?;
        let _ = mysql.brought_back("usual").await?;
        say("so did the restore, whose claim was too large: the same rows");
        Ok(())
    })
    .await
}
