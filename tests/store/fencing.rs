//! Who may commit, when several think that they may.

use std::time::{Duration, Instant};

use stillframe::archive::id::{AttemptId, BackupId};
use stillframe::store::{BackupState, Removal, Repository, Run, StoreError, StoreSettings};
use tokio_util::sync::CancellationToken;

use crate::help::{
    Faulty, backup, begin, directory, expire, id, id_at, manifest, open, pattern, quick, read, remove_expired, stopped,
    write,
};
use crate::support::proxy::Fault;
use crate::support::s3::{S3Server, environment};
use crate::support::wait::{SOON, until};

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_in_one_repository_do_not_disturb_each_other() {
    let server = S3Server::start();
    let repository = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    repository.probe().await.unwrap();
    let (first, second) = (id_at("one", 0), id_at("two", 0));
    let (a, b) = tokio::join!(begin(&repository, &first), begin(&repository, &second));
    let (x, y) = tokio::join!(write(a.sink(), "pack", pattern(11 << 20)), write(b.sink(), "pack", pattern(7 << 20)));
    x.unwrap();
    y.unwrap();
    let (x, y) = (manifest(&first, a.attempt(), None), manifest(&second, b.attempt(), None));
    b.commit(&y).await.unwrap();
    b.finish().await;
    // The other one goes on, and its giving up takes nothing from the first.
    a.commit(&x).await.unwrap();
    let third = begin(&repository, &id_at("three", 0)).await;
    write(third.sink(), "pack", pattern(6 << 20)).await.unwrap();
    third.abandon().await;
    let source = repository.objects(&first, a.attempt(), &CancellationToken::new());
    assert!(read(source, "pack").await.unwrap() == pattern(11 << 20));
    a.finish().await;
    assert_eq!(repository.list().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_waits_until_the_first_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", folder.path().display());
    let repository = open(&url, stopped(StoreSettings::new::<String, String>([]))).await;
    repository.probe().await.unwrap();
    let id = id();
    let first = begin(&repository, &id).await;
    let other = AttemptId::generate();
    let held = repository.begin(&id, &other).await.map(|_| ());
    assert!(matches!(held, Err(StoreError::Protected { .. })), "{held:?}");
    drop(first);
    expire(folder.path());
    repository.begin(&id, &other).await.unwrap().abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_attempts_that_commit_at_once_exactly_one_wins() {
    let server = S3Server::start();
    let repository = open(&server.url("p"), soon_over(StoreSettings::new(server.environment()))).await;
    repository.probe().await.unwrap();
    for round in 0..3 {
        let id = id_at("contested", round);
        // The first never renews, as if it were stopped; the second takes its lease over.
        let first = begin(&repository, &id).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let second = begin(&repository, &id).await;
        // Each has a data key of its own, whichever of them stores it last.
        let key = ["00ff00ff00ff00ff".to_owned()];
        first.put_key(&key[0], b"of the first".to_vec()).await.unwrap();
        second.put_key(&key[0], b"of the second".to_vec()).await.unwrap();
        let (a, b) = (manifest(&id, first.attempt(), None), manifest(&id, second.attempt(), None));
        let (x, y) = tokio::join!(first.commit(&a), second.commit(&b));
        assert_eq!([x.is_ok(), y.is_ok()].iter().filter(|won| **won).count(), 1, "{x:?} {y:?}");
        let (winner, loser) = if x.is_ok() { (a, y) } else { (b, x) };
        assert!(matches!(loser, Err(StoreError::Committed { .. })), "{loser:?}");
        assert_eq!(repository.read_manifest(&id).await.unwrap(), winner);
        // The loser's cleaning up leaves the winner's backup whole.
        let (attempt, opens) = if matches!(loser, Err(StoreError::Committed { attempt, .. }) if attempt == *first.attempt())
        {
            second.abandon().await;
            (first.attempt().clone(), b"of the first".to_vec())
        } else {
            first.abandon().await;
            (second.attempt().clone(), b"of the second".to_vec())
        };
        assert_eq!(repository.read_manifest(&id).await.unwrap(), winner);
        assert_eq!(repository.read_keys(&id, &attempt, &key).await.unwrap(), [opens]);
    }
}

async fn a_zombie_cannot_commit(repository: &Repository, others: &Repository) {
    let id = id();
    let zombie = begin(repository, &id).await;
    write(zombie.sink(), "pack", pattern(1000)).await.unwrap();
    // Stopped for so long that its lease expires, and cleaned up by somebody.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(others.state(&id).await.unwrap(), Some(BackupState::Stale));
    assert_eq!(others.remove_stale(&id).await.unwrap(), Removal::Removed);
    // It wakes up, goes on writing, and commits.
    write(zombie.sink(), "pack-late", pattern(1000)).await.unwrap();
    let error = zombie.commit(&manifest(&id, zombie.attempt(), None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Claimed { .. }), "{error:?}");
    drop(zombie);
    assert!(matches!(others.read_manifest(&id).await, Err(StoreError::Deleted { .. })));
    // What it wrote late is found and removed.
    assert_eq!(others.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: true }));
    assert_eq!(others.remove_stale(&id).await.unwrap(), Removal::Removed);
    assert_eq!(others.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));
}

/// The same with a lease that really expires while the test waits.
fn soon_over(settings: StoreSettings) -> StoreSettings {
    StoreSettings { lease_valid: Duration::from_secs(1), ..stopped(settings) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_commit_in_a_bucket() {
    let server = S3Server::start();
    let repository = open(&server.url("p"), soon_over(StoreSettings::new(server.environment()))).await;
    repository.probe().await.unwrap();
    a_zombie_cannot_commit(&repository, &repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_commit_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", folder.path().display());
    let repository = open(&url, soon_over(StoreSettings::new::<String, String>([]))).await;
    repository.probe().await.unwrap();
    a_zombie_cannot_commit(&repository, &repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_that_its_backup_was_taken_away() {
    let Faulty { proxy, repository, server } = Faulty::start().await;
    let id = id();
    let run = begin(&repository, &id).await;
    // Its renewals do not arrive for a while, so it looks dead to others.
    proxy.fail(usize::MAX, Fault::Answer(503, "SlowDown"), |request| request.is("PUT", "lease.json"));
    let others = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    remove_expired(&others, &server.bucket(), &id).await;
    let error = tokio::time::timeout(SOON, run.lease_lost()).await.unwrap();
    assert!(matches!(error, StoreError::Claimed { .. }), "{error:?}");
    let error = run.commit(&manifest(&id, run.attempt(), None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Claimed { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_a_store_that_is_away_for_a_while() {
    let Faulty { proxy, repository, server } = Faulty::start().await;
    let id = id();
    let run = begin(&repository, &id).await;
    proxy.fail(6, Fault::Answer(503, "SlowDown"), |request| request.is("PUT", "lease.json"));
    // One renewal is done, but its answer is lost: the next must not take it for somebody else's.
    let lost = proxy.fail(1, Fault::LoseAnswerAndReset, |request| request.is("PUT", "lease.json"));
    until("the renewal whose answer is lost", async || lost.count() == 1).await;
    let renewals = async || proxy.count(|request| request.is("PUT", "lease.json"));
    let so_far = renewals().await;
    until("renewals after it", async || renewals().await >= so_far + 2).await;
    goes_on_renewing(&repository, &server, &id, &run).await;
    run.commit(&manifest(&id, run.attempt(), None)).await.unwrap();
    run.finish().await;
}

/// A lease that looks expired is renewed, and not lost.
async fn goes_on_renewing(repository: &Repository, server: &S3Server, id: &BackupId, run: &Run) {
    expire(&server.bucket());
    let state = async || repository.state(id).await.unwrap();
    until("it is renewed", async || state().await == Some(BackupState::Running)).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), run.lease_lost()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_be_renewed_for_long_is_lost() {
    let shorter = |settings: &mut StoreSettings| {
        settings.patience = Duration::from_secs(3);
        settings.lease_valid = Duration::from_secs(3);
    };
    let Faulty { proxy, repository, server: _server } = Faulty::start_with(shorter).await;
    let run = begin(&repository, &id()).await;
    proxy.fail(usize::MAX, Fault::Answer(503, "SlowDown"), |request| request.is("PUT", "lease.json"));
    let begun = Instant::now();
    let error = tokio::time::timeout(SOON, run.lease_lost()).await.unwrap();
    assert!(matches!(&error, StoreError::LeaseLost { why, .. } if why.contains("SlowDown")), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_compare_and_swap_still_has_leases() {
    let Faulty { proxy, repository, server } = Faulty::start().await;
    let id = id();
    let run = begin(&repository, &id).await;
    // As a server answers that does not know the header.
    let refused = proxy.fail(1, Fault::Answer(501, "NotImplemented"), |request| request.is("PUT", "lease.json"));
    until("a renewal by compare-and-swap", async || refused.count() == 1).await;
    goes_on_renewing(&repository, &server, &id, &run).await;
    run.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_its_run_gave_up_is_refused() {
    let short = |settings: &mut StoreSettings| settings.patience = Duration::from_secs(1);
    let Faulty { proxy, repository, server } = Faulty::start_with(short).await;
    let id = id();
    let run = begin(&repository, &id).await;
    write(run.sink(), "pack", pattern(1000)).await.unwrap();
    // The PUT hangs somewhere on its way; the run is told that it failed, and removes its data.
    let late = Fault::Late(Duration::from_secs(4), 503, "SlowDown");
    proxy.fail(1, late, |request| request.is("PUT", "manifest.json"));
    proxy.fail(10, Fault::Answer(503, "SlowDown"), |request| request.is("PUT", "manifest.json"));
    let error = run.commit(&manifest(&id, run.attempt(), None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    proxy.heal();
    run.abandon().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let direct = open(&server.url("p"), quick(StoreSettings::new(environment(&server.endpoint())))).await;
    assert_eq!(direct.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));
    let whole = backup(&direct, &id_at("next", 1), None).await;
    assert_eq!(whole.as_str().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_called_off_sees_it_and_can_never_commit() {
    let server = S3Server::start();
    let cloud = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    cloud.probe().await.unwrap();
    let (files, _folder) = directory().await;
    for repository in [cloud, files] {
        let id = id_at("unwanted", 0);
        let run = begin(&repository, &id).await;
        write(run.sink(), "pack", pattern(1 << 20)).await.unwrap();
        assert!(matches!(repository.delete(&id).await, Err(StoreError::Protected { .. })), "it is at work");
        assert!(repository.call_off(&id).await.unwrap());
        assert!(repository.call_off(&id).await.unwrap(), "again is as good");
        let lost = tokio::time::timeout(SOON, run.lease_lost()).await.unwrap();
        assert!(matches!(lost, StoreError::Claimed { .. }), "{lost:?}");
        let committed = run.commit(&manifest(&id, run.attempt(), None)).await;
        assert!(matches!(committed, Err(StoreError::Claimed { .. })), "{committed:?}");
        run.abandon().await;
        assert_eq!(repository.delete(&id).await.unwrap(), Removal::Removed);
        assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));

        let id = id_at("wanted", 1);
        let run = begin(&repository, &id).await;
        run.commit(&manifest(&id, run.attempt(), None)).await.unwrap();
        assert!(!repository.call_off(&id).await.unwrap(), "too late: it is complete, and stays");
        assert!(matches!(repository.state(&id).await.unwrap(), Some(BackupState::Complete { .. })));
        run.finish().await;
    }
}
