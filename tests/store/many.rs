//! More keys than a store tells of in one answer: S3's listings come in pages of 1000.

use stillframe::archive::id::AttemptId;
use stillframe::store::{BackupState, Removal, StoreError};

use crate::help::{Faulty, backup, files_below, id_at, manifest};
use crate::support::proxy::Request;

const MANY: i64 = 1100;

/// A listing that goes on where the one before ended.
fn is_next_page(request: &Request) -> bool {
    request.is_list() && request.query.contains("continuation-token=")
}

#[tokio::test(flavor = "multi_thread")]
async fn more_backups_than_a_page_has_are_all_listed() {
    let faulty = Faulty::start().await;
    let ids: Vec<_> = (0..MANY).map(|second| id_at("many", second)).collect();
    // The bucket's objects are files: written at once, and one more in the store's own way.
    for id in &ids {
        let folder = faulty.server.bucket().join("p/backups").join(id.as_str());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("manifest.json"), manifest(id, &AttemptId::generate(), None)).unwrap();
    }
    let last = id_at("many", MANY);
    backup(&faulty.repository, &last, None).await;
    let pages = faulty.proxy.count(is_next_page);

    let listed = faulty.repository.list().await.unwrap();
    assert!(listed.iter().all(|found| matches!(found.state, BackupState::Complete { .. })));
    let found: Vec<_> = listed.into_iter().map(|found| found.id).collect();
    assert_eq!(found, ids.into_iter().chain([last.clone()]).collect::<Vec<_>>());
    assert!(faulty.proxy.count(is_next_page) > pages, "the server told of all in one page");
    assert_eq!(faulty.repository.resolve("many").await.unwrap(), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_a_page_has_are_all_deleted() {
    let faulty = Faulty::start().await;
    let id = id_at("large", 0);
    let attempt = backup(&faulty.repository, &id, None).await;
    let folder = faulty.server.bucket().join("p/backups").join(id.as_str());
    for number in 0..MANY {
        std::fs::write(folder.join(format!("data/{attempt}/pack-{number:06}")), b"x").unwrap();
    }
    let pages = faulty.proxy.count(is_next_page);
    assert_eq!(faulty.repository.delete(&id).await.unwrap(), Removal::Removed);
    assert!(faulty.proxy.count(is_next_page) > pages, "the server told of all in one page");
    assert_eq!(files_below(&faulty.server.bucket().join("p/backups")), [format!("{id}/manifest.json")]);
    assert!(matches!(faulty.repository.read_manifest(&id).await, Err(StoreError::Deleted { .. })));
}
