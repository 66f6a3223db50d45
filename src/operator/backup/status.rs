//! What a runner's pod and its report mean for the backup. Pure; the words that reach people are here.
//!
//! ```text
//!   pod, report ─► Seen ──┬─ Waiting, Working          said, and waited for
//!                         ├─ Done                      the storage is looked at: its word alone is success
//!                         └─ Failed ─► after_failure ─ another try, later   or   the end
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::backup_status::{BackupOutcome, OriginStatus, ServerRole};
use crate::api::common::{BinlogPosition, LsnRange, Progress};
use crate::api::conditions::reasons;
use crate::api::runner::{RunnerReport, RunnerState};
use crate::archive::manifest::{Manifest, Role};
use crate::operator::pods::PodState;

/// First wait after a failed try; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// How a try stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// The pod does not run yet.
    Waiting { reason: &'static str, message: String },
    /// The runner works.
    Working(Option<Progress>),
    /// It says, or seems, to be done.
    Done,
    /// It failed.
    Failed(Failure),
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reason: the operator's or the engine's.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// Another try may work.
    pub(crate) retryable: bool,
    /// The runner said so itself, and so has made no backup.
    pub(crate) told: bool,
}

impl Failure {
    /// What a runner said of itself.
    pub(crate) fn said(reason: &str, message: &str, retryable: bool) -> Self {
        Self { reason: reason.to_owned(), message: message.to_owned(), retryable, told: true }
    }

    /// One that another try may mend.
    pub(crate) fn passing(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), retryable: true, told: false }
    }
}

/// Reads a try from the outside (its pod) and the inside (its report).
pub(crate) fn judge(pod: &PodState, report: Option<&RunnerReport>) -> Seen {
    let said = report.map(|report| &report.state);
    match (pod, said) {
        // Whatever became of the pod: it spoke last words, and the storage will tell whether they are true.
        (_, Some(RunnerState::BackedUp { .. })) => Seen::Done,
        // From outside, a runner that was told to stop looks as one that failed: who told it says more.
        (PodState::Killed { reason, message }, _) => Seen::Failed(Failure::passing(reason, message)),
        (PodState::Exited { .. }, Some(RunnerState::Failed { reason, message, retryable })) => {
            Seen::Failed(Failure::said(reason, message, *retryable))
        }
        (PodState::Exited { code: 0 }, _) => Seen::Done,
        (PodState::Exited { code }, _) => {
            let message = format!("the runner ended with exit code {code} and left no report; its log tells more");
            Seen::Failed(Failure::passing(reasons::RUNNER_DIED, message))
        }
        (PodState::Waiting { reason, message }, _) => Seen::Waiting { reason, message: message.clone() },
        (PodState::Running, _) => Seen::Working(report.and_then(|report| report.progress.clone())),
    }
}

/// When the next try begins, or that there is none. `failed` counts the tries that failed, this one included.
pub(crate) fn next_try(failure: &Failure, failed: i32, backoff_limit: i32, now: Timestamp) -> Option<Timestamp> {
    if !failure.retryable || failed > backoff_limit {
        return None;
    }
    let doublings = u32::try_from(failed.saturating_sub(1)).unwrap_or(0);
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let wait = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
    now.checked_add(SignedDuration::try_from(wait).ok()?).ok()
}

/// The moment at which a number of seconds has passed since `from`.
pub(crate) fn deadline(from: Option<Timestamp>, seconds: Option<i64>) -> Option<Timestamp> {
    from?.checked_add(SignedDuration::from_secs(seconds?)).ok()
}

/// What a manifest tells, as a status tells it.
pub(crate) fn outcome(manifest: &Manifest, destination: String) -> BackupOutcome {
    let bytes = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    BackupOutcome {
        backup_id: manifest.id.to_string(),
        destination,
        parent: manifest.parent.as_ref().map(ToString::to_string),
        server_uuid: manifest.server.uuid.clone(),
        server_version: manifest.server.version.clone(),
        role: manifest.server.role.map(|role| match role {
            Role::Primary => ServerRole::Primary,
            Role::Replica => ServerRole::Replica,
        }),
        lsn: LsnRange { checkpoint: manifest.lsn.checkpoint.to_string(), end: manifest.lsn.end.to_string() },
        binlog: manifest
            .binlog
            .as_ref()
            .map(|at| BinlogPosition { file: at.file.clone(), position: bytes(at.position) }),
        gtid_executed: manifest.gtid_executed.clone(),
        size_bytes: bytes(manifest.bytes.read),
        stored_bytes: bytes(manifest.bytes.stored),
        lock_held_milliseconds: bytes(manifest.lock_held_milliseconds),
        ddl_wait_milliseconds: bytes(manifest.ddl_wait_milliseconds),
        start_time: manifest.start_time,
        completion_time: manifest.completion_time,
        warnings: manifest.warnings.clone(),
        origin: OriginStatus {
            cluster_id: manifest.origin.cluster_id.clone(),
            namespace: manifest.origin.namespace.clone(),
            schedule: manifest.origin.schedule.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: RunnerState) -> RunnerReport {
        RunnerReport { state, progress: Some(Progress { step: "copy".into(), ..Progress::default() }) }
    }

    fn backed_up() -> RunnerReport {
        report(RunnerState::BackedUp { backup_id: "b".into(), warnings: vec![] })
    }

    fn failed(reason: &str, retryable: bool) -> RunnerReport {
        report(RunnerState::Failed { reason: reason.into(), message: "m".into(), retryable })
    }

    fn killed(reason: &'static str) -> PodState {
        PodState::Killed { reason, message: "k".into() }
    }

    #[test]
    fn pod_and_report_are_read_together() {
        let reason = |seen: Seen| match seen {
            Seen::Failed(failure) => failure.reason,
            other => format!("{other:?}"),
        };
        let exited = |code| PodState::Exited { code };
        assert_eq!(judge(&PodState::Running, Some(&backed_up())), Seen::Done, "it has yet to leave");
        assert_eq!(judge(&killed("RunnerEvicted"), Some(&backed_up())), Seen::Done);
        assert_eq!(judge(&exited(0), None), Seen::Done, "the storage will tell");
        assert_eq!(reason(judge(&exited(14), Some(&failed("RedoOverwritten", true)))), "RedoOverwritten");
        assert_eq!(reason(judge(&exited(3), None)), "RunnerDied");
        let running = report(RunnerState::Running);
        assert_eq!(reason(judge(&exited(1), Some(&running))), "RunnerDied", "it died in the middle");
        assert_eq!(reason(judge(&killed("RunnerEvicted"), Some(&failed("Cancelled", true)))), "RunnerEvicted");
        assert!(matches!(judge(&PodState::Running, Some(&running)), Seen::Working(Some(_))));
        assert!(matches!(judge(&PodState::Running, None), Seen::Working(None)));
        let waiting = PodState::Waiting { reason: reasons::UNSCHEDULABLE, message: "m".into() };
        assert!(matches!(judge(&waiting, None), Seen::Waiting { reason: "Unschedulable", .. }));
    }

    #[test]
    fn tries_wait_longer_each_time_and_end() {
        let now = Timestamp::from_second(1000).unwrap();
        let failure = Failure::passing("Store", "m");
        let wait = |failed, limit| next_try(&failure, failed, limit, now).map(|at| at.as_second() - 1000);
        assert_eq!(wait(1, 3), Some(10));
        assert_eq!(wait(2, 3), Some(20));
        assert_eq!(wait(3, 3), Some(40));
        assert_eq!(wait(4, 3), None, "three more tries after the first");
        assert_eq!(wait(1, 0), None);
        assert_eq!(wait(20, 20), Some(600));
        let hopeless = Failure { retryable: false, ..failure };
        assert_eq!(next_try(&hopeless, 1, 3, now), None);
    }

    #[test]
    fn deadlines_need_both_ends() {
        let from = Timestamp::from_second(10).unwrap();
        assert_eq!(deadline(Some(from), Some(5)).unwrap().as_second(), 15);
        assert_eq!(deadline(None, Some(5)), None);
        assert_eq!(deadline(Some(from), None), None);
        assert_eq!(deadline(Some(from), Some(i64::MAX)), None);
    }
}
