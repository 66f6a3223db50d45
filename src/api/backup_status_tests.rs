//! Walks a backup through its states.

use super::*;

fn at(second: i64) -> Moment {
    Moment { generation: 3, now: Timestamp::from_second(second).unwrap() }
}

fn runner(attempt: i32) -> RunnerStatus {
    RunnerStatus { pod_name: format!("b-{attempt}"), attempt, ..RunnerStatus::default() }
}

fn outcome() -> BackupOutcome {
    BackupOutcome {
        backup_id: "b-20260314T150926Z-1a2b3c4d".into(),
        destination: "s3://bucket/prefix".into(),
        parent: None,
        server_uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".into(),
        server_version: "9.7.4".into(),
        role: Some(ServerRole::Primary),
        lsn: LsnRange { checkpoint: "19999".into(), end: "9007199254740993".into() },
        binlog: Some(BinlogPosition { file: "binlog.000004".into(), position: 158 }),
        gtid_executed: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".into(),
        size_bytes: 3 << 30,
        stored_bytes: 1 << 30,
        lock_held_milliseconds: 900,
        ddl_wait_milliseconds: 0,
        start_time: Timestamp::from_second(100).unwrap(),
        completion_time: Timestamp::from_second(161).unwrap(),
        warnings: vec!["3 tables of MyISAM were left out".into()],
        origin: OriginStatus { schedule: Some("nightly".into()), ..OriginStatus::default() },
    }
}

fn running() -> MySQLBackupStatus {
    let mut status = MySQLBackupStatus::default();
    status.set_pending(reasons::PENDING, "seen", at(90)).unwrap();
    status.set_started(runner(1), "b-20260314T150926Z-1a2b3c4d", SourceStatus::default(), at(100)).unwrap();
    let progress = Progress { step: "copy".into(), bytes_done: Some(1), bytes_total: Some(2), ..Progress::default() };
    status.set_running(Some(progress), at(110)).unwrap();
    status
}

#[test]
fn a_run_is_unknown_until_it_ended() {
    let status = running();
    assert!(!status.has_ended());
    assert_eq!(status.reason(), "Running");
    assert_eq!(status.conditions.len(), 1);
    assert_eq!(status.conditions[0].status, "Unknown");
    assert_eq!(status.conditions[0].last_transition_time.0.as_second(), 90, "Unknown all the time");
    assert_eq!(status.conditions[0].observed_generation, Some(3));
    assert_eq!(status.progress.as_ref().unwrap().summary.as_deref(), Some("copy 50%"));
    assert_eq!(status.start_time, Some(Time(at(100).now)));
}

#[test]
fn success_carries_what_the_manifest_tells() {
    let mut status = running();
    status.set_confirming("reading the manifest", at(160)).unwrap();
    status.set_succeeded(outcome(), at(162)).unwrap();
    assert!(status.has_succeeded() && status.has_ended());
    assert_eq!(status.lsn.as_ref().unwrap().end, "9007199254740993", "a string: no JSON number holds it");
    assert_eq!(status.size.as_deref(), Some("3.0 GiB"));
    assert_eq!(status.duration_seconds, Some(61));
    assert_eq!(status.progress, None);
    assert_eq!(status.warnings, ["3 tables of MyISAM were left out"]);
    assert!(conditions::is(&status.conditions, types::RESTORABLE, status::TRUE));
}

#[test]
fn of_many_warnings_some_are_told() {
    let mut status = running();
    let warnings = vec!["w".to_owned(); 65];
    status.set_succeeded(BackupOutcome { warnings, ..outcome() }, at(162)).unwrap();
    assert_eq!(status.warnings.len(), 64, "more than that the definition does not take");
}

#[test]
fn the_manifest_tells_what_the_server_was_and_an_old_one_leaves_what_was_known() {
    let role = |known, told| {
        let mut status = running();
        status.source = Some(SourceStatus { role: known, ..SourceStatus::default() });
        status.set_succeeded(BackupOutcome { role: told, ..outcome() }, at(162)).unwrap();
        status.source.unwrap().role
    };
    let (primary, replica) = (Some(ServerRole::Primary), Some(ServerRole::Replica));
    assert_eq!(role(None, primary), primary, "nobody asked: there was one pod to choose");
    assert_eq!(role(primary, replica), replica);
    assert_eq!(role(replica, None), replica);
}

#[test]
fn how_it_ended_cannot_be_changed() {
    let mut good = running();
    good.set_succeeded(outcome(), at(162)).unwrap();
    let mut bad = running();
    bad.set_failed("RedoOverwritten", "the server was faster", at(150)).unwrap();
    for ended in [good, bad] {
        let mut status = ended.clone();
        assert_eq!(status.set_pending("Pending", "again", at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_started(runner(2), "other", SourceStatus::default(), at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_running(None, at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_confirming("again", at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_retrying("RunnerDied", "again", at(210).now, at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_succeeded(outcome(), at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_imported(outcome(), at(200)), Err(AlreadyEnded));
        assert_eq!(status.set_failed("Failed", "again", at(200)), Err(AlreadyEnded));
        assert_eq!(status, ended, "a refused transition leaves no trace");
    }
}

#[test]
fn tries_are_counted_and_start_over() {
    let mut status = running();
    status.set_retrying(reasons::RUNNER_OUT_OF_MEMORY, "killed", at(130).now, at(120)).unwrap();
    assert_eq!(status.reason(), "Retrying");
    assert!(status.conditions[0].message.contains("RunnerOutOfMemory"), "{}", status.conditions[0].message);
    assert_eq!(status.failed_attempts, Some(1));
    assert_eq!(status.progress, None);
    status.set_started(runner(2), "b-20260314T150926Z-1a2b3c4d", SourceStatus::default(), at(130)).unwrap();
    assert_eq!(status.start_time, Some(Time(at(100).now)), "the deadline counts from the first try");
    assert_eq!(status.next_attempt_time, None);
    status.set_failed("Store", "no answer", at(140)).unwrap();
    assert!(conditions::is(&status.conditions, types::RESTORABLE, status::FALSE));
    assert_eq!(status.completion_time, Some(Time(at(140).now)));
}

#[test]
fn a_bucket_can_lose_a_backup_after_its_end() {
    let mut status = MySQLBackupStatus::default();
    status.set_imported(outcome(), at(300)).unwrap();
    assert_eq!(status.reason(), "Imported");
    assert_eq!(status.start_time.as_ref().unwrap().0.as_second(), 100, "when it was taken, not when it was found");
    status.set_restorable(false, reasons::GONE_FROM_STORAGE, "deleted in the bucket", at(400));
    assert!(status.has_succeeded(), "it did succeed");
    assert!(conditions::is(&status.conditions, types::RESTORABLE, status::FALSE));
}
