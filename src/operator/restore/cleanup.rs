//! What must go: pods and staging claims that nobody fills any more, volumes that nobody will have. In bounded time.
//!
//! ```text
//!   deleted while running ─► runners told to stop ─► staging claims deleted ─► volumes let go ─► finalizer off
//!   ended                 ─► the same, of which mostly nothing is left
//!   a served claim is gone─► the same, for that claim alone
//! ```
//! Claims that are complete stay, whatever becomes of the restore that filled them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::operator::backup::apply::{delete_pod, forget_authority};
use crate::operator::backup::gather::is_terminating;
use crate::operator::error::OperatorError;
use crate::operator::names::OWNER_UID;

use super::build::{CLAIM_KEY, drop_volume, give_back};
use super::gather::World;
use super::handover::{Leftover, leftover};
use super::{Reconciliation, apply};

/// How long a deletion may take.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// How long in a namespace that goes too.
const PATIENCE_TERMINATING: SignedDuration = SignedDuration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(2);

impl Reconciliation<'_> {
    /// The object is deleted.
    pub(super) async fn clean_up(&mut self) -> Result<Action, OperatorError> {
        let client = &self.context.client;
        if !self.has_finalizer() {
            return Ok(Action::await_change());
        }
        let world = World::of(client, &self.who).await?;
        let clean = self.sweep(&world, &BTreeSet::new()).await?;
        if !clean {
            let patience =
                if is_terminating(client, &self.who.namespace).await? { PATIENCE_TERMINATING } else { PATIENCE };
            let deleted = self.restore.metadata.deletion_timestamp.as_ref().map(|time| time.0);
            let waited = deleted.map_or(SignedDuration::ZERO, |deleted| self.at.now.duration_since(deleted));
            if waited <= patience {
                return Ok(Action::requeue(AGAIN));
            }
            tracing::error!(seconds = waited.as_secs(), "gave up waiting for runners and staging claims to go");
        }
        forget_authority(client, &self.who.namespace, &self.who.run).await?;
        apply::finalizer(client, self.restore, false).await?;
        Ok(Action::await_change())
    }

    /// The restore has ended: nothing of it stays but its claims.
    pub(super) async fn settle(&mut self) -> Result<Action, OperatorError> {
        if !self.has_finalizer() {
            return Ok(Action::await_change());
        }
        let world = World::of(&self.context.client, &self.who).await?;
        if !self.sweep(&world, &BTreeSet::new()).await? {
            return Ok(Action::requeue(AGAIN));
        }
        forget_authority(&self.context.client, &self.who.namespace, &self.who.run).await?;
        apply::finalizer(&self.context.client, self.restore, false).await?;
        Ok(Action::await_change())
    }

    /// Removes what was made for claims whose keys are not among these. True if nothing of it is left.
    pub(super) async fn sweep(&self, world: &World, keep: &BTreeSet<String>) -> Result<bool, OperatorError> {
        let client = &self.context.client;
        let goes = |key: Option<&String>| key.is_none_or(|key| !keep.contains(key));
        let mut clean = true;
        for pod in world.pods.values().filter(|pod| goes(pod.labels().get(CLAIM_KEY))) {
            clean = false;
            if pod.metadata.deletion_timestamp.is_none() {
                delete_pod(client, pod).await?;
            }
        }
        // Volumes first: one that was promised must not be taken for its staging claim's.
        for volume in world.volumes.values().filter(|volume| goes(volume.labels().get(CLAIM_KEY))) {
            if volume.labels().get(OWNER_UID) != Some(&self.who.uid) {
                continue;
            }
            let promised = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.name.clone());
            let claim = promised.and_then(|name| world.claims.get(&name));
            let patch = match leftover(volume, claim) {
                Leftover::Keep => give_back(volume),
                Leftover::Drop => drop_volume(volume),
            };
            apply::patch_volume(client, &volume.name_any(), &patch).await?;
        }
        let staging = world.claims.values().filter(|claim| claim.labels().get(OWNER_UID) == Some(&self.who.uid));
        for claim in staging.filter(|claim| goes(claim.labels().get(CLAIM_KEY))) {
            clean = false;
            if claim.metadata.deletion_timestamp.is_none() {
                apply::delete_claim(client, claim).await?;
            }
        }
        Ok(clean)
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.restore.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == apply::FINALIZER)
    }
}
