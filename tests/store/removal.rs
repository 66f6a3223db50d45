//! What may be deleted, and what a store allows to be deleted.

use stillframe::store::{BackupState, Capabilities, Removal, StoreError, StoreSettings};

use crate::help::{
    Faulty, backup, begin, begin_on, directory, expire, files_below, id_at, manifest, open, pattern, quick,
    remove_expired, stopped, write,
};
use crate::support::proxy::{Fault, Request};
use crate::support::s3::S3Server;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_stays_while_an_increment_needs_it() {
    let server = S3Server::start();
    let repository = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    repository.probe().await.unwrap();
    let (base, child) = (id_at("base", 0), id_at("child", 1));
    backup(&repository, &base, None).await;
    // A run that builds on it.
    let run = begin_on(&repository, &child, &base).await;
    let error = repository.delete(&base).await.unwrap_err();
    assert!(matches!(&error, StoreError::Protected { why, .. } if why.contains(child.as_str())), "{error:?}");
    assert!(matches!(repository.state(&base).await.unwrap(), Some(BackupState::Complete { .. })), "not condemned");
    run.commit(&manifest(&child, run.attempt(), Some(&base))).await.unwrap();
    run.finish().await;
    // A backup that builds on it.
    assert!(matches!(repository.delete(&base).await, Err(StoreError::Protected { .. })));
    assert_eq!(repository.resolve("base").await.unwrap(), base);
    // Children first.
    assert_eq!(repository.delete(&child).await.unwrap(), Removal::Removed);
    assert_eq!(repository.delete(&base).await.unwrap(), Removal::Removed);
    let late = stillframe::store::RunOptions { parent: Some(base.clone()), ..Default::default() };
    let id = id_at("late", 2);
    let refused = repository.begin_with(&id, &stillframe::archive::id::AttemptId::generate(), late).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Deleted { .. })), "{refused:?}");
    assert_eq!(repository.state(&id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_child_is_claimed_before_its_parent_goes() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", folder.path().display());
    let repository = open(&url, stopped(StoreSettings::new::<String, String>([]))).await;
    repository.probe().await.unwrap();
    let (base, child) = (id_at("base", 0), id_at("child", 1));
    backup(&repository, &base, None).await;
    let zombie = begin_on(&repository, &child, &base).await;
    expire(folder.path());
    assert_eq!(repository.delete(&base).await.unwrap(), Removal::Removed);
    let error = zombie.commit(&manifest(&child, zombie.attempt(), Some(&base))).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Claimed { .. }),
        "an increment whose parent is gone must not appear: {error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_deletions_and_increments_at_once_one_gives_way() {
    let (repository, _folder) = directory().await;
    for round in 0..8 {
        let (base, child) = (id_at("base", round), id_at("child", round));
        backup(&repository, &base, None).await;
        let options = stillframe::store::RunOptions { parent: Some(base.clone()), ..Default::default() };
        let attempt = stillframe::archive::id::AttemptId::generate();
        let (run, first, second) = tokio::join!(
            repository.begin_with(&child, &attempt, options),
            repository.delete(&base),
            repository.delete(&base)
        );
        let state = repository.state(&base).await.unwrap();
        match run {
            Ok(run) => {
                assert!(matches!(state, Some(BackupState::Complete { .. })), "{state:?} {first:?} {second:?}");
                run.abandon().await;
            }
            Err(error) => assert!(matches!(error, StoreError::Deleted { .. }), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deletion_is_taken_up_again() {
    let faulty = Faulty::start().await;
    let id = id_at("half", 0);
    backup(&faulty.repository, &id, None).await;
    let (repository, proxy) = (&faulty.repository, &faulty.proxy);
    // The process dies when only the tombstone beside is there …
    proxy.fail(usize::MAX, Fault::Answer(400, "Dead"), |request| request.is("PUT", "manifest.json"));
    repository.delete(&id).await.unwrap_err();
    proxy.heal();
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: true }));
    assert!(matches!(repository.read_manifest(&id).await, Err(StoreError::Deleted { .. })));
    // … and the next when data is to go.
    proxy.fail(usize::MAX, Fault::Answer(400, "Dead"), |request| request.method == "DELETE");
    repository.remove_stale(&id).await.unwrap_err();
    proxy.heal();
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: true }));
    assert_eq!(repository.remove_stale(&id).await.unwrap(), Removal::Removed);
    let left = files_below(&faulty.server.bucket().join("p/backups"));
    assert_eq!(left, [format!("{id}/manifest.json")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_gives_way_to_one_that_found_a_pin_meanwhile() {
    let faulty = Faulty::start().await;
    let (id, other) = (id_at("wanted", 0), id_at("other", 1));
    backup(&faulty.repository, &id, None).await;
    backup(&faulty.repository, &other, None).await;
    let bucket = faulty.server.bucket();
    // It condemns the backup, sees no pin, and then takes long to find out that nobody builds on it.
    let hits = faulty.proxy.fail(1, Fault::Hold, |request| request.method == "GET" && request.path.contains("/other-"));
    let slow = {
        let (repository, id) = (faulty.repository.clone(), id.clone());
        tokio::spawn(async move { repository.delete(&id).await })
    };
    until("it waits", async || hits.count() == 1).await;
    // Whoever pins it had looked for a tombstone before; and another deletion sees the pin.
    std::fs::write(bucket.join(format!("p/backups/{id}/marks.json")), br#"{"pinned": true}"#).unwrap();
    let quick = open(&faulty.server.url("p"), quick(StoreSettings::new(faulty.server.environment()))).await;
    assert!(matches!(quick.delete(&id).await, Err(StoreError::Pinned { .. })));
    faulty.proxy.heal();
    let error = slow.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Protected { .. } | StoreError::Pinned { .. }), "{error:?}");
    assert!(matches!(quick.state(&id).await.unwrap(), Some(BackupState::Complete { .. })), "it was promised to stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runs_uploads_are_aborted() {
    let faulty = Faulty::start().await;
    let id = id_at("killed", 0);
    let run = begin(&faulty.repository, &id).await;
    let sink = run.sink();
    // An upload that hangs when its process dies, long enough for the lease to name it.
    faulty.proxy.fail(usize::MAX, Fault::Hang, Request::is_part);
    let writer = tokio::spawn(write(sink, "pack", pattern(40 << 20)));
    let lease = faulty.server.bucket().join(format!("p/backups/{id}/lease.json"));
    until("the lease names it", async || std::fs::read_to_string(&lease).is_ok_and(|text| text.contains("pack"))).await;
    std::mem::forget(writer);
    drop(run);
    remove_expired(&faulty.repository, &faulty.server.bucket(), &id).await;
    let aborted = |request: &Request| request.is("DELETE", "/pack") && request.query.contains("uploadId=");
    assert_eq!(faulty.proxy.count(aborted), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forbids_deleting_is_welcome() {
    let server = S3Server::start();
    let proxy = crate::support::proxy::Proxy::start(server.address());
    proxy.fail(usize::MAX, Fault::Answer(403, "AccessDenied"), |request| request.method == "DELETE");
    let settings = quick(StoreSettings::new(crate::support::s3::environment(&proxy.endpoint())));
    let repository = open(&server.url("p"), settings).await;
    assert_eq!(repository.probe().await.unwrap(), Capabilities { list: true, delete: false });
    let id = id_at("kept", 0);
    backup(&repository, &id, None).await;
    assert_eq!(repository.resolve("kept").await.unwrap(), id);
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Retained);
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: true }));
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Retained, "again, without an error loop");
    let failed = begin(&repository, &id_at("failed", 0)).await;
    write(failed.sink(), "pack", pattern(100)).await.unwrap();
    failed.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_only_write_are_enough_for_a_backup() {
    let server = S3Server::start();
    let proxy = crate::support::proxy::Proxy::start(server.address());
    proxy.fail(usize::MAX, Fault::Answer(403, "AccessDenied"), |request| request.method == "DELETE");
    proxy.fail(usize::MAX, Fault::Answer(403, "AccessDenied"), Request::is_list);
    // Without permission to list, a store says "forbidden" of what is missing.
    proxy.fail(usize::MAX, Fault::HideMissing, |request| request.method == "GET" || request.method == "HEAD");
    let settings = quick(StoreSettings::new(crate::support::s3::environment(&proxy.endpoint())));
    let repository = open(&server.url("p"), settings).await;
    for _ in 0..2 {
        assert_eq!(repository.probe().await.unwrap(), Capabilities { list: false, delete: false });
    }
    let (base, child) = (id_at("base", 0), id_at("child", 1));
    backup(&repository, &base, None).await;
    backup(&repository, &child, Some(&base)).await;
    assert_eq!(repository.resolve(base.as_str()).await.unwrap(), base, "an id needs no listing");
    assert!(matches!(repository.resolve("base").await, Err(StoreError::Denied { .. })));
    assert!(matches!(repository.list().await, Err(StoreError::Denied { .. })));
    assert_eq!(repository.delete(&child).await.unwrap(), Removal::Retained);
    // Whole for those who may see.
    let direct = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    assert_eq!(direct.list().await.unwrap().len(), 2);
    let noted = std::fs::read_to_string(server.bucket().join("p/stillframe-capabilities.json")).unwrap();
    assert!(noted.contains("\"delete\": false"), "{noted}");
}
