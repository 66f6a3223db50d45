//! What every backend must do, run over each.

use bytes::Bytes;
use stillframe::archive::id::{AttemptId, BackupId};
use stillframe::archive::object::ObjectError;
use stillframe::store::{BackupState, Capabilities, Removal, Repository, StoreError, StoreSettings, StoredBackup};
use tokio_util::sync::CancellationToken;

use crate::help::{backup, begin, blocking, directory, expire, id_at, manifest, open, pattern, quick, read, write};
use crate::support::s3::S3Server;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let (repository, folder) = directory().await;
    conforms(&repository, async || expire(folder.path())).await;
    abandons_half_written_files(&repository, &folder.path().join("store")).await;
    let left = crate::help::files_below(&folder.path().join("store"));
    assert!(left.iter().all(|path| !path.contains('#')), "half-written files stay: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_conforms() {
    let server = S3Server::start();
    let repository = open(&server.url("some/prefix"), quick(StoreSettings::new(server.environment()))).await;
    conforms(&repository, async || expire(&server.bucket())).await;
    // At the bucket's root, too; but there it meets the prefix of another.
    let root = open("s3://backups", quick(StoreSettings::new(server.environment()))).await;
    assert!(matches!(root.probe().await, Err(StoreError::Foreign { .. })));
}

/// The suite. Also run against an emulator of another cloud, by `make clouds`. `expire` makes leases old, or waits until
/// they are.
pub async fn conforms(repository: &Repository, expire: impl AsyncFn()) {
    probes_twice(repository).await;
    objects_come_back(repository).await;
    commits_once(repository).await;
    lists_and_resolves(repository).await;
    deletes(repository).await;
    gives_up_cleanly(repository, expire).await;
}

async fn probes_twice(repository: &Repository) {
    let all = Capabilities { list: true, delete: true };
    assert_eq!(repository.probe().await.unwrap(), all);
    assert_eq!(repository.probe().await.unwrap(), all);
    assert_eq!(repository.list().await.unwrap(), []);
}

async fn objects_come_back(repository: &Repository) {
    let id = id_at("objects", 0);
    let run = begin(repository, &id).await;
    // Nothing, a crumb, exactly a part, a part and a byte, several parts.
    let sizes = [0, 1, 5 << 20, (5 << 20) + 1, (17 << 20) + 12_345];
    let mut stored = Vec::new();
    for size in sizes {
        let name = format!("object-{size}");
        write(run.sink(), &name, pattern(size)).await.unwrap();
        stored.push((name, u64::try_from(size).unwrap()));
    }
    run.prove(&stored).await.unwrap();
    let source = repository.objects(&id, run.attempt(), &CancellationToken::new());
    for size in sizes {
        assert!(read(source.clone(), &format!("object-{size}")).await.unwrap() == pattern(size), "{size}");
    }
    let reader = source.clone();
    blocking(move || {
        assert_eq!(reader.read("object-1", 0, 0).unwrap(), Bytes::new());
        // Past the end, over the end, and from far away: each an error that names the object.
        for (offset, length) in [(0, 2), (1, 1), (5, 1), (u64::MAX, 2)] {
            let error = reader.read("object-1", offset, length).unwrap_err();
            assert!(matches!(&error, ObjectError::Failed { name, .. } if name == "object-1"), "{error:?}");
        }
        assert!(matches!(reader.read("nothing", 0, 1), Err(ObjectError::NotFound { .. })));
        assert!(matches!(reader.size("nothing"), Err(ObjectError::NotFound { .. })));
    })
    .await;
    assert!(matches!(run.prove(&[("nothing".to_owned(), 1)]).await, Err(StoreError::Missing { .. })));
    assert!(matches!(run.prove(&[("object-1".to_owned(), 2)]).await, Err(StoreError::Damaged { .. })));
    run.abandon().await;
    assert_eq!(repository.state(&id).await.unwrap(), None, "an abandoned run leaves nothing");
}

/// On file stores: whatever an upload had written when its run was given up goes with it.
async fn abandons_half_written_files(repository: &Repository, folder: &std::path::Path) {
    let id = id_at("half-written", 0);
    let run = begin(repository, &id).await;
    let beside = folder.join("backups").join(id.as_str()).join("data").join(run.attempt().as_str());
    std::fs::create_dir_all(&beside).unwrap();
    std::fs::write(beside.join("pack-000001#1"), b"half").unwrap();
    run.abandon().await;
    assert_eq!(repository.state(&id).await.unwrap(), None);
    assert!(!folder.join("backups").join(id.as_str()).exists(), "remains of an abandoned run");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_early_backups_are_found_where_they_are() {
    let (repository, folder) = directory().await;
    let id = id_at("early", 0);
    let run = begin(&repository, &id).await;
    run.put_key("00ff00ff00ff00ff", b"{}".to_vec()).await.unwrap();
    run.commit(&manifest(&id, run.attempt(), None)).await.unwrap();
    let keys = folder.path().join("store/backups").join(id.as_str()).join("keys");
    let own = keys.join(run.attempt().as_str());
    std::fs::copy(own.join("00ff00ff00ff00ff.json"), keys.join("00ff00ff00ff00ff.json")).unwrap();
    std::fs::remove_dir_all(own).unwrap();
    let read = repository.read_keys(&id, run.attempt(), &["00ff00ff00ff00ff".to_owned()]).await.unwrap();
    assert_eq!(read, [b"{}"]);
    run.finish().await;
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Removed);
    assert!(!keys.exists());
}

async fn commits_once(repository: &Repository) {
    let id = id_at("commits", 0);
    let run = begin(repository, &id).await;
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Running));
    assert!(matches!(repository.read_manifest(&id).await, Err(StoreError::Incomplete { .. })));
    run.put_key("00ff00ff00ff00ff", b"{}".to_vec()).await.unwrap();
    run.put_key("00ff00ff00ff00ff", b"{}".to_vec()).await.unwrap();
    let bytes = manifest(&id, run.attempt(), None);
    run.commit(&bytes).await.unwrap();
    // The same commit again is the same success.
    run.commit(&bytes).await.unwrap();
    let other = AttemptId::generate();
    assert_eq!(repository.read_manifest(&id).await.unwrap(), bytes);
    assert_eq!(repository.read_keys(&id, run.attempt(), &["00ff00ff00ff00ff".to_owned()]).await.unwrap(), [b"{}"]);
    assert!(matches!(
        repository.read_keys(&id, run.attempt(), &["11".to_owned()]).await,
        Err(StoreError::Missing { .. })
    ));
    run.finish().await;
    let again = repository.begin(&id, &other).await.map(|_| ());
    assert!(matches!(again, Err(StoreError::Committed { .. })), "{again:?}");
}

async fn lists_and_resolves(repository: &Repository) {
    let ids: Vec<BackupId> = (1..=3).map(|second| id_at("listed", second)).collect();
    // Not in order.
    for id in ids.iter().rev() {
        backup(repository, id, None).await;
    }
    let unfinished = id_at("listed", 4);
    let run = begin(repository, &unfinished).await;
    let listed = repository.list().await.unwrap();
    let of_name: Vec<_> = listed.iter().filter(|found| found.id.name() == "listed").collect();
    assert_eq!(of_name.iter().map(|found| &found.id).collect::<Vec<_>>(), [&ids[0], &ids[1], &ids[2], &unfinished]);
    assert!(
        of_name[..3]
            .iter()
            .all(|found| matches!(&found.state, BackupState::Complete { manifest } if !manifest.is_empty()))
    );
    assert_eq!(of_name[3].state, BackupState::Running);

    assert_eq!(repository.resolve("listed").await.unwrap(), ids[2], "the newest that is complete");
    assert_eq!(repository.resolve(ids[0].as_str()).await.unwrap(), ids[0]);
    assert!(matches!(repository.resolve(unfinished.as_str()).await, Err(StoreError::Incomplete { .. })));
    assert!(matches!(repository.resolve("no-such-name").await, Err(StoreError::NotFound { .. })));
    assert!(matches!(repository.resolve(id_at("x", 0).as_str()).await, Err(StoreError::NotFound { .. })));
    let lonely = id_at("lonely", 0);
    let other = begin(repository, &lonely).await;
    assert!(matches!(repository.resolve("lonely").await, Err(StoreError::Incomplete { .. })));
    run.abandon().await;
    other.abandon().await;
}

async fn deletes(repository: &Repository) {
    let id = id_at("deleted", 0);
    let attempt = backup(repository, &id, None).await;
    assert!(matches!(repository.remove_stale(&id).await, Err(StoreError::Complete { .. })));
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Removed);
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));
    assert!(matches!(repository.read_manifest(&id).await, Err(StoreError::Deleted { .. })));
    assert!(matches!(repository.resolve("deleted").await, Err(StoreError::NotFound { .. })));
    let source = repository.objects(&id, &attempt, &CancellationToken::new());
    assert!(matches!(read(source, "pack-000001").await, Err(ObjectError::NotFound { .. })));
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Removed, "again is as good");
    let missing = id_at("missing", 0);
    assert!(matches!(repository.delete(&missing).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(repository.remove_stale(&missing).await, Err(StoreError::NotFound { .. })));
}

async fn gives_up_cleanly(repository: &Repository, expire: impl AsyncFn()) {
    let id = id_at("given-up", 0);
    let run = begin(repository, &id).await;
    let sink = run.sink();
    // A writer dropped in the middle of its upload.
    blocking(move || {
        let mut writer = sink.create("dropped").unwrap();
        writer.write(Bytes::from(pattern(12 << 20))).unwrap();
    })
    .await;
    // A run that dies: nobody says anything, and the lease expires.
    drop(run);
    assert!(matches!(repository.remove_stale(&id).await, Err(StoreError::Protected { .. })));
    until("nobody renews it", async || {
        expire().await;
        repository.state(&id).await.unwrap() == Some(BackupState::Stale)
    })
    .await;
    assert_eq!(repository.remove_stale(&id).await.unwrap(), Removal::Removed);
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));
}

/// Of a thousand manifests of up to a MiB each, a few are held at a time: what lies far ahead is not read yet.
#[tokio::test]
async fn a_list_is_shown_while_it_is_read() {
    let (repository, folder) = directory().await;
    let ids: Vec<BackupId> = (0..60).map(|second| id_at("many", second)).collect();
    for id in &ids {
        backup(&repository, id, None).await;
    }
    let last = folder.path().join("store/backups").join(ids[59].as_str());
    assert!(last.exists());
    let mut shown = Vec::new();
    let show = |stored: StoredBackup| {
        if shown.is_empty() {
            std::fs::remove_dir_all(&last).unwrap();
        }
        shown.push(stored.id);
    };
    repository.list_each(show).await.unwrap();
    assert_eq!(shown, ids[..59]);
}
