//! Parts that several kinds share: references, what a runner pod may use, positions, progress.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Names an object of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRef {
    /// The object's name, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

impl ObjectRef {
    /// A reference to `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// Names one key of a Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// The Secret's name, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// The key in the Secret's data.
    #[schemars(schema_with = "schema::data_key")]
    pub key: String,
}

/// The keys that may open a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionSpec {
    /// Secret keys that each hold one 32-byte key (raw, hex or base64). Any one of them opens the backup, and without
    /// one of them nobody can: name two, and keep one of the two outside of this cluster.
    #[schemars(length(min = 1, max = 8))]
    pub key_refs: Vec<SecretKeyRef>,
}

/// What the pod that does the work may use, and where it may run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerSpec {
    /// CPU and memory of the runner. Unset: requests of 100m and 256Mi, and a memory limit of 512Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where redo waits until the store has taken it. Only backups use one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolSpec>,
    /// Labels that the runner's node must have. A backup's runner always runs on the database's node; this can only
    /// narrow that down further.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the runner tolerates, beside those that the database's pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// The PriorityClass of the runner's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub priority_class_name: Option<String>,
}

/// Requests and limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// What the pod is scheduled by, for example cpu: 100m and memory: 256Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantity_map")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantity_map")]
    pub limits: BTreeMap<String, Quantity>,
}

/// The local space in which redo, binary log and files copied under a lock wait for the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpoolSpec {
    /// How much may wait: the redo must fit that the server writes while the store is slow or away. It is on the node's
    /// own disk (an emptyDir of this size) and counts as the pod's ephemeral storage.
    #[serde(default = "SpoolSpec::default_size")]
    #[schemars(schema_with = "schema::quantity")]
    pub size: Quantity,
}

impl SpoolSpec {
    fn default_size() -> Quantity {
        Quantity("4Gi".to_owned())
    }
}

impl Default for SpoolSpec {
    fn default() -> Self {
        Self { size: Self::default_size() }
    }
}

/// The redo that a backup carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LsnRange {
    /// Where recovery starts.
    pub checkpoint: String,
    /// The point in time that the backup is.
    pub end: String,
}

/// A place in the binary log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BinlogPosition {
    /// The file's name, without directory.
    pub file: String,
    /// The byte in it.
    pub position: i64,
}

/// How far the work is. Written at most every ten seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done.
    pub step: String,
    /// Step and share in a few words, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Bytes done in this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes that this step has to do; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// The rate of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// When this step ends if it goes on like that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_completion_time: Option<Time>,
    /// How far the captured redo is behind the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redo_lag_bytes: Option<i64>,
}

impl Progress {
    /// Fills in the words that printed columns show: the step, and how much of it is done where that is known.
    #[must_use]
    pub fn summarised(mut self) -> Self {
        let percent = match (self.bytes_done, self.bytes_total) {
            (Some(done), Some(total)) if total > 0 => Some(done.clamp(0, total).saturating_mul(100) / total),
            _ => None,
        };
        self.summary = Some(match percent {
            Some(percent) => format!("{} {percent}%", self.step),
            None => self.step.clone(),
        });
        self
    }
}

/// Who does the work at the moment, or did it last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerStatus {
    /// The runner's pod.
    pub pod_name: String,
    /// That pod's uid: a pod of the same name with another uid is another runner.
    #[serde(rename = "podUID", skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The node it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The ephemeral container that does the work, where the pod is the database's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The number of the try, from 1.
    pub attempt: i32,
}

/// The GTID set as a status holds it: cut to what an object may carry. The backup's manifest has it whole.
pub fn capped_gtid_set(full: &str) -> String {
    const CAP: usize = 64 << 10;
    const MARK: &str = ",...";
    if full.len() <= CAP {
        return full.to_owned();
    }
    let room = full.get(..CAP - MARK.len()).unwrap_or_default();
    // Cut between two sources, so that what is left is a GTID set followed by the mark.
    let end = room.rfind(',').unwrap_or(0);
    format!("{}{MARK}", full.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_the_share_where_it_is_known() {
        let progress = |done, total| {
            Progress { step: "copy".into(), bytes_done: done, bytes_total: total, ..Progress::default() }
                .summarised()
                .summary
                .unwrap()
        };
        assert_eq!(progress(Some(1), Some(3)), "copy 33%");
        assert_eq!(progress(Some(5), Some(3)), "copy 100%");
        assert_eq!(progress(Some(5), None), "copy");
        assert_eq!(progress(Some(0), Some(0)), "copy");
        assert_eq!(progress(Some(i64::MAX), Some(i64::MAX)), "copy 1%", "saturates instead of overflowing");
    }

    #[test]
    fn a_large_gtid_set_is_cut_between_sources() {
        let one = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";
        assert_eq!(capped_gtid_set(one), one);
        let many = vec![one; 5000].join(",");
        let cut = capped_gtid_set(&many);
        assert!(cut.len() <= 64 << 10);
        assert!(cut.ends_with(":1-5,..."), "{}", &cut[cut.len() - 60..]);
    }
}
