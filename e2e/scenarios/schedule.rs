//! A schedule takes backups and removes them by its rules, never the last good one, however often it is applied.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stillframe::api::conditions::events;

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup_spec, with};
use crate::harness::operator;
use crate::harness::space::{condition_of, text};
use crate::harness::{Bucket, Mysql, Space, say, scenario, until};

fn schedule(mysql: &Mysql, spec: &Value) -> Value {
    let object = json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "CronBackup", "metadata": { "name": "often" },
        "spec": {
            "schedule": "* * * * *", "timeZone": "Europe/Vienna", "immediate": true, "concurrencyPolicy": "Forbid",
            "backupTemplate": { "metadata": { "labels": { "team": "shop" } }, "spec": backup_spec("bucket", mysql) },
        },
    });
    with(object, &json!({ "spec": spec }))
}

/// So slow that it is still copying when the next one is due.
fn endless() -> Value {
    json!({ "backupTemplate": { "spec": { "throttle": { "maxBytesPerSecond": 65_536 } } } })
}

/// The names of the backups that the schedule made and that succeeded, oldest first.
async fn good(space: &Space) -> Result<Vec<String>> {
    let is_good = |backup: &Value| {
        condition_of(backup, "Succeeded").is_some_and(|condition| text(condition, "/status") == "True")
    };
    Ok(made(space).await?.into_iter().filter(is_good).map(|backup| name(&backup)).collect())
}

/// All backups of the schedule, oldest first.
async fn made(space: &Space) -> Result<Vec<Value>> {
    let mut found = space.list("MySQLBackup", "stillframe.dev/schedule=often").await?;
    found.sort_by_key(name);
    Ok(found)
}

fn name(object: &Value) -> String {
    text(object, "/metadata/name").to_owned()
}

/// Waits for a good backup that is newer than another one, and gives its name.
async fn good_after(space: &Space, other: &str) -> Result<String> {
    until(&format!("a good backup after {other:?}"), MINUTES, || async {
        let found = good(space).await?;
        Ok(found.iter().find(|name| name.as_str() > other).cloned().ok_or_else(|| format!("{found:?}")))
    })
    .await
}

/// Waits until the clock has passed the next full minute, and a while longer.
async fn past_a_full_minute() {
    let now = stillframe::util::clock::now().as_second();
    tokio::time::sleep(Duration::from_secs((75 - now.rem_euclid(60)).unsigned_abs())).await;
}

/// Applies the schedule as a tool does that tracks its objects by labels and annotations.
async fn sync(space: &Space, object: &Value, revision: &str) -> Result<()> {
    let tracked = json!({ "metadata": {
        "labels": { "argocd.argoproj.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "shop", "rev": revision },
        "annotations": { "argocd.argoproj.io/tracking-id": format!("shop:{revision}") },
    } });
    space.apply_as("argocd-controller", &with(object.clone(), &tracked).to_string()).await?;
    Ok(())
}

/// The operator's metrics tell of good backups, of the schedule that they are of, and of their storage.
async fn tell(space: &Space) -> Result<()> {
    let of_it = format!("namespace=\"{}\"", space.name);
    let now = f64::from(u32::try_from(stillframe::util::clock::now().as_second())?);
    let wanted: [(&str, std::ops::RangeInclusive<f64>); 6] = [
        ("stillframe_backups_total", 1.0..=20.0),
        ("stillframe_backup_duration_seconds_count", 1.0..=20.0),
        ("stillframe_backup_read_bytes_total", 1e6..=1e12),
        ("stillframe_backup_stored_bytes_total", 1e5..=1e12),
        ("stillframe_schedule_last_success_timestamp_seconds", now - 600.0..=now + 600.0),
        ("stillframe_storage_ready", 1.0..=1.0),
    ];
    // One that was restarted counts anew. The next backup comes within a minute.
    let _alone = operator::ALONE.lock().await;
    until("the metrics to tell of it", MINUTES, || async {
        let pages = operator::metrics(space).await.unwrap_or_default();
        for (metric, range) in &wanted {
            let sum = operator::samples(&pages, metric, &of_it)?.iter().sum::<f64>();
            if !range.contains(&sum) {
                return Ok(Err(format!("{metric} is {sum}")));
            }
        }
        Ok(Ok(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_by_the_clock_and_their_retention() -> Result<()> {
    scenario("schedule", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let often = schedule(&mysql, &json!({ "retention": { "keepLast": 1 } }));
        sync(&space, &often, "1").await?;

        // At once, then at each minute; applied again in between.
        let first = good_after(&space, "").await?;
        let cron = space.get("CronBackup", "often").await?;
        let told = space.event(&cron, events::BACKUP_CREATED).await?;
        ensure!(text(&told, "/message").contains("often-") && text(&told, "/type") == "Normal", "{told}");
        let first_id = text(&space.get("MySQLBackup", &first).await?, "/status/backupId").to_owned();
        let second = good_after(&space, &first).await?;
        space.patch("MySQLBackup", &second, &json!({ "spec": { "pinned": true } })).await?;
        sync(&space, &often, "2").await?;
        for backup in made(&space).await? {
            ensure!(text(&backup, "/metadata/labels/team") == "shop", "the template's labels are missing: {backup}");
            ensure!(backup.pointer("/metadata/ownerReferences").is_none(), "it would go with its owner: {backup}");
            let metadata = backup.pointer("/metadata/labels").map(Value::to_string).unwrap_or_default()
                + &backup.pointer("/metadata/annotations").map(Value::to_string).unwrap_or_default();
            ensure!(!metadata.contains("argocd") && !metadata.contains("fluxcd"), "a tool would prune it: {metadata}");
        }
        space.gone("MySQLBackup", &first, MINUTES).await?;
        space.event(&cron, events::BACKUP_REMOVED).await?;
        let left: Vec<String> = bucket.objects("shop").await?.into_iter().filter(|at| at.contains(&first_id)).collect();
        ensure!(left.iter().all(|path| path.ends_with("/manifest.json")), "its data stays: {left:?}");
        say(format!("{first} went with its data, though the template's deletionPolicy is Retain"));

        // The pinned one stays beside the one that the rule keeps.
        let third = good_after(&space, &second).await?;
        let fourth = good_after(&space, &third).await?;
        space.gone("MySQLBackup", &third, MINUTES).await?;
        let kept = good(&space).await?;
        ensure!(kept.contains(&second), "the pinned one went: {kept:?}");
        ensure!(kept.iter().any(|name| *name >= fourth), "the last good one went: {kept:?}");

        let status = space.get("CronBackup", "often").await?;
        for field in ["lastScheduleTime", "nextScheduleTime", "lastSuccessfulTime", "lastSuccessfulBackupName"] {
            ensure!(!text(&status, &format!("/status/{field}")).is_empty(), "{field} is missing: {status}");
        }

        tell(&space).await?;

        // Suspended, it takes none; let go, it does not make up for what it left out.
        sync(&space, &with(often.clone(), &json!({ "spec": { "suspend": true } })), "3").await?;
        space.reason("CronBackup", "often", "Ready", "Suspended", MINUTES).await?;
        // One that was under way may yet end.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let at_rest = space.get("CronBackup", "often").await?;
        let names = |backups: Vec<Value>| backups.iter().map(name).collect::<BTreeSet<_>>();
        let before = names(made(&space).await?);
        past_a_full_minute().await;
        let after = names(made(&space).await?);
        ensure!(after.is_subset(&before), "taken while suspended: {before:?} became {after:?}");
        let now = space.get("CronBackup", "often").await?;
        let version = |object: &Value| text(object, "/metadata/resourceVersion").to_owned();
        ensure!(version(&now) == version(&at_rest), "written though nothing changed: {at_rest} became {now}");
        sync(&space, &often, "4").await?;
        let resumed = space.condition("CronBackup", "often", "Ready", "True", MINUTES).await?;
        ensure!(names(made(&space).await?).is_subset(&before), "made up for what was left out on purpose: {resumed}");
        say("held back and let go");

        // Deleting the schedule deletes no backup.
        let before = names(made(&space).await?);
        space.delete("CronBackup", "often").await?;
        space.gone("CronBackup", "often", Duration::from_mins(1)).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = names(made(&space).await?);
        ensure!(before.is_subset(&after), "backups went with their schedule: {before:?} became {after:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_runs_decides_about_the_next() -> Result<()> {
    scenario("concurrency", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let often = with(schedule(&mysql, &endless()), &json!({ "spec": { "immediate": null } }));
        space.apply_object(&often).await?;

        // Forbid: the next one waits.
        let first = until("the first backup", MINUTES, || async {
            Ok(made(&space).await?.first().map(name).ok_or_else(|| "none".to_owned()))
        })
        .await?;
        space.copying(&first).await?;
        let waits = space
            .wait("CronBackup", "often", "lets the next one wait", MINUTES, |cron| {
                condition_of(cron, "Ready").is_some_and(|ready| text(ready, "/message").contains(&first))
            })
            .await?;
        ensure!(made(&space).await?.len() == 1, "two run at once: {waits}");
        ensure!(text(&waits, "/status/active/0/name") == first, "the status does not name it: {waits}");
        say("Forbid: the next one waits");

        // Replace: the old one is cancelled, and leaves no lock.
        let replace = with(often.clone(), &json!({ "spec": { "concurrencyPolicy": "Replace" } }));
        space.apply_object(&replace).await?;
        space.gone("MySQLBackup", &first, MINUTES).await?;
        let second = until("the backup in its place", MINUTES, || async {
            Ok(made(&space).await?.first().map(name).ok_or_else(|| "none".to_owned()))
        })
        .await?;
        ensure!(second > first, "{second} is no later one than {first}");
        space.copying(&second).await?;
        say("Replace: the old one went, the new one runs");

        // Deleting the schedule leaves what runs.
        space.delete("CronBackup", "often").await?;
        space.gone("CronBackup", "often", Duration::from_mins(1)).await?;
        past_a_full_minute().await;
        let left: Vec<String> = made(&space).await?.iter().map(name).collect();
        ensure!(left == [second.clone()], "the schedule is gone, and there are {left:?}");
        let running = space.get("MySQLBackup", &second).await?;
        ensure!(condition_of(&running, "Succeeded").is_some_and(|one| text(one, "/reason") == "Running"), "{running}");
        space.delete("MySQLBackup", &second).await?;
        space.gone("MySQLBackup", &second, MINUTES).await?;
        mysql.unlocked(0).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_at_its_time_unless_it_is_pinned() -> Result<()> {
    scenario("expiry", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let past = "2020-01-01T00:00:00Z";
        let kept = json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": { "name": "kept" },
            "spec": with(backup_spec("bucket", &mysql), &json!({ "pinned": true })),
        });
        space.apply_object(&kept).await?;
        let taken = space.succeeded("MySQLBackup", "kept").await?;
        let id = text(&taken, "/status/backupId").to_owned();
        let told = |backup: &Value| backup.pointer("/status/recorded/pinned") == Some(&json!(true));
        space.wait("MySQLBackup", "kept", "is told to the storage", MINUTES, told).await?;
        space.patch("MySQLBackup", "kept", &json!({ "spec": { "expirationTime": past } })).await?;
        space.reason("MySQLBackup", "kept", "Expired", "Pinned", MINUTES).await?;

        // A restore needs it: it stays when the pin goes.
        let serving = json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLRestore", "metadata": { "name": "serving" },
            "spec": { "source": { "backupRef": { "name": "kept" } }, "target": { "dataSource": {} } },
        });
        space.apply_object(&serving).await?;
        space.patch("MySQLBackup", "kept", &json!({ "spec": { "pinned": false } })).await?;
        space.reason("MySQLBackup", "kept", "Expired", "NeededByRestore", MINUTES).await?;
        space.delete("MySQLRestore", "serving").await?;
        space.gone("MySQLRestore", "serving", MINUTES).await?;
        // Any change makes the operator look again at once.
        space.patch("MySQLBackup", "kept", &json!({ "spec": { "expirationTime": "2020-01-02T00:00:00Z" } })).await?;
        space.gone("MySQLBackup", "kept", MINUTES).await?;
        space.event(&taken, events::BACKUP_KEPT).await?;
        space.event(&taken, events::BACKUP_EXPIRED).await?;
        let left: Vec<String> = bucket.objects("shop").await?.into_iter().filter(|path| path.contains(&id)).collect();
        ensure!(left.iter().all(|path| path.ends_with("/manifest.json")), "its data stays: {left:?}");
        say("went with its data once nothing spoke against it");

        // The old manifest again takes no backup.
        space.apply_object(&with(kept, &json!({ "spec": { "pinned": false, "expirationTime": past } }))).await?;
        let (reason, message) = space.failed("MySQLBackup", "kept", MINUTES).await?;
        ensure!(reason == "Expired" && message.contains("never started"), "{reason}: {message}");
        Ok(())
    })
    .await
}
