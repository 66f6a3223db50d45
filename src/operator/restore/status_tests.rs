//! What is believed of a runner, and what is said of many.

use super::*;

fn report(state: RunnerState) -> RunnerReport {
    RunnerReport { state, progress: None }
}

fn restored(pod_uid: &str, backup_id: &str) -> RunnerReport {
    let data = RestoredData { pod_uid: pod_uid.into(), backup_id: backup_id.into(), ..RestoredData::default() };
    report(RunnerState::Restored(data))
}

fn killed() -> PodState {
    PodState::Killed { reason: reasons::RUNNER_EVICTED, message: "k".into() }
}

fn reason(seen: Seen) -> String {
    match seen {
        Seen::Failed(failure) => failure.reason,
        other => format!("{other:?}"),
    }
}

#[test]
fn only_this_trys_own_word_is_success() {
    let judge = |pod: &PodState, report: Option<RunnerReport>| judge(pod, Some("pod-1"), "b-1", report.as_ref());
    assert!(matches!(judge(&PodState::Running, Some(restored("pod-1", "b-1"))), Seen::Done(_)));
    assert!(matches!(judge(&killed(), Some(restored("pod-1", "b-1"))), Seen::Done(_)), "killed after its last word");
    assert_eq!(reason(judge(&PodState::Running, Some(restored("pod-2", "b-1")))), "RunnerLost");
    assert_eq!(reason(judge(&PodState::Running, Some(restored("pod-1", "b-2")))), "RunnerLost");
    assert_eq!(reason(judge(&PodState::Exited { code: 0 }, None)), "RunnerDied", "no word, no success");
}

#[test]
fn failures_have_names() {
    let judge = |pod: &PodState, report: Option<RunnerReport>| judge(pod, Some("pod-1"), "b-1", report.as_ref());
    let failed = |retryable| {
        Some(report(RunnerState::Failed { reason: "TargetNotEmpty".into(), message: "m".into(), retryable }))
    };
    assert_eq!(reason(judge(&PodState::Exited { code: 26 }, failed(false))), "TargetNotEmpty");
    assert_eq!(reason(judge(&killed(), failed(true))), "RunnerEvicted", "who ended it says more");
    assert_eq!(reason(judge(&PodState::Exited { code: 1 }, Some(report(RunnerState::Running)))), "RunnerDied");
    let waiting = PodState::Waiting { reason: reasons::UNSCHEDULABLE, message: "m".into() };
    assert!(matches!(judge(&waiting, None), Seen::Waiting { reason: "Unschedulable", .. }));
    assert_eq!(judge(&PodState::Running, None), Seen::Working(None));
}

#[test]
fn many_runners_are_as_far_as_the_last() {
    let one = |step: &str, done, total| Progress {
        step: step.into(),
        bytes_done: Some(done),
        bytes_total: total,
        ..Progress::default()
    };
    assert_eq!(sum(&[]), None);
    let both = sum(&[one("restore", 10, Some(100)), one("restore", 30, Some(100))]).unwrap();
    assert_eq!((both.bytes_done, both.bytes_total), (Some(40), Some(200)));
    let behind = sum(&[one("sync", 1, None), one("open", 2, Some(5))]).unwrap();
    assert_eq!((behind.step.as_str(), behind.bytes_done), ("open", Some(2)));
    assert_eq!(sum(&[one("restore", 1, None), one("restore", 1, Some(5))]).unwrap().bytes_total, None);
}

fn claim(name: &str, state: ClaimState, reason: Option<&str>) -> ClaimStatus {
    let mut claim = ClaimStatus::new(name, None);
    match reason {
        Some(reason) => claim.set(state, reason, "m"),
        None => claim.set_plain(state),
    }
    claim
}

#[test]
fn the_claim_that_is_in_the_way_is_told_of() {
    let said = |claims: &[ClaimStatus]| summary(claims).0;
    let filling = claim("a", ClaimState::Filling, None);
    assert_eq!(said(std::slice::from_ref(&filling)), "Running");
    let stuck = claim("b", ClaimState::Filling, Some("Unschedulable"));
    assert_eq!(summary(&[filling.clone(), stuck]), ("Unschedulable".into(), "claim b: m".into()));
    let mut retried = claim("c", ClaimState::Pending, Some("RunnerDied"));
    retried.next_attempt_time = Some(serde_json::from_value(serde_json::json!("2026-03-14T15:09:26Z")).unwrap());
    assert_eq!(said(&[filling, retried]), "Retrying");
}

#[test]
fn a_failed_claim_is_the_end_and_complete_ones_are_named() {
    let claims = vec![
        claim("a", ClaimState::Ready, None),
        claim("b", ClaimState::Failed, Some("TargetTooSmall")),
        claim("c", ClaimState::Filling, None),
    ];
    assert_eq!(failed(&claims).unwrap(), ("TargetTooSmall".into(), "claim b: m; complete and left: a".into()));
    let states: Vec<ClaimState> = given_up(claims).into_iter().map(|claim| claim.state).collect();
    assert_eq!(states, [ClaimState::Ready, ClaimState::Failed, ClaimState::Failed]);
    assert_eq!(failed(&[claim("a", ClaimState::Ready, None)]), None);
}

#[test]
fn progress_alone_waits_ten_seconds() {
    let with = |done| MySQLRestoreStatus {
        progress: Some(Progress { bytes_done: Some(done), ..Progress::default() }),
        ..MySQLRestoreStatus::default()
    };
    assert!(differs_in_progress_only(&with(1), &with(2)));
    assert!(!differs_in_progress_only(&MySQLRestoreStatus::default(), &with(2)), "the first is told at once");
    let other = MySQLRestoreStatus { claims_ready: Some("1/2".into()), ..with(2) };
    assert!(!differs_in_progress_only(&with(1), &other));
    let at = |second| Timestamp::from_second(second).unwrap();
    assert_eq!(until_progress(Some(at(100)), at(104)).unwrap().as_secs(), 6);
    assert_eq!(until_progress(Some(at(100)), at(110)), None);
    assert_eq!(until_progress(None, at(110)), None);
}
