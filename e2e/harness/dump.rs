//! What Kubernetes knows about a scenario that failed.

use anyhow::Result;
use serde_json::Value;

use super::space::{Space, text};

impl Space {
    /// Prints the namespace's objects, events and logs. What cannot be had is left out: a failure is being reported.
    pub async fn dump(&self) {
        eprintln!("---- namespace {}", self.name);
        for kind in ["BackupStorage", "MySQLBackup", "MySQLRestore", "CronBackup", "PersistentVolumeClaim"] {
            for object in self.list(kind, "").await.unwrap_or_default() {
                let status = object.get("status").map(Value::to_string).unwrap_or_default();
                eprintln!("{kind} {}: {status}", text(&object, "/metadata/name"));
            }
        }
        for event in self.list("Event", "").await.unwrap_or_default() {
            let about = (text(&event, "/involvedObject/kind"), text(&event, "/involvedObject/name"));
            eprintln!("event {} {}: {} {}", about.0, about.1, text(&event, "/reason"), text(&event, "/message"));
        }
        for pod in self.list("Pod", "").await.unwrap_or_default() {
            self.dump_pod(&pod).await;
        }
        let operator = super::operator::system(self);
        for pod in operator.list("Pod", "").await.unwrap_or_default() {
            operator.dump_pod(&pod).await;
        }
        eprintln!("---- end of namespace {}", self.name);
    }

    async fn dump_pod(&self, pod: &Value) {
        let name = text(pod, "/metadata/name");
        eprintln!(
            "pod {name} {}: {}",
            text(pod, "/status/phase"),
            pod.pointer("/status/containerStatuses").unwrap_or(&Value::Null)
        );
        let log: Result<String> = self.logs(name, None).await;
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(40)) {
            eprintln!("  {line}");
        }
    }
}
