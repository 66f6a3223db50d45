//! What runners' pods and reports mean for a restore, and the one sentence about all claims. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::api::MySQLRestoreStatus;
use crate::api::common::Progress;
use crate::api::conditions::reasons;
use crate::api::restore_status::{ClaimState, ClaimStatus};
use crate::api::runner::{RestoredData, RunnerReport, RunnerState};
use crate::operator::backup::status::Failure;
use crate::operator::pods::PodState;

/// How often progress alone is reason enough to write a status.
pub(super) const PROGRESS_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// How a try stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// The pod does not run yet.
    Waiting { reason: &'static str, message: String },
    /// The runner works.
    Working(Option<Progress>),
    /// The volume is complete.
    Done(RestoredData),
    /// It failed.
    Failed(Failure),
}

/// Reads a try from the outside (its pod) and the inside (its report). Done is only what this very pod says of this
/// very backup.
pub(super) fn judge(pod: &PodState, pod_uid: Option<&str>, backup_id: &str, report: Option<&RunnerReport>) -> Seen {
    let said = report.map(|report| &report.state);
    if let Some(RunnerState::Restored(data)) = said {
        return if Some(data.pod_uid.as_str()) == pod_uid && data.backup_id == backup_id {
            // Whatever became of the pod since: everything was on the disk before it said so.
            Seen::Done(data.clone())
        } else {
            let message = format!(
                "the report is of backup {} by pod {}, and not of this try's: the claim is filled again",
                data.backup_id, data.pod_uid
            );
            Seen::Failed(Failure::passing(reasons::RUNNER_LOST, message))
        };
    }
    match (pod, said) {
        // From outside, a runner that was told to stop looks as one that failed: who told it says more.
        (PodState::Killed { reason, message }, _) => Seen::Failed(Failure::passing(reason, message)),
        (PodState::Exited { .. }, Some(RunnerState::Failed { reason, message, retryable })) => {
            Seen::Failed(Failure::said(reason, message, *retryable))
        }
        (PodState::Exited { code }, _) => {
            let message = format!("the runner ended with exit code {code} and left no report; its log tells more");
            Seen::Failed(Failure::passing(reasons::RUNNER_DIED, message))
        }
        (PodState::Waiting { reason, message }, _) => Seen::Waiting { reason, message: message.clone() },
        (PodState::Running, _) => Seen::Working(report.and_then(|report| report.progress.clone())),
    }
}

/// How far all runners together are: the step of the one that is furthest behind, the bytes of all.
pub(super) fn sum(runners: &[Progress]) -> Option<Progress> {
    let behind = runners.iter().min_by_key(|one| order(&one.step))?;
    let same: Vec<&Progress> = runners.iter().filter(|one| one.step == behind.step).collect();
    let add = |of: fn(&Progress) -> Option<i64>| -> Option<i64> {
        same.iter().map(|one| of(one)).try_fold(0_i64, |sum, bytes| Some(sum.saturating_add(bytes?)))
    };
    Some(Progress {
        step: behind.step.clone(),
        summary: None,
        bytes_done: add(|one| one.bytes_done),
        bytes_total: add(|one| one.bytes_total),
        bytes_per_second: add(|one| one.bytes_per_second),
        estimated_completion_time: same
            .iter()
            .filter_map(|one| one.estimated_completion_time.clone())
            .max_by_key(|time| time.0),
        redo_lag_bytes: None,
    })
}

/// The engine's steps, in their order.
fn order(step: &str) -> usize {
    const STEPS: [&str; 6] = ["open", "check target", "restore", "redo", "sync", "recover"];
    STEPS.iter().position(|known| *known == step).unwrap_or(STEPS.len())
}

/// The one thing to say of all claims while the restore goes on.
pub(super) fn summary(claims: &[ClaimStatus]) -> (String, String) {
    let telling = |state: ClaimState| {
        claims.iter().filter(move |claim| claim.state == state).find_map(|claim| {
            let (reason, message) = (claim.reason.as_ref()?, claim.message.as_ref()?);
            let reason = if claim.next_attempt_time.is_some() { reasons::RETRYING } else { reason.as_str() };
            Some((reason.to_owned(), format!("claim {}: {message}", claim.name)))
        })
    };
    telling(ClaimState::Pending)
        .or_else(|| telling(ClaimState::Filling))
        .or_else(|| telling(ClaimState::HandingOver))
        .unwrap_or_else(|| (reasons::RUNNING.to_owned(), "claims are being filled".to_owned()))
}

/// A claim that will not be filled, as the end of the whole restore.
pub(super) fn failed(claims: &[ClaimStatus]) -> Option<(String, String)> {
    let failed = claims.iter().find(|claim| claim.state == ClaimState::Failed)?;
    let message = failed.message.clone().unwrap_or_default();
    let ready: Vec<&str> =
        claims.iter().filter(|claim| claim.state == ClaimState::Ready).map(|claim| claim.name.as_str()).collect();
    let left = if ready.is_empty() { String::new() } else { format!("; complete and left: {}", ready.join(", ")) };
    let reason = failed.reason.clone().unwrap_or_else(|| reasons::RUNNER_DIED.to_owned());
    Some((reason, format!("claim {}: {message}{left}", failed.name)))
}

/// The claims of a restore that failed: nobody fills them any more.
pub(super) fn given_up(mut claims: Vec<ClaimStatus>) -> Vec<ClaimStatus> {
    let open = claims.iter_mut().filter(|claim| !matches!(claim.state, ClaimState::Ready | ClaimState::Failed));
    for claim in open {
        claim.set(ClaimState::Failed, "Cancelled", "given up, because the restore failed");
        claim.next_attempt_time = None;
    }
    claims
}

/// True if nothing but progress differs: that is not written each time it changes.
pub(super) fn differs_in_progress_only(old: &MySQLRestoreStatus, new: &MySQLRestoreStatus) -> bool {
    let without = |status: &MySQLRestoreStatus| MySQLRestoreStatus { progress: None, ..status.clone() };
    old.progress.is_some() && new.progress.is_some() && without(old) == without(new)
}

/// How long progress must wait that was last written then.
pub(super) fn until_progress(written: Option<Timestamp>, now: Timestamp) -> Option<std::time::Duration> {
    let next = written?.checked_add(PROGRESS_EVERY).ok()?;
    std::time::Duration::try_from(next.duration_since(now)).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
