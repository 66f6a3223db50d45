//! The main road: a storage, a backup of a server under load, a restore into a new claim, the same rows.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::plain_pods::loaded_server;
use crate::harness::load::{check_invariants, check_tables};
use crate::harness::objects::{MINUTES, backup, gtids, restore};
use crate::harness::space::text;
use crate::harness::{Bucket, Mysql, say, scenario, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_becomes_a_server_with_the_same_rows() -> Result<()> {
    scenario("main-road", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;

        let before = load.committed().await?;
        let applied = Instant::now();
        space.apply_object(&backup("first", "bucket", &mysql)).await?;
        // What the runner itself says; a try is decided on, and has its time, before there is a pod.
        let first_byte = until("the runner's first byte", MINUTES, || async {
            let status = space.get("MySQLBackup", "first").await?.pointer("/status").cloned().unwrap_or_default();
            let copied = status.pointer("/progress/bytesDone").and_then(Value::as_i64).is_some_and(|bytes| bytes > 0);
            let seen = copied || status.get("completionTime").is_some();
            Ok(if seen { Ok(applied.elapsed()) } else { Err(status.to_string()) })
        });
        say(format!("from apply to the runner's first bytes in the status: {:.1} s", first_byte.await?.as_secs_f64()));
        let taken = space.succeeded("MySQLBackup", "first").await?;
        let after = load.committed().await?;
        check_status(&taken)?;
        ensure!(after > before, "the writers stood still during the backup");

        let target = json!({ "newClaim": { "name": "data-restored-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore("back", "first", &target)).await?;
        let done = space.succeeded("MySQLRestore", "back").await?;
        ensure!(gtids(&done)? == gtids(&taken)?, "backup and restore name different GTID sets");

        let restored = Mysql::start(&space, "restored", 1, 200).await?;
        let held = check_invariants(&restored, 0).await?;
        ensure!(
            before <= held && held <= after,
            "the backup holds {held} transactions; {before} were before it, {after} after"
        );
        check_tables(&restored, 0).await?;
        ensure!(
            restored.gtid_executed(0).await? == gtids(&taken)?,
            "the restored server has other GTIDs than the status"
        );

        restored.follow(0, &mysql, 0).await?;
        load.more(100).await?;
        load.stop().await?;
        restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
        restored.has_the_rows_of(0, &mysql, 0).await?;
        say("restored, caught up from the status' GTID set: the same rows");

        // Nothing but what the user made and what the operator needs is left: no runner holds a volume.
        until("the runners to go", Duration::from_mins(1), || async {
            let left = space.list("Pod", "app.kubernetes.io/name=stillframe").await?;
            let running: Vec<&str> = left
                .iter()
                .filter(|pod| text(pod, "/status/phase") == "Running")
                .map(|pod| text(pod, "/metadata/name"))
                .collect();
            Ok(if running.is_empty() { Ok(()) } else { Err(format!("{running:?}")) })
        })
        .await
    })
    .await
}

/// Everything that a person reads in a status is there.
fn check_status(backup: &Value) -> Result<()> {
    for field in [
        "/status/backupId",
        "/status/lsn/checkpoint",
        "/status/lsn/end",
        "/status/binlog/file",
        "/status/gtidExecuted",
        "/status/destination",
        "/status/startTime",
        "/status/completionTime",
        "/status/source/podName",
        "/status/source/serverUUID",
        "/status/source/serverVersion",
        "/status/origin/clusterId",
        "/status/origin/namespace",
    ] {
        ensure!(!text(backup, field).is_empty(), "{field} is missing: {backup}");
    }
    ensure!(text(backup, "/status/source/role") == "Primary", "it follows nobody: {backup}");
    for field in ["/status/sizeBytes", "/status/storedBytes", "/status/binlog/position"] {
        ensure!(
            backup.pointer(field).and_then(Value::as_i64).is_some_and(|value| value > 0),
            "{field} is missing: {backup}"
        );
    }
    Ok(())
}
