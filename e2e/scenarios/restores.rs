//! Restores into every kind of target, and what becomes of them when something dies, goes, or is applied again.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, gtids, restore, with};
use crate::harness::space::text;
use crate::harness::{Bucket, Mysql, Space, fill, say, scenario, until};

/// A storage, and a backup of a server whose writers have come to rest.
async fn backed_up(space: &Space) -> Result<(Bucket, Mysql)> {
    let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(space, "s3"), loaded_server(space, "mysql"))?;
    space.ready_storage("bucket", &bucket, "shop").await?;
    load.stop().await?;
    space.apply_object(&backup("first", "bucket", &mysql)).await?;
    space.succeeded("MySQLBackup", "first").await?;
    Ok((bucket, mysql))
}

async fn is_whole(restored: &Mysql, member: u32, mysql: &Mysql, restore: &Value) -> Result<()> {
    check_invariants(restored, member).await?;
    restored.has_the_rows_of(member, mysql, 0).await?;
    ensure!(restored.gtid_executed(member).await? == gtids(restore)?, "other GTIDs than the status says");
    ensure!(restored.keeps_to_itself(member).await?, "a restored server does not keep to itself");
    Ok(())
}

/// Makes an empty claim, and gives the target of a restore into it.
async fn existing_claim(space: &Space, name: &str) -> Result<Value> {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    space.apply_object(&claim).await?;
    Ok(json!({"existingClaim": {"name": name}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_there_is_filled_once_and_replaced_when_told() -> Result<()> {
    scenario("restore-in-place", |space| async move {
        let (_bucket, mysql) = backed_up(&space).await?;
        let target = existing_claim(&space, "data-old-0").await?;
        space.apply_object(&restore("empty", "first", &target)).await?;
        let done = space.succeeded("MySQLRestore", "empty").await?;
        let old = Mysql::start(&space, "old", 1, 200).await?;
        is_whole(&old, 0, &mysql, &done).await?;

        old.sql(0, "DROP DATABASE shop").await?;
        space.apply_object(&restore("again", "first", &target)).await?;
        space.reason("MySQLRestore", "again", "Succeeded", "TargetInUse", MINUTES).await?;
        space.patch("StatefulSet", "old", &json!({"spec": {"replicas": 0}})).await?;
        let (reason, _) = space.failed("MySQLRestore", "again", MINUTES).await?;
        ensure!(reason == "TargetNotEmpty", "a database was not refused: {reason}");
        say("in use: it waits; not empty: it refuses");

        let target = json!({"existingClaim": {"name": "data-old-0", "overwrite": true}});
        space.apply_object(&restore("replace", "first", &target)).await?;
        let done = space.succeeded("MySQLRestore", "replace").await?;
        let old = Mysql::start(&space, "old", 1, 200).await?;
        is_whole(&old, 0, &mysql, &done).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_name_a_restore_are_filled_when_they_come() -> Result<()> {
    scenario("data-source", |space| async move {
        let (_bucket, mysql) = backed_up(&space).await?;
        space.apply_object(&restore("seed", "first", &json!({"dataSource": {}}))).await?;
        let seed = space.condition("MySQLRestore", "seed", "Ready", "True", MINUTES).await?;
        let plain = fill(include_str!("../fixtures/mysql.yaml"), &[
            ("NAME", "seeded"),
            ("IMAGE", crate::harness::MYSQL_IMAGE),
            ("REPLICAS", "2"),
            ("SERVER_ID_BASE", "500"),
        ]);
        let source = "spec: {dataSourceRef: {apiGroup: stillframe.dev, kind: MySQLRestore, name: seed}, accessModes: [ReadWriteOnce], resources";
        let seeded = plain.replace("spec: {accessModes: [ReadWriteOnce], resources", source);
        ensure!(seeded != plain, "the fixture has changed");
        space.apply(&seeded).await?;
        let cluster = Mysql { space: space.clone(), name: "seeded".to_owned() };
        cluster.ready(2).await?;
        for member in 0..2 {
            is_whole(&cluster, member, &mysql, &seed).await?;
        }
        space.patch("StatefulSet", "seeded", &json!({"spec": {"replicas": 3}})).await?;
        cluster.ready(3).await?;
        is_whole(&cluster, 2, &mysql, &seed).await?;
        say("two members, and one that came later");

        let volume = text(&space.get("PersistentVolumeClaim", "data-seeded-2").await?, "/spec/volumeName").to_owned();
        let volume = space.get("PersistentVolume", &volume).await?;
        ensure!(text(&volume, "/spec/persistentVolumeReclaimPolicy") == "Delete", "the volume stays for ever: {volume}");
        space.delete("MySQLRestore", "seed").await?;
        space.gone("MySQLRestore", "seed", Duration::from_mins(1)).await?;
        cluster.has_the_rows_of(2, &mysql, 0).await
    })
    .await
}

/// Gives all nodes a label, or takes it from them (null).
async fn label_nodes(space: &Space, label: &str, value: &Value) -> Result<()> {
    for node in space.list("Node", "").await? {
        space.patch("Node", text(&node, "/metadata/name"), &json!({"metadata": {"labels": {label: value}}})).await?;
    }
    Ok(())
}

/// The target of a restore into a new claim.
fn new_claim(name: &str) -> Value {
    json!({"newClaim": {"name": format!("data-{name}-0"), "template": {"storage": "2Gi"}}})
}

/// Applies a restore for a node with a label, which no node has.
async fn apply_waiting(space: &Space, name: &str, label: &str, target: &Value, spec: &Value) -> Result<()> {
    // A run that was killed may have left it.
    label_nodes(space, label, &Value::Null).await?;
    let selector = json!({"spec": {"runner": {"nodeSelector": {label: "yes"}}}});
    space.apply_object(&with(with(restore(name, "first", target), &selector), &json!({"spec": spec}))).await
}

/// The pod of such a restore's runner, once it waits.
async fn waiting_pod(space: &Space, name: &str) -> Result<String> {
    let restore = space.reason("MySQLRestore", name, "Succeeded", "Unschedulable", MINUTES).await?;
    Ok(text(&restore, "/status/claims/0/podName").to_owned())
}

/// A restore whose runner waits for a node that is not there, and will find its store stopped when the node comes. Returns
/// the runner's pod.
async fn without_store(space: &Space, bucket: &Bucket, name: &str, label: &str, spec: &Value) -> Result<String> {
    apply_waiting(space, name, label, &new_claim(name), spec).await?;
    let pod = waiting_pod(space, name).await?;
    bucket.stop().await?;
    Ok(pod)
}

/// A restore whose runner was killed while it asked a stopped store again.
async fn killed(space: &Space, bucket: &Bucket, name: &str, label: &str, spec: &Value) -> Result<()> {
    let pod = without_store(space, bucket, name, label, spec).await?;
    // It gives up after ten seconds, which may be over by the time that somebody outside of the node has seen it.
    let kill = space.kill9_when(&pod, None, "said 'trying again'");
    let yes = json!("yes");
    let (killed, ()) = tokio::try_join!(kill, label_nodes(space, label, &yes))?;
    killed.map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
    say(format!("{name}: killed the runner at work"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_starts_over_and_applying_again_does_nothing() -> Result<()> {
    scenario("restore-killed", |space| async move {
        let (bucket, mysql) = backed_up(&space).await?;
        killed(&space, &bucket, "survivor", "stillframe.dev/e2e-killed", &json!({})).await?;
        let retried = space.reason("MySQLRestore", "survivor", "Succeeded", "Retrying", MINUTES).await?;
        ensure!(text(&retried, "/status/claims/0/reason") == "RunnerDied", "no word of its death: {retried}");
        ensure!(space.find("PersistentVolumeClaim", "data-survivor-0").await?.is_none(), "half a claim appeared");
        bucket.go_on().await?;
        let done = space.succeeded("MySQLRestore", "survivor").await?;
        label_nodes(&space, "stillframe.dev/e2e-killed", &Value::Null).await?;
        let attempt = done.pointer("/status/claims/0/attempt").and_then(Value::as_i64);
        ensure!(attempt.is_some_and(|attempt| attempt > 1), "no second try: {done}");
        let restored = Mysql::start(&space, "survivor", 1, 200).await?;
        is_whole(&restored, 0, &mysql, &done).await?;

        let target = new_claim("survivor");
        let labelled = json!({"metadata": {"labels": {"changed": "yes"}},
            "spec": {"runner": {"nodeSelector": {"stillframe.dev/e2e-killed": "yes"}}}});
        space.apply_object(&with(restore("survivor", "first", &target), &labelled)).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = space.get("MySQLRestore", "survivor").await?;
        ensure!(after.get("status") == done.get("status"), "applying it again did something: {after}");
        let refused = with(restore("survivor", "first", &target), &json!({"spec": {"parallelism": 3}}));
        let said = space.refusal(&refused.to_string()).await?;
        ensure!(said.contains("cannot be changed"), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_running_restore_leaves_nothing() -> Result<()> {
    scenario("restore-deleted", |space| async move {
        let (bucket, _mysql) = backed_up(&space).await?;
        let label = "stillframe.dev/e2e-deleted";
        let pod = without_store(&space, &bucket, "unwanted", label, &json!({})).await?;
        label_nodes(&space, label, &json!("yes")).await?;
        // Its store is stopped, so that it gives up after ten seconds, and another one will take its place.
        space.wait("Pod", &pod, "has run", MINUTES, |pod| text(pod, "/status/phase") != "Pending").await?;
        label_nodes(&space, label, &Value::Null).await?;
        let staging = space.list("PersistentVolumeClaim", "stillframe.dev/claim-key").await?;
        let staging = staging.first().context("no staging claim")?;
        let (claim, volume) = (text(staging, "/metadata/name"), text(staging, "/spec/volumeName"));
        space.delete("MySQLRestore", "unwanted").await?;
        space.gone("MySQLRestore", "unwanted", Duration::from_secs(90)).await?;
        space.gone("PersistentVolumeClaim", claim, Duration::from_secs(30)).await?;
        space.gone("PersistentVolume", volume, Duration::from_secs(30)).await?;
        ensure!(space.find("PersistentVolumeClaim", "data-unwanted-0").await?.is_none(), "the claim appeared");
        let left = space.list("Pod", "app.kubernetes.io/name=stillframe").await?;
        ensure!(left.iter().all(|pod| !text(pod, "/metadata/name").starts_with("unwanted")), "a runner is left");
        Ok(())
    })
    .await
}

/// Somebody deletes the claim that a runner fills: it stays for as long as the runner uses it. Gives what the restore said;
/// `None` where the runner was done before.
async fn deleted_while_filled(space: &Space, name: &str, label: &str) -> Result<Option<(String, String)>> {
    let claim = format!("data-{name}-0");
    let target = existing_claim(space, &claim).await?;
    apply_waiting(space, name, label, &target, &json!({"backoffLimit": 0})).await?;
    let pod = waiting_pod(space, name).await?;
    let (stop, yes) = (space.stop_when(&pod, r#"said '"step":"open"'"#), json!("yes"));
    let (stopped, ()) = tokio::try_join!(stop, label_nodes(space, label, &yes))?;
    label_nodes(space, label, &Value::Null).await?;
    let process = match stopped {
        Ok(process) => process,
        Err(why) => {
            say(format!("{name}: {why}"));
            return Ok(None);
        }
    };
    space.delete("PersistentVolumeClaim", &claim).await?;
    space.go_on(&process).await?;
    let said = space.failed("MySQLRestore", name, MINUTES).await?;
    space.gone("PersistentVolumeClaim", &claim, MINUTES).await?;
    Ok(Some(said))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_deleted_while_it_is_filled_is_no_restored_one() -> Result<()> {
    scenario("restore-claim-gone", |space| async move {
        backed_up(&space).await?;
        for name in ["gone", "gone-again", "gone-at-last"] {
            let said = deleted_while_filled(&space, name, "stillframe.dev/e2e-gone").await?;
            let Some((reason, message)) = said else { continue };
            let wanted = format!("data-{name}-0 was deleted while it was filled");
            ensure!(reason == "VolumeLost" && message.contains(&wanted), "{reason}: {message}");
            return Ok(());
        }
        bail!("no runner was met at work")
    })
    .await
}

/// A restore that failed leaves neither claim nor volume nor runner.
async fn left_nothing(space: &Space, name: &str) -> Result<()> {
    until("what was made for it to go", MINUTES, || async {
        let mut left = space.list("PersistentVolumeClaim", "stillframe.dev/claim-key").await?;
        left.append(&mut space.list("Pod", "stillframe.dev/claim-key").await?);
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await?;
    let claim = space.find("PersistentVolumeClaim", &format!("data-{name}-0")).await?;
    ensure!(claim.is_none(), "a claim with nothing in it appeared: {claim:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_tries_of_a_restore_end() -> Result<()> {
    scenario("restore-limits", |space| async move {
        let (bucket, mysql) = backed_up(&space).await?;
        let label = "stillframe.dev/e2e-limits";
        apply_waiting(&space, "late", label, &new_claim("late"), &json!({"activeDeadlineSeconds": 20})).await?;
        let (reason, message) = space.failed("MySQLRestore", "late", MINUTES).await?;
        ensure!(reason == "ActiveDeadlineExceeded" && message.contains("activeDeadlineSeconds"), "{reason}: {message}");
        left_nothing(&space, "late").await?;

        killed(&space, &bucket, "hopeless", label, &json!({"backoffLimit": 0})).await?;
        let (reason, message) = space.failed("MySQLRestore", "hopeless", MINUTES).await?;
        ensure!(reason == "RunnerDied" && message.contains("data-hopeless-0"), "{reason}: {message}");
        left_nothing(&space, "hopeless").await?;
        label_nodes(&space, label, &Value::Null).await?;
        say("late, and killed in its only try: both failed, and left nothing");

        bucket.go_on().await?;
        mysql.brought_back("first").await.map(drop)
    })
    .await
}
