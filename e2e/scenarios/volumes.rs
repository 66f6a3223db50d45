//! Databases whose volume no second pod can mount: said at once, in one condition; and backed up from within their own pod
//! if they allow it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::command;
use crate::harness::mysql::BACKUP_USER;
use crate::harness::objects::{MINUTES, backup, gtids, with};
use crate::harness::space::{message_of, text};
use crate::harness::{Bucket, Load, MYSQL_IMAGE, Mysql, Space, fill, say, scenario, until};

/// A server whose data is on a volume of another kind than usual.
async fn server_on(space: &Space, name: &str, volume: &str) -> Result<Mysql> {
    let yaml = fill(
        include_str!("../fixtures/mysql.yaml"),
        &[("NAME", name), ("IMAGE", MYSQL_IMAGE), ("REPLICAS", "1"), ("SERVER_ID_BASE", "100")],
    );
    let yaml = if volume == "ReadWriteOncePod" {
        yaml.replace("ReadWriteOnce]", "ReadWriteOncePod]")
    } else {
        let (pod, _) = yaml.split_once("  volumeClaimTemplates:").unwrap_or((&yaml, ""));
        format!("{pod}      volumes: [{{name: data, emptyDir: {{}}}}]\n")
    };
    space.apply(&yaml).await?;
    let mysql = Mysql { space: space.clone(), name: name.to_owned() };
    mysql.ready(1).await?;
    let grants = command(space, &["grants", "--user", BACKUP_USER, "--host", "%"]).await?;
    ensure!(grants.exit_code == 0, "grants ended with {}: {}", grants.exit_code, grants.log);
    mysql.make_backup_user(0, &grants.log).await?;
    Ok(mysql)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_shared_is_said_at_once() -> Result<()> {
    scenario("volumes", |space| async move {
        let bucket = Bucket::start(&space, "s3").await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let cases =
            [("once", "ReadWriteOncePod", "ReadWriteOncePod"), ("scratch", "emptyDir", "belongs to that pod alone")];
        for (name, volume, word) in cases {
            let mysql = server_on(&space, name, volume).await?;
            space.apply_object(&backup(name, "bucket", &mysql)).await?;
            let told =
                space.reason("MySQLBackup", name, "Succeeded", "VolumeNotShareable", Duration::from_mins(3)).await?;
            let message = message_of(&told, "Succeeded");
            ensure!(message.contains(word) && message.contains("allowEphemeralContainer"), "{name}: {message}");
            ensure!(
                space.list("Pod", "app.kubernetes.io/name=stillframe").await?.is_empty(),
                "a runner was started all the same"
            );
        }
        Ok(())
    })
    .await
}

/// The same server under writes.
async fn loaded_server_on(space: &Space, name: &str, volume: &str) -> Result<(Mysql, Load)> {
    let mysql = server_on(space, name, volume).await?;
    let load = Load::start(&mysql, 0).await?;
    Ok((mysql, load))
}

fn from_within(name: &str, mysql: &Mysql) -> Value {
    with(backup(name, "bucket", mysql), &json!({ "spec": { "source": { "allowEphemeralContainer": true } } }))
}

/// The ephemeral containers of a server's pod, with their states.
async fn containers(space: &Space, mysql: &Mysql) -> Result<Vec<Value>> {
    let pod = space.get("Pod", &mysql.pod(0)).await?;
    let states = pod.pointer("/status/ephemeralContainerStatuses").and_then(Value::as_array).cloned();
    Ok(states.unwrap_or_default())
}

async fn goes_the_whole_way(space: Space, volume: &str) -> Result<()> {
    let (bucket, (mysql, load)) =
        tokio::try_join!(Bucket::start_tls(&space, "s3"), loaded_server_on(&space, "mysql", volume))?;
    let storage = with(
        crate::harness::objects::storage("bucket", &bucket, "shop"),
        &json!({ "spec": { "s3": { "caSecretRef": { "name": "s3-tls", "key": "ca.crt" } } } }),
    );
    space.apply_object(&storage).await?;
    space.condition("BackupStorage", "bucket", "Ready", "True", MINUTES).await?;
    let before = load.committed().await?;
    space.apply_object(&from_within("busy", &mysql)).await?;
    let busy = space.succeeded("MySQLBackup", "busy").await?;
    ensure!(text(&busy, "/status/runner/podName") == mysql.pod(0), "somewhere else: {busy}");
    ensure!(!text(&busy, "/status/runner/containerName").is_empty(), "in no container of its own: {busy}");
    ensure!(load.committed().await? > before, "the writers stood still");
    load.stop().await?;
    space.apply_object(&from_within("calm", &mysql)).await?;
    let calm = space.succeeded("MySQLBackup", "calm").await?;
    say(format!("{volume}: backed up from within the database's pod"));

    for state in containers(&space, &mysql).await? {
        let code = state.pointer("/state/terminated/exitCode").and_then(Value::as_i64);
        ensure!(code == Some(0), "a container did not end well: {state}");
    }
    let pod = space.get("Pod", &mysql.pod(0)).await?;
    let made = pod.pointer("/spec/ephemeralContainers").map(Value::to_string).unwrap_or_default();
    ensure!(
        !made.contains("backup-secret") && !made.contains("e2e-secret-key"),
        "a secret's value is in the pod: {made}"
    );
    ensure!(!made.contains("serviceaccount"), "it has the token of the database's account: {made}");

    let (back, _) = mysql.brought_back("calm").await?;
    ensure!(back.gtid_executed(0).await? == gtids(&calm)?, "other GTIDs than the status says");
    say(format!("{volume}: restored, the same rows"));
    cancelled(&space, &mysql).await?;
    killed(&space, &mysql).await
}

/// Killed while it runs: the server goes on, and another container does the work.
async fn killed(space: &Space, mysql: &Mysql) -> Result<()> {
    let slow = json!({ "spec": { "throttle": { "maxBytesPerSecond": 2_000_000 } } });
    space.apply_object(&with(from_within("survivor", mysql), &slow)).await?;
    space.copying("survivor").await?;
    space.kill9_of(&mysql.pod(0), "stillframe").await?;
    let attempt = |backup: &Value| backup.pointer("/status/runner/attempt").and_then(Value::as_i64) == Some(2);
    let again = space.wait("MySQLBackup", "survivor", "tries again", MINUTES, attempt).await?;
    ensure!(text(&again, "/status/runner/containerName").ends_with("-2"), "{again}");
    space.succeeded("MySQLBackup", "survivor").await?;
    mysql.unlocked(0).await?;
    let pod = space.get("Pod", &mysql.pod(0)).await?;
    let restarts = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_i64);
    ensure!(restarts == Some(0), "the server was restarted: {restarts:?}");
    say("killed: another container took the backup, and the server never noticed");
    Ok(())
}

/// Deleted while it runs: nobody can stop the container, and yet it ends, and its locks and remains go.
async fn cancelled(space: &Space, mysql: &Mysql) -> Result<()> {
    let slow = json!({ "spec": { "throttle": { "maxBytesPerSecond": 65_536 } } });
    space.apply_object(&with(from_within("slow", mysql), &slow)).await?;
    let step = |backup: &Value| text(backup, "/status/progress/step") == "copy";
    let running = space.wait("MySQLBackup", "slow", "copies", MINUTES, step).await?;
    let container = text(&running, "/status/runner/containerName").to_owned();
    space.delete("MySQLBackup", "slow").await?;
    space.gone("MySQLBackup", "slow", MINUTES).await?;
    until("the container to end", Duration::from_mins(3), || async {
        let all = containers(space, mysql).await?;
        let state = all.iter().find(|state| text(state, "/name") == container);
        let ended = state.is_some_and(|state| state.pointer("/state/terminated").is_some());
        Ok(if ended { Ok(()) } else { Err(format!("{state:?}")) })
    })
    .await?;
    mysql.unlocked(0).await?;
    say("called off: it ended, and holds no lock");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_dir_is_backed_up_from_within() -> Result<()> {
    scenario("inside-scratch", |space| goes_the_whole_way(space, "emptyDir")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_one_pod_is_backed_up_from_within() -> Result<()> {
    scenario("inside-once", |space| goes_the_whole_way(space, "ReadWriteOncePod")).await
}
