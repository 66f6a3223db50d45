//! What is found out before anything is stored: wrong addresses, wrong keys, wrong stores. Not with the patience of
//! the work itself, which is minutes.

use std::time::Instant;

use stillframe::store::{Repository, StoreError, StoreSettings};

use crate::help::{begin, directory, files_below, id, open, quick};
use crate::support::certificate::self_signed;
use crate::support::proxy::{Fault, Proxy};
use crate::support::s3::{S3Server, environment, free_address};

/// Probes and returns the error with its cause in one text; must not take as long as work would be tried.
async fn refused(url: &str, environment: Vec<(String, String)>) -> (StoreError, String) {
    let begun = Instant::now();
    let settings = StoreSettings::new(environment);
    let error = match Repository::open_with(&url.parse().unwrap(), settings, true).await {
        Ok(repository) => repository.probe().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(begun.elapsed() < StoreSettings::PATIENCE / 4, "{:?}: {error}", begun.elapsed());
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {cause}");
    assert!(!text.contains("secret"), "{text}");
    (error, text)
}

fn with(mut environment: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
    environment.retain(|(known, _)| known != name);
    environment.push((name.to_owned(), value.to_owned()));
    environment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_endpoint_shows_in_seconds() {
    let nobody = format!("http://{}", free_address());
    let (error, text) = refused("s3://backups/p", environment(&nobody)).await;
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(text.contains("refused") && text.contains(&nobody[7..]), "{text}");
    let (_, text) = refused("s3://backups/p", environment("http://no-such-host.invalid")).await;
    assert!(text.contains("no-such-host.invalid"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_answers_shows_in_seconds() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    proxy.fail(usize::MAX, Fault::Hang, |_| true);
    let (error, text) = refused(&server.url("p"), environment(&proxy.endpoint())).await;
    assert!(matches!(error, StoreError::Failed { .. }) && text.contains("no answer"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_buckets_are_said() {
    let server = S3Server::start();
    let wrong = with(server.environment(), "AWS_SECRET_ACCESS_KEY", "other-secret");
    let (error, text) = refused(&server.url("p"), wrong).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    let unknown = with(server.environment(), "AWS_ACCESS_KEY_ID", "nobody");
    let (error, text) = refused(&server.url("p"), unknown).await;
    // This server answers 404 to an unknown key. That must not pass for a missing object.
    assert!(matches!(error, StoreError::Failed { .. }) && text.contains("No user exists"), "{error:?}");
    let (error, text) = refused("s3://no-such-bucket/p", server.environment()).await;
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?} {text}");
    let (error, text) = refused(&server.url("p"), with(server.environment(), "AWS_ALLOW_HTTP", "perhaps")).await;
    assert!(matches!(error, StoreError::Settings { .. }), "{error:?} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_certificate_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = self_signed(folder.path(), "store", "IP:127.0.0.1");
    let server = S3Server::start_tls(&certificate, &key);
    let (error, text) = refused(&server.url("p"), server.environment()).await;
    assert!(matches!(error, StoreError::Failed { .. }) && text.contains("certificate"), "{text}");
    let trusting = with(server.environment(), "AWS_CA_BUNDLE", certificate.to_str().unwrap());
    let repository = open(&server.url("p"), quick(StoreSettings::new(trusting))).await;
    repository.probe().await.unwrap();
    let (error, text) = refused(&server.url("p"), with(server.environment(), "AWS_CA_BUNDLE", "/no/such/file")).await;
    assert!(matches!(error, StoreError::Settings { .. }) && text.contains("/no/such/file"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_replaces_what_exists_is_refused() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    // Answers like one that does not know the condition: "done" to the second create, too.
    proxy.fail_after(1, usize::MAX, Fault::Answer(200, "Fine"), |r| r.is("PUT", "stillframe-repository.json"));
    let (error, text) = refused(&server.url("p"), environment(&proxy.endpoint())).await;
    assert!(matches!(error, StoreError::NoCreateOnly { .. }), "{text}");
    proxy.heal();
    proxy.fail(usize::MAX, Fault::Answer(501, "NotImplemented"), |r| r.is("PUT", "stillframe-repository.json"));
    let (error, text) = refused(&server.url("p"), environment(&proxy.endpoint())).await;
    assert!(matches!(error, StoreError::NoCreateOnly { .. }), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_prefix_is_refused_and_left_alone() {
    let server = S3Server::start();
    let folder = server.bucket().join("p/of/others");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), b"theirs").unwrap();
    let (error, text) = refused(&server.url("p"), server.environment()).await;
    assert!(matches!(error, StoreError::Foreign { .. }) && text.contains("p/of/others/file"), "{text}");
    std::fs::write(server.bucket().join("q"), b"").unwrap();
    std::fs::create_dir_all(server.bucket().join("r")).unwrap();
    std::fs::write(server.bucket().join("r/stillframe-repository.json"), b"{\"format\":1}").unwrap();
    let (error, _) = refused(&server.url("r"), server.environment()).await;
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    let later = b"{\"product\":\"stillframe\",\"format\":2,\"created\":\"2026-03-14T15:09:26Z\",\"nonce\":\"\"}";
    std::fs::write(server.bucket().join("r/stillframe-repository.json"), later).unwrap();
    let (error, _) = refused(&server.url("r"), server.environment()).await;
    assert!(matches!(error, StoreError::UnknownFormat { format: 2, .. }), "{error:?}");
    assert_eq!(files_below(&server.bucket()), ["p/of/others/file", "q", "r/stillframe-repository.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_probes_at_once_agree() {
    let server = S3Server::start();
    let repository = open(&server.url("p"), quick(StoreSettings::new(server.environment()))).await;
    let probes = futures::future::join_all((0..8).map(|_| repository.probe())).await;
    for probe in probes {
        probe.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_but_not_their_parents() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| format!("file://{}/{path}", folder.path().display());
    let (error, text) = refused(&at("missing/store"), Vec::new()).await;
    assert!(matches!(error, StoreError::Directory { .. }) && text.contains("does not exist"), "{text}");
    let settings = StoreSettings::new::<String, String>([]);
    let existing = Repository::open_with(&at("store").parse().unwrap(), settings.clone(), false).await.map(|_| ());
    assert!(matches!(existing, Err(StoreError::Directory { .. })), "{existing:?}");
    assert!(!folder.path().join("store").exists());
    open(&at("store"), settings.clone()).await.probe().await.unwrap();
    Repository::open_with(&at("store").parse().unwrap(), settings, false).await.unwrap().probe().await.unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let (error, _) = refused(&at("file"), Vec::new()).await;
    assert!(matches!(error, StoreError::Directory { .. }), "{error:?}");
    std::fs::create_dir_all(folder.path().join("theirs/lost+found")).unwrap();
    open(&at("theirs"), StoreSettings::new::<String, String>([])).await.probe().await.unwrap();
    std::fs::create_dir_all(folder.path().join("foreign/x")).unwrap();
    let (error, _) = refused(&at("foreign"), Vec::new()).await;
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_is_shown_and_can_be_deleted() {
    use stillframe::store::{BackupState, Removal};
    let (repository, folder) = directory().await;
    let id = id();
    begin(&repository, &id).await.abandon().await;
    let at = folder.path().join("store/backups").join(id.as_str());
    std::fs::create_dir_all(at.join("data/x")).unwrap();
    std::fs::write(at.join("data/x/pack"), b"x").unwrap();
    for (bytes, why) in [(b"{}".to_vec(), "id"), (vec![b' '; (1 << 20) + 1], "bytes")] {
        std::fs::write(at.join("manifest.json"), bytes).unwrap();
        let state = repository.state(&id).await.unwrap();
        assert!(matches!(&state, Some(BackupState::Damaged { why: said }) if said.contains(why)), "{state:?}");
        assert!(repository.read_manifest(&id).await.is_err());
    }
    assert_eq!(repository.delete(&id).await.unwrap(), Removal::Removed);
    assert_eq!(repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));
}
