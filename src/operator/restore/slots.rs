//! The claims that a restore is to fill, and whether each may be begun. Pure.
//!
//! ```text
//!   existingClaim ─► Existing   filled where it is
//!   newClaim, newCluster ─► New   a staging claim is filled; the claim appears when it is complete
//!   dataSource ─► Served        a staging claim is filled; its volume goes to the claim that waits for it
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use xxhash_rust::xxh3::xxh3_64;

use crate::api::GROUP;
use crate::api::conditions::reasons;
use crate::api::restore::{ClaimTemplate, RestoreTarget};
use crate::api::restore_status::ClaimStatus;

use super::build::RESTORED_BY;
use super::gather::World;

/// Where the scheduler writes the node that it chose for a claim's first pod.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// A word of the engine's for a directory that a server uses, or a pod may.
const TARGET_IN_USE: &str = "TargetInUse";

/// One claim that is to be filled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    /// The claim's name.
    pub(super) name: String,
    /// What the names of everything made for it carry.
    pub(super) key: String,
    /// How it is filled.
    pub(super) kind: Kind,
}

/// How a claim is filled.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Where it is.
    Existing {
        /// A database in it is replaced.
        overwrite: bool,
    },
    /// It is made when its volume is complete.
    New(ClaimTemplate),
    /// It waits for a volume.
    Served {
        /// Its uid.
        uid: String,
    },
}

impl Slot {
    fn new(name: String, kind: Kind) -> Self {
        let of = match &kind {
            Kind::Served { uid } => uid.as_str(),
            Kind::Existing { .. } | Kind::New(_) => name.as_str(),
        };
        Self { key: format!("{:08x}", xxh3_64(of.as_bytes()) >> 32), name, kind }
    }

    /// The work's name, in names of pods and keys of reports.
    pub(super) fn work(&self) -> String {
        format!("fill-{}", self.key)
    }

    /// The name of its staging claim.
    pub(super) fn staging_name(&self, run: &str) -> String {
        format!("{run}-{}", self.key)
    }

    /// It is filled by way of a staging claim.
    pub(super) fn is_staged(&self) -> bool {
        !matches!(self.kind, Kind::Existing { .. })
    }

    /// The claim's uid, where it is that claim and no other one of its name.
    pub(super) fn claim_uid(&self) -> Option<&str> {
        match &self.kind {
            Kind::Served { uid } => Some(uid),
            Kind::Existing { .. } | Kind::New(_) => None,
        }
    }

    /// What the status knows of it.
    pub(super) fn known(&self, claims: &[ClaimStatus]) -> ClaimStatus {
        let same = |known: &&ClaimStatus| known.name == self.name && known.claim_uid.as_deref() == self.claim_uid();
        let fresh = || ClaimStatus::new(&self.name, self.claim_uid().map(str::to_owned));
        claims.iter().find(same).cloned().unwrap_or_else(fresh)
    }
}

/// All claims that a restore is to fill.
pub(super) fn wanted(
    target: &RestoreTarget,
    restore: &str,
    namespace: &str,
    claims: &BTreeMap<String, PersistentVolumeClaim>,
) -> Vec<Slot> {
    if let Some(existing) = &target.existing_claim {
        return vec![Slot::new(existing.name.clone(), Kind::Existing { overwrite: existing.overwrite })];
    }
    if let Some(new) = &target.new_claim {
        return vec![Slot::new(new.name.clone(), Kind::New(new.template.clone()))];
    }
    if let Some(cluster) = &target.new_cluster {
        let slot = |name| Slot::new(name, Kind::New(cluster.template.clone()));
        return cluster.claim_names().into_iter().map(slot).collect();
    }
    let served = claims.values().filter(|claim| source_of(claim, namespace) == Some(restore));
    let slot = |claim: &PersistentVolumeClaim| {
        Some(Slot::new(claim.name_any(), Kind::Served { uid: claim.metadata.uid.clone()? }))
    };
    served.filter(|claim| claim.metadata.deletion_timestamp.is_none()).filter_map(slot).collect()
}

/// The MySQLRestore of this namespace that a claim names as its data source.
pub(super) fn source_of<'a>(claim: &'a PersistentVolumeClaim, namespace: &str) -> Option<&'a str> {
    let source = claim.spec.as_ref()?.data_source_ref.as_ref()?;
    let here = source.namespace.as_deref().is_none_or(|named| named == namespace);
    let ours = source.api_group.as_deref() == Some(GROUP) && source.kind == "MySQLRestore";
    (here && ours).then_some(source.name.as_str())
}

/// Whether a claim may be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// Yes.
    Go,
    /// It is filled already, by this restore.
    Done,
    /// Not yet.
    Wait { reason: &'static str, message: String },
    /// Not as it is.
    Never { reason: &'static str, message: String },
}

/// Looks at a claim before its first byte. `uid` is the restore's.
pub(super) fn may_start(slot: &Slot, world: &World, uid: &str) -> Start {
    let claim = world.claims.get(&slot.name);
    if claim.is_some_and(|claim| claim.annotations().get(RESTORED_BY).is_some_and(|by| by == uid)) {
        return Start::Done;
    }
    match (&slot.kind, claim) {
        (Kind::Existing { .. }, None) => wait(
            reasons::WAITING_FOR_REFERENCE,
            format!("there is no PersistentVolumeClaim {} in this namespace", slot.name),
        ),
        (Kind::Existing { .. }, Some(claim)) => existing(slot, claim, world),
        (Kind::New(_), None) => Start::Go,
        (Kind::New(_), Some(claim)) if claim.metadata.deletion_timestamp.is_some() => {
            wait(reasons::TARGET_EXISTS, format!("the PersistentVolumeClaim {} is still being deleted", slot.name))
        }
        (Kind::New(_), Some(_)) => never(
            reasons::TARGET_EXISTS,
            format!(
                "there is a PersistentVolumeClaim {} already, and a restore makes its claims itself: restore under \
                 another name, or delete that claim and create this MySQLRestore again",
                slot.name
            ),
        ),
        (Kind::Served { .. }, None) => wait(reasons::WAITING_FOR_REFERENCE, format!("claim {} is gone", slot.name)),
        (Kind::Served { .. }, Some(claim)) => served(slot, claim, world),
    }
}

fn existing(slot: &Slot, claim: &PersistentVolumeClaim, world: &World) -> Start {
    if claim.metadata.deletion_timestamp.is_some() {
        return wait(TARGET_IN_USE, format!("the PersistentVolumeClaim {} is being deleted", slot.name));
    }
    if is_block(claim) {
        return never(reasons::CLAIM_UNUSABLE, format!("claim {} is a block device and holds no files", slot.name));
    }
    match world.users.get(&slot.name).and_then(|pods| pods.first()) {
        Some(pod) => wait(
            TARGET_IN_USE,
            format!(
                "pod {pod} uses the PersistentVolumeClaim {}: stop it, for a StatefulSet by scaling it to 0",
                slot.name
            ),
        ),
        None => Start::Go,
    }
}

fn served(slot: &Slot, claim: &PersistentVolumeClaim, world: &World) -> Start {
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(volume) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        let filled = world.volumes.get(volume).is_some_and(|volume| volume.annotations().contains_key(RESTORED_BY));
        return if filled { Start::Done } else { provisioned_empty(slot, volume) };
    }
    if is_block(claim) {
        return never(reasons::CLAIM_UNUSABLE, format!("claim {} is a block device and holds no files", slot.name));
    }
    let class = spec.storage_class_name.as_deref().unwrap_or_default();
    match world.delayed.get(class) {
        Some(Some(true)) if !claim.annotations().contains_key(SELECTED_NODE) => wait(
            reasons::WAITING_FOR_CONSUMER,
            format!("claim {} waits for the first pod that uses it, as its StorageClass {class} wants it", slot.name),
        ),
        Some(Some(_)) => Start::Go,
        Some(None) | None => wait(
            reasons::WAITING_FOR_REFERENCE,
            format!("claim {} has no StorageClass that is there (\"{class}\")", slot.name),
        ),
    }
}

fn provisioned_empty(slot: &Slot, volume: &str) -> Start {
    never(
        reasons::PROVISIONED_EMPTY,
        format!(
            "claim {} got the volume {volume} from its provisioner, EMPTY: that provisioner ignores dataSourceRef. Do \
             not start a server on it. Use a StorageClass of a CSI driver, or a MySQLRestore with target.newClaim or \
             target.newCluster, which need nothing from the provisioner",
            slot.name
        ),
    )
}

fn is_block(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block")
}

fn wait(reason: &'static str, message: String) -> Start {
    Start::Wait { reason, message }
}

fn never(reason: &'static str, message: String) -> Start {
    Start::Never { reason, message }
}

/// Why a new cluster's claims cannot be made: its StatefulSet would make its own, empty.
pub(super) fn stateful_set_in_the_way(target: &RestoreTarget, world: &World) -> Option<String> {
    let cluster = target.new_cluster.as_ref()?;
    let set = world.stateful_set.as_ref()?;
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    (replicas > 0).then(|| {
        format!(
            "there is a StatefulSet {} already, which makes claims of its own, empty: delete it or scale it to 0, \
             delete its claims, and create this MySQLRestore again; or let its claims name a MySQLRestore with \
             target.dataSource",
            cluster.stateful_set_name
        )
    })
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
