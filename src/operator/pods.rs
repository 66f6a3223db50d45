//! Reading pods: what a database's pod is made of, and how a runner's pod fares. Pure functions over what Kubernetes
//! says.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, PersistentVolumeClaim, Pod, PodCondition, PodSpec, SELinuxOptions, Toleration, Volume,
    VolumeMount,
};

use crate::api::conditions::reasons;
use crate::operator::inside::{Inside, read_inside};

/// The name of the container that does the work in a runner's pod.
pub(crate) const RUNNER_CONTAINER: &str = "runner";

/// What of a database's pod a runner beside it needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DatabasePod {
    /// Its name.
    pub(crate) name: String,
    /// Its uid: a pod of the same name may come after it.
    pub(crate) object_uid: Option<String>,
    /// Its address.
    pub(crate) ip: String,
    /// Its node.
    pub(crate) node: String,
    /// Volumes that a second pod can mount, with the places where the database's container has them.
    pub(crate) volumes: Vec<Volume>,
    /// Those places, read-only.
    pub(crate) mounts: Vec<VolumeMount>,
    /// Its volumes as a container of the pod itself has them, where no second pod can.
    pub(crate) inside: Option<Inside>,
    /// What it tolerates, and so must the runner.
    pub(crate) tolerations: Vec<Toleration>,
    /// Who owns the files, if the pod says so.
    pub(crate) uid: Option<i64>,
    /// The group that goes with it.
    pub(crate) gid: Option<i64>,
    /// Groups that may read the files.
    pub(crate) groups: Vec<i64>,
    /// The files' SELinux label.
    pub(crate) selinux: Option<SELinuxOptions>,
}

/// Why a pod's data cannot be reached from a second pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRefusal {
    /// One of [`reasons`].
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// True if the pod runs, is ready and is not on its way out.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    status.phase.as_deref() == Some("Running")
        && pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Reads a database's pod for a second one beside it. `claims` are the namespace's, by name.
pub(crate) fn read_database_pod(
    pod: &Pod,
    container: Option<&str>,
    data_dir: &str,
    claims: &BTreeMap<String, PersistentVolumeClaim>,
) -> Result<DatabasePod, PodRefusal> {
    read_pod(pod, container, data_dir, |name, spec, container| {
        let (volumes, mounts) = shared_volumes(name, spec, container, data_dir, claims)?;
        Ok((volumes, mounts, None))
    })
}

/// Reads a database's pod for a container that is put into it.
pub(crate) fn read_own_pod(pod: &Pod, container: Option<&str>, data_dir: &str) -> Result<DatabasePod, PodRefusal> {
    read_pod(pod, container, data_dir, |name, spec, container| {
        Ok((vec![], vec![], Some(read_inside(name, spec, container, data_dir)?)))
    })
}

type Volumes = (Vec<Volume>, Vec<VolumeMount>, Option<Inside>);

fn read_pod(
    pod: &Pod,
    container: Option<&str>,
    data_dir: &str,
    volumes: impl FnOnce(&str, &PodSpec, &Container) -> Result<Volumes, PodRefusal>,
) -> Result<DatabasePod, PodRefusal> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let no_source = |message: String| PodRefusal { reason: reasons::NO_SOURCE_POD, message };
    let spec = pod.spec.as_ref().ok_or_else(|| no_source(format!("pod {name} has no spec")))?;
    let container = find_container(spec, container, data_dir).map_err(|why| no_source(format!("pod {name} {why}")))?;
    let (volumes, mounts, inside) = volumes(&name, spec, container)?;
    let node = spec.node_name.clone().ok_or_else(|| no_source(format!("pod {name} is on no node")))?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let ip = ip.ok_or_else(|| no_source(format!("pod {name} has no address")))?;
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let of_container = container.security_context.clone().unwrap_or_default();
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group);
    groups.sort_unstable();
    groups.dedup();
    Ok(DatabasePod {
        name,
        object_uid: pod.metadata.uid.clone(),
        ip,
        node,
        volumes,
        mounts,
        inside,
        tolerations: spec.tolerations.clone().unwrap_or_default(),
        uid: of_container.run_as_user.or(of_pod.run_as_user).filter(|&uid| uid > 0),
        gid: of_container.run_as_group.or(of_pod.run_as_group).filter(|&gid| gid > 0),
        groups,
        selinux: of_container.se_linux_options.or(of_pod.se_linux_options),
    })
}

fn find_container<'a>(spec: &'a PodSpec, name: Option<&str>, data_dir: &str) -> Result<&'a Container, String> {
    if let Some(name) = name {
        let found = spec.containers.iter().find(|container| container.name == name);
        return found.ok_or_else(|| format!("has no container {name}: set spec.source.container to one of its own"));
    }
    let mounts = |container: &&Container| covering_mount(container, data_dir).is_some();
    let found: Vec<&Container> = spec.containers.iter().filter(mounts).collect();
    let named = |container: &&&Container| ["mysql", "mysqld"].contains(&container.name.as_str());
    match found.as_slice() {
        [] => Err(format!("has no container that mounts {data_dir}: set spec.source.dataDir to where the data is")),
        [one] => Ok(one),
        several => several.iter().find(named).copied().ok_or_else(|| {
            format!("has several containers that mount {data_dir}: set spec.source.container to the one of mysqld")
        }),
    }
}

/// The mount that holds a path: the one with the longest matching place.
pub(super) fn covering_mount<'a>(container: &'a Container, path: &str) -> Option<&'a VolumeMount> {
    let covers = |mount: &&VolumeMount| {
        let place = mount.mount_path.trim_end_matches('/');
        path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
    };
    let mounts = container.volume_mounts.iter().flatten();
    mounts.filter(covers).max_by_key(|mount| mount.mount_path.trim_end_matches('/').len())
}

fn shared_volumes(
    pod: &str,
    spec: &PodSpec,
    container: &Container,
    data_dir: &str,
    claims: &BTreeMap<String, PersistentVolumeClaim>,
) -> Result<(Vec<Volume>, Vec<VolumeMount>), PodRefusal> {
    let data = covering_mount(container, data_dir);
    let (mut volumes, mut mounts): (Vec<Volume>, Vec<VolumeMount>) = (Vec::new(), Vec::new());
    for mount in container.volume_mounts.iter().flatten() {
        let Some(volume) = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name) else { continue };
        let is_data = data.is_some_and(|data| data.mount_path == mount.mount_path);
        let shared = match share(pod, volume, claims) {
            Ok(Some(volume)) => volume,
            Ok(None) if !is_data => continue,
            Ok(None) => {
                let message = format!(
                    "the data of pod {pod} is on volume {}, which belongs to that pod alone: use a PersistentVolumeClaim, \
                     or set spec.source.allowEphemeralContainer",
                    volume.name
                );
                return Err(PodRefusal { reason: reasons::VOLUME_NOT_SHAREABLE, message });
            }
            Err(message) => return Err(PodRefusal { reason: reasons::VOLUME_NOT_SHAREABLE, message }),
        };
        if !volumes.iter().any(|known| known.name == shared.name) {
            volumes.push(shared);
        }
        // Everything that says where the bytes are stays; what the runner may do with them does not.
        mounts.push(VolumeMount {
            read_only: Some(true),
            mount_propagation: None,
            recursive_read_only: None,
            ..mount.clone()
        });
    }
    Ok((volumes, mounts))
}

/// The volume as a second pod mounts it; `None` for what a second pod cannot have or does not need.
fn share(
    pod: &str,
    volume: &Volume,
    claims: &BTreeMap<String, PersistentVolumeClaim>,
) -> Result<Option<Volume>, String> {
    let claim_name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        // Kubernetes makes the claim of such a volume under this name.
        (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
        (None, None) => None,
    };
    let Some(claim_name) = claim_name else {
        let own = volume.empty_dir.is_some()
            || volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
            || volume.image.is_some();
        return Ok((!own).then(|| volume.clone()));
    };
    let claim = claims.get(&claim_name);
    let modes = claim.and_then(|claim| claim.spec.as_ref()?.access_modes.as_deref()).unwrap_or_default();
    if modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        return Err(format!(
            "claim {claim_name} of pod {pod} is ReadWriteOncePod, so that no second pod can mount it: use ReadWriteOnce, \
             or set spec.source.allowEphemeralContainer"
        ));
    }
    let source = k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource {
        claim_name,
        // Read-only at the mount, not here: a driver may not attach one volume both ways to one node.
        read_only: None,
    };
    Ok(Some(Volume { name: volume.name.clone(), persistent_volume_claim: Some(source), ..Volume::default() }))
}

/// Whether a runner on a node can have the claim that a storage is on. What only the scheduler knows (where a volume is
/// that nobody uses now) it says itself, by a pod that cannot be scheduled.
pub(crate) fn check_store_claim(
    name: &str,
    claim: Option<&PersistentVolumeClaim>,
    users: &[Pod],
    node: &str,
) -> Result<(), PodRefusal> {
    let Some(claim) = claim else {
        let message = format!("the storage's PersistentVolumeClaim {name} is not there");
        return Err(PodRefusal { reason: reasons::WAITING_FOR_REFERENCE, message });
    };
    let not_ready = |message: String| Err(PodRefusal { reason: reasons::STORAGE_NOT_READY, message });
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let has = |wanted: &str| modes.iter().any(|mode| mode == wanted);
    if has("ReadWriteOncePod") {
        return not_ready(format!(
            "the storage's claim {name} is ReadWriteOncePod, and a runner needs it while others look into it: use \
             ReadWriteMany, or ReadWriteOnce on the database's node"
        ));
    }
    if has("ReadWriteMany") || !has("ReadWriteOnce") {
        return Ok(());
    }
    let elsewhere = users.iter().find_map(|pod| {
        let ended = ["Succeeded", "Failed"].contains(&pod.status.as_ref()?.phase.as_deref()?);
        let at = pod.spec.as_ref()?.node_name.as_deref().filter(|at| *at != node && !ended)?;
        Some((pod.metadata.name.clone().unwrap_or_default(), at.to_owned()))
    });
    match elsewhere {
        Some((user, at)) => not_ready(format!(
            "the storage's claim {name} is ReadWriteOnce and pod {user} uses it on node {at}, while the database is on \
             node {node}: use ReadWriteMany, or let them be on one node"
        )),
        None => Ok(()),
    }
}

/// How a runner's pod fares, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodState {
    /// It does not run yet, for this reason.
    Waiting { reason: &'static str, message: String },
    /// It runs.
    Running,
    /// It ended with this code.
    Exited { code: i32 },
    /// It was ended by something else.
    Killed { reason: &'static str, message: String },
}

/// Reads a runner's pod.
pub(crate) fn read_runner_pod(pod: &Pod) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    // A mesh may have put one of its own beside it.
    let container = containers.iter().find(|one| one.name == RUNNER_CONTAINER).or(containers.first());
    let text = status.message.clone().unwrap_or_default();
    if status.reason.as_deref() == Some("Evicted") {
        return PodState::Killed {
            reason: reasons::RUNNER_EVICTED,
            message: format!("the runner was evicted: {text}"),
        };
    }
    if let Some(end) = container.and_then(ended) {
        return told_to_go(&status.conditions.unwrap_or_default(), &end).unwrap_or(end);
    }
    match status.phase.as_deref() {
        Some("Running") => PodState::Running,
        Some("Failed" | "Succeeded") => {
            let why = status.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
            PodState::Killed { reason: reasons::RUNNER_DIED, message: format!("the runner's pod ended: {why} {text}") }
        }
        _ => waiting(&status.conditions.unwrap_or_default(), container),
    }
}

/// What ended a runner that was told to go: a drained node, a pod that matters more, a taint. It looks as one that failed.
fn told_to_go(conditions: &[PodCondition], end: &PodState) -> Option<PodState> {
    let told = conditions.iter().find(|one| one.type_ == "DisruptionTarget" && one.status == "True")?;
    let own =
        matches!(end, PodState::Exited { code: 0 } | PodState::Killed { reason: reasons::RUNNER_OUT_OF_MEMORY, .. });
    let why = told.message.clone().or_else(|| told.reason.clone()).unwrap_or_default();
    let message = format!("the runner was evicted: {why}");
    (!own).then_some(PodState::Killed { reason: reasons::RUNNER_EVICTED, message })
}

/// How a container ended, if it did.
pub(super) fn ended(container: &ContainerStatus) -> Option<PodState> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    if ended.reason.as_deref() == Some("OOMKilled") {
        let message = "the runner was killed for using more memory than its limit: raise spec.runner.resources.limits";
        return Some(PodState::Killed { reason: reasons::RUNNER_OUT_OF_MEMORY, message: message.to_owned() });
    }
    if ended.exit_code > 128 || ended.signal.is_some() {
        let message = format!("the runner was killed (exit code {})", ended.exit_code);
        return Some(PodState::Killed { reason: reasons::RUNNER_DIED, message });
    }
    Some(PodState::Exited { code: ended.exit_code })
}

/// Why a pod or one of its containers does not run yet.
pub(super) fn waiting(conditions: &[PodCondition], container: Option<&ContainerStatus>) -> PodState {
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    if let Some(condition) = scheduled.filter(|condition| condition.status == "False") {
        let message = condition.message.clone().unwrap_or_default();
        return PodState::Waiting {
            reason: reasons::UNSCHEDULABLE,
            message: format!("the runner cannot be scheduled: {message}"),
        };
    }
    let waits = container.and_then(|container| container.state.as_ref()?.waiting.as_ref());
    match waits.and_then(|waits| Some((waits.reason.as_deref()?, waits.message.clone().unwrap_or_default()))) {
        Some((reason, message)) if reason != "ContainerCreating" && reason != "PodInitializing" => PodState::Waiting {
            reason: reasons::POD_STUCK,
            message: format!("the runner does not start: {reason}: {message}"),
        },
        _ => PodState::Waiting { reason: reasons::STARTING, message: "the runner is starting".to_owned() },
    }
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
