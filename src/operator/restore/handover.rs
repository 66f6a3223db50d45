//! How a filled volume comes from its staging claim to the claim that it is for. Pure: from what the cluster shows to
//! the next step, so that a crash between any two is no matter, nor are two operators that are alive for a moment.
//!
//! ```text
//!   staging ◄─ volume           filled, the runner's pod gone
//!   staging    volume ─► claim  one patch: kept whatever happens, promised to the claim, what it was written down
//!              volume ─► claim  staging deleted: nothing is lost by that any more
//!              volume ◄► claim  made (New) or there already (Served), and bound by Kubernetes
//!              volume ◄► claim  reclaimed again as its class wanted it
//! ```

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::build::{RECLAIM, RESTORED_BY};
use super::slots::{Kind, Slot};

/// What the cluster shows of one hand-over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    /// What is handed over.
    pub(super) slot: &'a Slot,
    /// The restore's uid.
    pub(super) uid: &'a str,
    /// A pod of the runner's is still there.
    pub(super) pod: bool,
    /// The staging claim.
    pub(super) staging: Option<&'a PersistentVolumeClaim>,
    /// The volume.
    pub(super) volume: Option<&'a PersistentVolume>,
    /// The claim that it is for.
    pub(super) claim: Option<&'a PersistentVolumeClaim>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The runner's pod must go first.
    RemovePod,
    /// Keep the volume and promise it to the claim.
    Promise,
    /// Delete the staging claim.
    RemoveStaging,
    /// Make the claim.
    MakeClaim,
    /// Kubernetes binds them.
    Wait,
    /// Reclaim it again as before.
    GiveBack,
    /// All done.
    Done,
    /// The volume is gone: it must be filled anew.
    Lost(String),
    /// The claim cannot have it.
    Blocked(String),
}

/// The next step.
pub(super) fn next(scene: &Scene<'_>) -> Step {
    if scene.pod {
        return Step::RemovePod;
    }
    let Some(volume) = scene.volume else {
        return Step::Lost("the volume that was filled is gone".to_owned());
    };
    if !is_promised(volume, scene) {
        return match scene.staging {
            Some(staging) if holds(volume, staging) => Step::Promise,
            _ => Step::Lost(format!("volume {} is no longer its staging claim's", volume.name_any())),
        };
    }
    if scene.staging.is_some_and(|staging| staging.metadata.deletion_timestamp.is_none()) {
        return Step::RemoveStaging;
    }
    let Some(claim) = scene.claim else {
        return match scene.slot.kind {
            Kind::New(_) => Step::MakeClaim,
            _ => Step::Blocked(format!("claim {} was deleted", scene.slot.name)),
        };
    };
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let name = volume.name_any();
    match (&scene.slot.kind, named) {
        (Kind::New(_), _) if !is_made_here(claim, scene.uid) => Step::Blocked(format!(
            "somebody else made a PersistentVolumeClaim {} while its volume was being filled",
            scene.slot.name
        )),
        (_, named) if !named.is_empty() && named != name => {
            Step::Blocked(format!("claim {} has another volume, {named}", scene.slot.name))
        }
        _ if !is_bound(claim, volume) => Step::Wait,
        _ if volume.annotations().contains_key(RECLAIM) => Step::GiveBack,
        _ => Step::Done,
    }
}

/// The claim was made by this restore.
pub(super) fn is_made_here(claim: &PersistentVolumeClaim, uid: &str) -> bool {
    claim.annotations().get(RESTORED_BY).is_some_and(|by| by == uid)
}

fn is_promised(volume: &PersistentVolume, scene: &Scene<'_>) -> bool {
    let ours = volume.annotations().get(RESTORED_BY).is_some_and(|by| by == scene.uid);
    ours && claim_ref(volume).is_some_and(|claim| claim.name.as_deref() == Some(&scene.slot.name))
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The volume is this claim's, and of no other one of its name.
fn holds(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|held| held.uid.is_some() && held.uid == claim.metadata.uid)
}

fn is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Bound") && holds(volume, claim)
}

/// What becomes of a volume that was promised, once nobody hands it over any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftover {
    /// Its claim has it, or will: it is complete.
    Keep,
    /// Nobody has it: it is the staging claim's again, and goes as that one's.
    Drop,
}

/// `claim` is the one of the name that the volume is promised to.
pub(super) fn leftover(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Leftover {
    let named = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_deref());
    let has = claim.is_some_and(|claim| holds(volume, claim)) || named == volume.metadata.name.as_deref();
    if claim.is_some() && has { Leftover::Keep } else { Leftover::Drop }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::restore::slots::wanted;

    const UID: &str = "restore-uid";

    fn slot(served: bool) -> Slot {
        let target = if served {
            json!({"dataSource": {}})
        } else {
            json!({"newClaim": {"name": "data", "template": {"storage": "1Gi"}}})
        };
        let claim =
            claim(&json!({"dataSourceRef": {"apiGroup": "stillframe.dev", "kind": "MySQLRestore", "name": "r"}}));
        let claims = [("data".to_owned(), claim)].into();
        wanted(&serde_json::from_value(target).unwrap(), "r", "n", &claims).remove(0)
    }

    fn claim(spec: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data", "uid": "claim-uid"}, "spec": spec})).unwrap()
    }

    fn staging() -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "stage", "uid": "stage-uid"}, "spec": {"volumeName": "pv"}}))
            .unwrap()
    }

    fn volume(annotations: &Value, claim_ref: &Value) -> PersistentVolume {
        let metadata = json!({"name": "pv", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"claimRef": claim_ref}})).unwrap()
    }

    fn of_staging() -> PersistentVolume {
        volume(&json!({}), &json!({"name": "stage", "uid": "stage-uid"}))
    }

    fn promised(uid: Option<&str>) -> PersistentVolume {
        let annotations = json!({RESTORED_BY: UID, RECLAIM: "Delete"});
        volume(&annotations, &json!({"name": "data", "uid": uid}))
    }

    fn bound(annotations: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "data", "uid": "claim-uid", "annotations": annotations},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"},
        }))
        .unwrap()
    }

    fn step(
        slot: &Slot,
        staging: Option<&PersistentVolumeClaim>,
        volume: Option<&PersistentVolume>,
        claim: Option<&PersistentVolumeClaim>,
    ) -> Step {
        next(&Scene { slot, uid: UID, pod: false, staging, volume, claim })
    }

    #[test]
    fn a_new_claim_appears_last() {
        let (slot, stage) = (slot(false), staging());
        let scene = Scene { slot: &slot, uid: UID, pod: true, staging: Some(&stage), volume: None, claim: None };
        assert_eq!(next(&scene), Step::RemovePod);
        assert_eq!(step(&slot, Some(&stage), Some(&of_staging()), None), Step::Promise);
        assert_eq!(step(&slot, Some(&stage), Some(&promised(None)), None), Step::RemoveStaging);
        let mut going = stage.clone();
        going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-03-14T15:09:26Z")).unwrap());
        assert_eq!(step(&slot, Some(&going), Some(&promised(None)), None), Step::MakeClaim);
        assert_eq!(step(&slot, None, Some(&promised(None)), None), Step::MakeClaim);
        let made = bound(&json!({RESTORED_BY: UID}));
        assert_eq!(step(&slot, None, Some(&promised(None)), Some(&made)), Step::Wait, "not bound on both sides");
        assert_eq!(step(&slot, None, Some(&promised(Some("claim-uid"))), Some(&made)), Step::GiveBack);
        let back = volume(&json!({RESTORED_BY: UID}), &json!({"name": "data", "uid": "claim-uid"}));
        assert_eq!(step(&slot, None, Some(&back), Some(&made)), Step::Done);
    }

    #[test]
    fn a_claim_that_waits_gets_its_volume() {
        let (slot, stage) = (slot(true), staging());
        let waits = claim(&json!({}));
        assert_eq!(step(&slot, Some(&stage), Some(&of_staging()), Some(&waits)), Step::Promise);
        assert_eq!(step(&slot, None, Some(&promised(Some("claim-uid"))), Some(&waits)), Step::Wait);
        let has = bound(&json!({}));
        assert_eq!(step(&slot, None, Some(&promised(Some("claim-uid"))), Some(&has)), Step::GiveBack);
        assert!(matches!(step(&slot, None, Some(&promised(Some("claim-uid"))), None), Step::Blocked(_)), "deleted");
        let other = claim(&json!({"volumeName": "another"}));
        assert!(matches!(step(&slot, None, Some(&promised(Some("claim-uid"))), Some(&other)), Step::Blocked(_)));
    }

    #[test]
    fn nothing_of_somebody_elses_is_taken() {
        let slot = slot(false);
        assert!(matches!(step(&slot, Some(&staging()), None, None), Step::Lost(_)));
        let foreign = volume(&json!({}), &json!({"name": "stage", "uid": "another-uid"}));
        assert!(matches!(step(&slot, Some(&staging()), Some(&foreign), None), Step::Lost(_)));
        assert!(matches!(step(&slot, None, Some(&of_staging()), None), Step::Lost(_)));
        let theirs = bound(&json!({}));
        assert!(matches!(step(&slot, None, Some(&promised(None)), Some(&theirs)), Step::Blocked(_)));
    }

    #[test]
    fn what_is_left_is_the_claims_or_goes() {
        let has = bound(&json!({}));
        assert_eq!(leftover(&promised(Some("claim-uid")), Some(&has)), Leftover::Keep);
        assert_eq!(leftover(&promised(None), Some(&has)), Leftover::Keep, "about to be bound");
        assert_eq!(leftover(&promised(Some("claim-uid")), None), Leftover::Drop, "its claim was deleted");
        assert_eq!(leftover(&promised(None), None), Leftover::Drop, "its claim was never made");
        assert_eq!(leftover(&promised(None), Some(&claim(&json!({})))), Leftover::Drop, "not this one's");
    }
}
