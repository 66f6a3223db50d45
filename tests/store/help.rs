//! What all tests of the store share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use stillframe::archive::id::{AttemptId, BackupId};
use stillframe::archive::object::{ObjectError, ObjectSink, ObjectSource};
use stillframe::store::{Removal, Repository, Run, RunOptions, StoreError, StoreSettings};
use tempfile::TempDir;

use crate::support::proxy::Proxy;
use crate::support::s3::{S3Server, environment};
use crate::support::wait::until;

/// A server, a proxy before it, and a repository behind both.
pub struct Faulty {
    pub proxy: Proxy,
    pub repository: Repository,
    pub server: S3Server,
}

impl Faulty {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut StoreSettings)) -> Self {
        let server = S3Server::start();
        let proxy = Proxy::start(server.address());
        let mut settings = quick(StoreSettings::new(environment(&proxy.endpoint())));
        change(&mut settings);
        let repository = open(&server.url("p"), settings).await;
        repository.probe().await.unwrap();
        Self { proxy, repository, server }
    }
}

/// Settings under which tests need not wait long: leases that are renewed often, parts of 5 MiB, the least that S3 takes.
pub fn quick(settings: StoreSettings) -> StoreSettings {
    StoreSettings { lease_every: Duration::from_millis(500), part_bytes: 5 << 20, ..settings }
}

/// A run that never renews, as if its process were stopped.
pub fn stopped(settings: StoreSettings) -> StoreSettings {
    StoreSettings { lease_every: Duration::from_hours(1), ..quick(settings) }
}

/// Makes every lease below a folder look as if it had been written an hour ago. Stores date their objects by the files
/// that they keep them in, and so a test need not wait until a lease expires.
pub fn expire(folder: &Path) {
    let leases: Vec<String> = files_below(folder).into_iter().filter(|path| path.ends_with("lease.json")).collect();
    assert!(!leases.is_empty(), "no lease below {}", folder.display());
    for lease in leases {
        // One that is renewed at this moment may not be there.
        if let Ok(file) = std::fs::File::options().write(true).open(folder.join(lease)) {
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - Duration::from_hours(1)).unwrap();
        }
    }
}

/// Removes a run whose lease is renewed no more, but for a renewal that may be on its way.
pub async fn remove_expired(repository: &Repository, folder: &Path, id: &BackupId) {
    until("what is expired can be removed", async || {
        expire(folder);
        match repository.remove_stale(id).await {
            Ok(removal) => {
                assert_eq!(removal, Removal::Removed);
                true
            }
            Err(StoreError::Protected { .. }) => false,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
}

pub async fn open(url: &str, settings: StoreSettings) -> Repository {
    Repository::open_with(&url.parse().unwrap(), settings, true).await.unwrap()
}

/// A repository in a directory that is removed with the guard.
pub async fn directory() -> (Repository, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = quick(StoreSettings::new::<String, String>([]));
    let repository = open(&format!("file://{}/store", folder.path().display()), settings).await;
    repository.probe().await.unwrap();
    (repository, folder)
}

/// An id of a backup that began at this second.
pub fn id_at(name: &str, second: i64) -> BackupId {
    BackupId::generate(name, Timestamp::from_second(1_773_500_000 + second).unwrap()).unwrap()
}

pub fn id() -> BackupId {
    id_at("nightly", 0)
}

/// The least manifest that the store can tell from a tombstone.
pub fn manifest(id: &BackupId, attempt: &AttemptId, parent: Option<&BackupId>) -> Vec<u8> {
    let parent = parent.map_or("null".to_owned(), |parent| format!("\"{parent}\""));
    format!("{{\"format\":1,\"id\":\"{id}\",\"attempt\":\"{attempt}\",\"parent\":{parent}}}").into_bytes()
}

/// Begins a run of a new attempt.
pub async fn begin(repository: &Repository, id: &BackupId) -> Run {
    repository.begin(id, &AttemptId::generate()).await.unwrap()
}

pub async fn begin_on(repository: &Repository, id: &BackupId, parent: &BackupId) -> Run {
    let options = RunOptions { parent: Some(parent.clone()), ..RunOptions::default() };
    repository.begin_with(id, &AttemptId::generate(), options).await.unwrap()
}

/// Makes a whole small backup.
pub async fn backup(repository: &Repository, id: &BackupId, parent: Option<&BackupId>) -> AttemptId {
    let run = match parent {
        Some(parent) => begin_on(repository, id, parent).await,
        None => begin(repository, id).await,
    };
    write(run.sink(), "pack-000001", pattern(100_000)).await.unwrap();
    run.prove(&[("pack-000001".to_owned(), 100_000)]).await.unwrap();
    run.commit(&manifest(id, run.attempt(), parent)).await.unwrap();
    let attempt = run.attempt().clone();
    run.finish().await;
    attempt
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()).collect()
}

/// Writes an object from a plain thread, in pieces as an archive would.
pub async fn write(sink: Arc<dyn ObjectSink>, name: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
    let name = name.to_owned();
    blocking(move || {
        let mut writer = sink.create(&name)?;
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            writer.write(bytes.split_to(bytes.len().min(1_000_003)))?;
        }
        writer.finish()
    })
    .await
}

/// Reads a whole object from a plain thread, in ranges.
pub async fn read(source: Arc<dyn ObjectSource>, name: &str) -> Result<Vec<u8>, ObjectError> {
    let name = name.to_owned();
    blocking(move || {
        let size = source.size(&name)?;
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < size {
            let length = (size - at).min(3_000_001);
            bytes.extend_from_slice(&source.read(&name, at, length)?);
            at += length;
        }
        Ok(bytes)
    })
    .await
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(send.send(work())));
    receive.await.unwrap()
}

/// The files below a folder, by path.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
