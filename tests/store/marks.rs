//! Pins and expiry: they lie beside the manifest, and a pinned backup cannot be deleted.

use stillframe::store::{BackupState, Marks, Removal, StoreError, StoreSettings};

use crate::help::{Faulty, backup, begin, directory, id_at, open, quick};
use crate::support::s3::S3Server;

fn pinned() -> Marks {
    Marks { pinned: true, expiration_time: Some("2030-01-01T00:00:00Z".parse().unwrap()) }
}

async fn keep_and_let_go(repository: &stillframe::store::Repository) {
    let (kept, other) = (id_at("kept", 0), id_at("other", 1));
    backup(repository, &kept, None).await;
    backup(repository, &other, None).await;
    assert_eq!(repository.read_marks(&kept).await.unwrap(), Marks::default());
    let later = |marks: &Marks| Marks { expiration_time: pinned().expiration_time, ..marks.clone() };
    assert!(repository.set_pinned(&kept, true).await.unwrap());
    assert_eq!(repository.update_marks(&kept, later).await.unwrap(), pinned(), "the pin is still there");
    assert_eq!(repository.update_marks(&kept, later).await.unwrap(), pinned());
    let listed = repository.list().await.unwrap();
    let marks: Vec<&Marks> = listed.iter().map(|stored| &stored.marks).collect();
    assert_eq!(marks, [&pinned(), &Marks::default()]);

    let error = repository.delete(&kept).await.unwrap_err();
    assert!(matches!(error, StoreError::Pinned { .. }), "{error:?}");
    assert!(matches!(repository.state(&kept).await.unwrap(), Some(BackupState::Complete { .. })), "not condemned");
    assert!(repository.set_pinned(&kept, false).await.unwrap());
    assert!(!repository.set_pinned(&kept, false).await.unwrap(), "nothing changed");
    assert_eq!(repository.read_marks(&kept).await.unwrap().expiration_time, pinned().expiration_time, "that stays");
    assert_eq!(repository.delete(&kept).await.unwrap(), Removal::Removed);

    // What is gone cannot be kept any more, and nothing of the marks is left.
    let error = repository.set_pinned(&kept, true).await.unwrap_err();
    assert!(matches!(error, StoreError::Deleted { .. }), "{error:?}");
    assert!(matches!(repository.state(&kept).await.unwrap(), Some(BackupState::Deleted { remains: false })));
    assert_eq!(repository.read_marks(&kept).await.unwrap(), Marks::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_backup_stays_in_a_bucket() {
    let server = S3Server::start();
    let repository = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    repository.probe().await.unwrap();
    keep_and_let_go(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_backup_stays_in_a_directory() {
    let (repository, _folder) = directory().await;
    keep_and_let_go(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_complete_has_marks() {
    let (repository, _folder) = directory().await;
    let id = id_at("running", 0);
    let error = repository.update_marks(&id, |_| pinned()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
    let run = begin(&repository, &id).await;
    let error = repository.update_marks(&id, |_| pinned()).await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error:?}");
    run.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pin_and_a_deletion_at_once_one_gives_way() {
    let faulty = Faulty::start().await;
    for round in 0..12 {
        let id = id_at("kept", round);
        backup(&faulty.repository, &id, None).await;
        let (pin, deletion) = tokio::join!(faulty.repository.set_pinned(&id, true), faulty.repository.delete(&id));
        let state = faulty.repository.state(&id).await.unwrap();
        match (pin, deletion) {
            // Never both: a pin that was promised is kept.
            (Ok(_), Err(StoreError::Pinned { .. })) => {
                assert!(matches!(state, Some(BackupState::Complete { .. })), "{state:?}");
            }
            (Err(StoreError::Deleted { .. } | StoreError::NotFound { .. }), Ok(Removal::Removed)) => {
                assert!(matches!(state, Some(BackupState::Deleted { .. })), "{state:?}");
            }
            // Each saw the other: the backup stays, and whoever pins again has it pinned.
            (Err(StoreError::Deleted { .. }), Err(StoreError::Pinned { .. })) => {
                assert!(matches!(state, Some(BackupState::Complete { .. })), "{state:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_that_cannot_be_read_may_be_a_pin() {
    let (repository, folder) = directory().await;
    let id = id_at("kept", 0);
    backup(&repository, &id, None).await;
    let path = folder.path().join(format!("store/backups/{id}/marks.json"));
    std::fs::write(&path, "{\"pinned\": tr").unwrap();
    assert!(repository.list().await.unwrap()[0].marks.pinned, "shown as one");
    let error = repository.delete(&id).await.unwrap_err();
    assert!(matches!(&error, StoreError::Protected { why, .. } if why.contains("marks.json")), "{error:?}");
    repository.set_pinned(&id, false).await.unwrap();
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Removed);
}
