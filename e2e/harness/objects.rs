//! Stillframe's own objects, as a user writes them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::bucket::{BUCKET, Bucket};
use super::mysql::Mysql;
use super::space::{Space, condition_of, text};
use super::until;

/// How long a backup or restore of the small databases here may take on a busy machine.
pub const MINUTES: Duration = Duration::from_mins(5);

/// A `BackupStorage` in a bucket.
pub fn storage(name: &str, bucket: &Bucket, prefix: &str) -> Value {
    json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "BackupStorage", "metadata": { "name": name },
        "spec": { "s3": {
            "bucket": BUCKET, "prefix": prefix, "endpoint": bucket.endpoint(), "pathStyle": true,
            "credentials": {
                "accessKeyIdRef": { "name": bucket.secret(), "key": "accessKeyId" },
                "secretAccessKeyRef": { "name": bucket.secret(), "key": "secretAccessKey" },
            },
        } },
    })
}

/// The spec of a backup of `mysql` into a storage.
pub fn backup_spec(storage: &str, mysql: &Mysql) -> Value {
    json!({
        "storageRef": { "name": storage },
        "source": {
            "selector": { "matchLabels": { "app": mysql.name } },
            "credentials": { "secretRef": { "name": format!("{}-backup-user", mysql.name) } },
        },
    })
}

/// A `MySQLBackup`.
pub fn backup(name: &str, storage: &str, mysql: &Mysql) -> Value {
    json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": { "name": name },
        "spec": backup_spec(storage, mysql),
    })
}

/// A `MySQLRestore` of a `MySQLBackup`.
pub fn restore(name: &str, backup: &str, target: &Value) -> Value {
    json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLRestore", "metadata": { "name": name },
        "spec": { "source": { "backupRef": { "name": backup } }, "target": target },
    })
}

/// The same object with something in it changed, by a merge patch.
#[must_use]
pub fn with(mut object: Value, patch: &Value) -> Value {
    merge(&mut object, patch);
    object
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

impl Space {
    /// Applies an object.
    pub async fn apply_object(&self, object: &Value) -> Result<()> {
        self.apply(&object.to_string()).await?;
        Ok(())
    }

    /// Applies a storage and waits until it is ready.
    pub async fn ready_storage(&self, name: &str, bucket: &Bucket, prefix: &str) -> Result<()> {
        self.apply_object(&storage(name, bucket, prefix)).await?;
        self.condition("BackupStorage", name, "Ready", "True", MINUTES).await?;
        Ok(())
    }

    /// Waits until a backup or restore has ended, and returns it.
    pub async fn ended(&self, kind: &str, name: &str, within: Duration) -> Result<Value> {
        self.wait(kind, name, "has ended", within, |object| {
            condition_of(object, "Succeeded").is_some_and(|condition| text(condition, "/status") != "Unknown")
        })
        .await
    }

    /// Waits until a backup or restore has succeeded, and returns it.
    pub async fn succeeded(&self, kind: &str, name: &str) -> Result<Value> {
        let object = self.ended(kind, name, MINUTES).await?;
        let condition = condition_of(&object, "Succeeded").context("no condition")?;
        ensure!(text(condition, "/status") == "True", "{kind} {name} failed: {condition}");
        Ok(object)
    }

    /// Waits until a backup or restore has failed, and returns the reason and message.
    pub async fn failed(&self, kind: &str, name: &str, within: Duration) -> Result<(String, String)> {
        let object = self.ended(kind, name, within).await?;
        let condition = condition_of(&object, "Succeeded").context("no condition")?;
        ensure!(text(condition, "/status") == "False", "{kind} {name} should have failed: {condition}");
        Ok((text(condition, "/reason").to_owned(), text(condition, "/message").to_owned()))
    }

    /// Waits until a condition has a reason.
    pub async fn reason(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        reason: &str,
        within: Duration,
    ) -> Result<Value> {
        self.wait(kind, name, &format!("{condition} because of {reason}"), within, |object| {
            condition_of(object, condition).is_some_and(|found| text(found, "/reason") == reason)
        })
        .await
    }

    /// Waits until a backup has a runner, and returns it with the backup.
    pub async fn runner(&self, name: &str) -> Result<(String, Value)> {
        let has_runner = |backup: &Value| !text(backup, "/status/runner/podName").is_empty();
        let backup = self.wait("MySQLBackup", name, "has a runner", MINUTES, has_runner).await?;
        Ok((text(&backup, "/status/runner/podName").to_owned(), backup))
    }

    /// Waits until a runner's own log has a step. The status would tell it up to ten seconds later, or not at all while
    /// somebody stops the operator.
    pub async fn in_step(&self, pod: &str, container: Option<&str>, step: &str) -> Result<()> {
        until(&format!("{pod} to be in step {step}"), MINUTES, || async {
            let log = self.logs(pod, container).await.unwrap_or_default();
            Ok(if log.contains(&format!("\"step\":\"{step}\"")) { Ok(()) } else { Err(log) })
        })
        .await
    }

    /// Waits until a backup's runner copies, and returns the pod's name.
    pub async fn copying(&self, name: &str) -> Result<String> {
        let (pod, backup) = self.runner(name).await?;
        let container = Some(text(&backup, "/status/runner/containerName")).filter(|name| !name.is_empty());
        self.in_step(&pod, container, "copy").await?;
        Ok(pod)
    }
}

/// The GTID set in the status of a backup or restore.
pub fn gtids(object: &Value) -> Result<String> {
    let gtids = text(object, "/status/gtidExecuted").replace('\n', "");
    ensure!(!gtids.is_empty(), "no GTID set in the status of {}", text(object, "/metadata/name"));
    Ok(gtids)
}
