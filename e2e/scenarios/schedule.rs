//! A schedule takes backups and removes them by its rules, never the last good one.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup_spec, with};
use crate::harness::space::{condition_of, text};
use crate::harness::{Bucket, Mysql, Space, say, scenario, until};

fn schedule(mysql: &Mysql, keep_last: u32) -> Value {
    json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "CronBackup", "metadata": { "name": "often" },
        "spec": {
            "schedule": "* * * * *", "timeZone": "Europe/Vienna", "immediate": true, "concurrencyPolicy": "Forbid",
            "backupTemplate": { "metadata": { "labels": { "team": "shop" } }, "spec": with(backup_spec("bucket", mysql), &json!({ "deletionPolicy": "Delete" })) },
            "retention": { "keepLast": keep_last },
        },
    })
}

/// The names of the backups that the schedule made and that succeeded, oldest first.
async fn good(space: &Space) -> Result<Vec<String>> {
    let mut found: Vec<(String, String)> = Vec::new();
    for backup in space.list("MySQLBackup", "").await? {
        if condition_of(&backup, "Succeeded").is_some_and(|condition| text(condition, "/status") == "True") {
            found
                .push((text(&backup, "/status/completionTime").to_owned(), text(&backup, "/metadata/name").to_owned()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_by_the_clock_and_their_retention() -> Result<()> {
    scenario("schedule", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&schedule(&mysql, 2)).await?;

        // At once, then at each minute: the third one makes the first one go.
        let first = until("the first backup", MINUTES, || async {
            Ok(good(&space).await?.into_iter().next().ok_or_else(|| "none".to_owned()))
        })
        .await?;
        let labels = space.get("MySQLBackup", &first).await?;
        ensure!(text(&labels, "/metadata/labels/team") == "shop", "the template's labels are missing: {labels}");
        space.gone("MySQLBackup", &first, Duration::from_mins(5)).await?;
        let left = good(&space).await?;
        ensure!((2..=3).contains(&left.len()), "two are to be kept, there are {left:?}");
        say(format!("the oldest went, {left:?} stay"));

        let status = space.get("CronBackup", "often").await?;
        for field in ["lastScheduleTime", "nextScheduleTime", "lastSuccessfulTime", "lastSuccessfulBackupName"] {
            ensure!(!text(&status, &format!("/status/{field}")).is_empty(), "{field} is missing: {status}");
        }

        // Deleting the schedule deletes no backup.
        let before = good(&space).await?;
        space.delete("CronBackup", "often").await?;
        space.gone("CronBackup", "often", Duration::from_mins(1)).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = good(&space).await?;
        ensure!(
            before.iter().all(|name| after.contains(name)),
            "backups went with their schedule: {before:?} became {after:?}"
        );
        Ok(())
    })
    .await
}
