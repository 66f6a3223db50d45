//! Reading a database's pod that the work must be done in: its volumes as an ephemeral container may have them, and how
//! such a container fares. Pure.
//!
//! ```text
//!   the database's mounts ─┬─ a whole volume      ─► at the same place, read-only
//!                          ├─ a part, the data    ─► the whole volume elsewhere; the data directory is below
//!                          └─ another part, files ─► left out: Kubernetes refuses parts, and files are no data
//! ```

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume, VolumeMount};

use crate::api::conditions::reasons;
use crate::operator::pods::{PodRefusal, PodState, covering_mount, ended, waiting};

/// Where a volume is of which the database has a part only.
const WHOLE_VOLUME: &str = "/var/lib/stillframe/volume";
/// What the runner writes to: its own part of the pod's disk, which no volume may cover.
pub(crate) const WORK_DIR: &str = "/var/tmp/stillframe";
/// So many containers a pod may collect: all of them stay in its object, which has an end.
pub(crate) const MOST_CONTAINERS: usize = 100;

/// The database's volumes as an ephemeral container of its own pod has them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inside {
    /// Where they are, read-only.
    pub(crate) mounts: Vec<VolumeMount>,
    /// Where the data directory is then.
    pub(crate) data_dir: String,
    /// Ephemeral containers that the pod has already.
    pub(crate) others: usize,
}

/// Reads what the database's container mounts.
pub(crate) fn read_inside(
    pod: &str,
    spec: &PodSpec,
    container: &Container,
    data_dir: &str,
) -> Result<Inside, PodRefusal> {
    let data = covering_mount(container, data_dir);
    let mut inside = Inside {
        mounts: Vec::new(),
        data_dir: data_dir.to_owned(),
        others: spec.ephemeral_containers.as_ref().map_or(0, Vec::len),
    };
    for mount in container.volume_mounts.iter().flatten() {
        let is_data = data.is_some_and(|data| data.mount_path == mount.mount_path);
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        if !is_data && (volume.is_none_or(holds_files) || covers_work_dir(&mount.mount_path)) {
            continue;
        }
        let part = mount.sub_path.as_deref().filter(|part| !part.is_empty());
        let path = match (part, &mount.sub_path_expr) {
            (None, None) => mount.mount_path.clone(),
            _ if !is_data => continue,
            (Some(part), _) => {
                let below = data_dir.strip_prefix(mount.mount_path.trim_end_matches('/')).unwrap_or_default();
                inside.data_dir = format!("{WHOLE_VOLUME}/{}{below}", part.trim_matches('/'));
                WHOLE_VOLUME.to_owned()
            }
            (None, Some(_)) => {
                let message = format!(
                    "the data of pod {pod} is on a part of volume {} that a subPathExpr names, and an ephemeral \
                     container can mount no part: use subPath, or a claim that a second pod can mount",
                    mount.name
                );
                return Err(PodRefusal { reason: reasons::VOLUME_NOT_SHAREABLE, message });
            }
        };
        let name = mount.name.clone();
        inside.mounts.push(VolumeMount { name, mount_path: path, read_only: Some(true), ..VolumeMount::default() });
    }
    Ok(inside)
}

/// Configuration, Secrets, tokens: nothing that mysqld wrote.
fn holds_files(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
        || volume.image.is_some()
}

fn covers_work_dir(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    WORK_DIR == path || WORK_DIR.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

/// True if a pod has an ephemeral container of this name.
pub(crate) fn has_container(pod: &Pod, name: &str) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    containers.into_iter().any(|container| container.name == name)
}

/// How an ephemeral container fares, and its last words.
pub(crate) fn read_container(pod: &Pod, name: &str) -> (PodState, Option<String>) {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.ephemeral_container_statuses.unwrap_or_default();
    let container = containers.iter().find(|one| one.name == name);
    let state = container.and_then(|container| container.state.as_ref());
    let words = state.and_then(|state| state.terminated.as_ref()?.message.clone());
    let fares = match container.and_then(ended) {
        Some(PodState::Killed { reason, .. }) if reason == reasons::RUNNER_OUT_OF_MEMORY => PodState::Killed {
            reason,
            message:
                "the runner was killed for want of memory, which it shares with the database's pod: give that more"
                    .to_owned(),
        },
        Some(over) => over,
        None if ["Failed", "Succeeded"].contains(&status.phase.as_deref().unwrap_or_default()) => PodState::Killed {
            reason: reasons::RUNNER_LOST,
            message: format!("the database's pod ended: {}", status.reason.unwrap_or_default()),
        },
        None if state.is_some_and(|state| state.running.is_some()) => PodState::Running,
        None => waiting(&[], container),
    };
    (fares, words)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(mounts: &Value) -> Result<Inside, PodRefusal> {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "mysql", "volumeMounts": mounts}],
            "ephemeralContainers": [{"name": "debug"}],
            "volumes": [
                {"name": "data", "emptyDir": {}}, {"name": "redo", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "config", "configMap": {"name": "c"}}, {"name": "tmp", "emptyDir": {}},
            ],
        }))
        .unwrap();
        read_inside("shop-0", &spec, &spec.containers[0], "/var/lib/mysql")
    }

    #[test]
    fn whole_volumes_are_where_the_database_has_them() {
        let inside = read(&json!([
            {"name": "data", "mountPath": "/var/lib/mysql"}, {"name": "redo", "mountPath": "/redo"},
            {"name": "redo", "mountPath": "/logs", "subPath": "logs"}, {"name": "config", "mountPath": "/etc/mysql"},
            {"name": "tmp", "mountPath": "/var/tmp"}, {"name": "lost", "mountPath": "/lost"},
        ]))
        .unwrap();
        let places: Vec<&str> = inside.mounts.iter().map(|mount| mount.mount_path.as_str()).collect();
        assert_eq!(places, ["/var/lib/mysql", "/redo"]);
        assert!(inside.mounts.iter().all(|mount| mount.read_only == Some(true)));
        assert_eq!((inside.data_dir.as_str(), inside.others), ("/var/lib/mysql", 1));
    }

    #[test]
    fn data_on_a_part_of_a_volume_is_found_below_the_whole() {
        let inside = read(&json!([{"name": "data", "mountPath": "/var/lib", "subPath": "a/b/"}])).unwrap();
        assert_eq!(inside.data_dir, "/var/lib/stillframe/volume/a/b/mysql");
        assert_eq!(inside.mounts[0].mount_path, "/var/lib/stillframe/volume");
        assert_eq!(inside.mounts[0].sub_path, None, "the API server refuses it");
        let refusal = read(&json!([{"name": "data", "mountPath": "/var/lib/mysql", "subPathExpr": "$(POD)"}]));
        assert!(refusal.unwrap_err().message.contains("subPathExpr"));
    }

    #[test]
    fn a_container_is_read_by_its_name() {
        let pod = |state: Value| -> Pod {
            serde_json::from_value(json!({
                "spec": {"containers": [], "ephemeralContainers": [{"name": "r"}]},
                "status": {"phase": "Running", "ephemeralContainerStatuses": [
                    {"name": "other", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}},
                    {"name": "r", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]},
            }))
            .unwrap()
        };
        assert!(has_container(&pod(json!({})), "r") && !has_container(&pod(json!({})), "s"));
        assert_eq!(read_container(&pod(json!({"running": {}})), "r").0, PodState::Running);
        let ended = json!({"terminated": {"exitCode": 3, "message": "words"}});
        assert_eq!(read_container(&pod(ended), "r"), (PodState::Exited { code: 3 }, Some("words".to_owned())));
        let killed = read_container(&pod(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})), "r").0;
        assert!(matches!(killed, PodState::Killed { message, .. } if message.contains("the database's pod")));
        let stuck = json!({"waiting": {"reason": "ErrImageNeverPull", "message": "m"}});
        let waits = read_container(&pod(stuck), "r").0;
        assert!(matches!(waits, PodState::Waiting { reason: reasons::POD_STUCK, .. }), "{waits:?}");
        let unseen = read_container(&pod(json!({"running": {}})), "s").0;
        assert!(matches!(unseen, PodState::Waiting { reason: reasons::STARTING, .. }), "{unseen:?}");
    }
}
