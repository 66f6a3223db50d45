//! Requests that fail, and answers that are lost, on the way to a real server.

use std::time::Duration;

use bytes::Bytes;
use stillframe::archive::object::ObjectError;
use stillframe::store::{BackupState, RunOptions, StoreError, StoreSettings};
use tokio_util::sync::CancellationToken;

use crate::help::{Faulty, backup, begin, blocking, files_below, id, manifest, pattern, read, write};
use crate::support::proxy::{Fault, Hits, Proxy, Request};
use crate::support::wait::{SOON, until};

const SIZE: usize = (16 << 20) + 777;

/// Uploads an object in four parts while requests fail, and reads it back.
async fn upload_survives(faulty: &Faulty) {
    let id = id();
    let run = begin(&faulty.repository, &id).await;
    write(run.sink(), "pack", pattern(SIZE)).await.unwrap();
    run.prove(&[("pack".to_owned(), u64::try_from(SIZE).unwrap())]).await.unwrap();
    let source = faulty.repository.objects(&id, run.attempt(), &CancellationToken::new());
    assert!(read(source, "pack").await.unwrap() == pattern(SIZE));
    run.commit(&manifest(&id, run.attempt(), None)).await.unwrap();
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_answers_and_resets_on_any_request_are_survived() {
    let faulty = Faulty::start().await;
    let kinds =
        [Fault::Answer(503, "SlowDown"), Fault::Reset, Fault::Answer(500, "InternalError"), Fault::LoseAnswerAndReset];
    let mut hits = Vec::new();
    for fault in kinds {
        hits.push(faulty.proxy.fail(2, fault, Request::is_part));
        hits.push(
            faulty.proxy.fail(1, fault, |request| request.method == "POST" && request.query.starts_with("uploads")),
        );
        hits.push(faulty.proxy.fail(1, fault, |request| request.is("GET", "pack")));
        hits.push(faulty.proxy.fail(1, fault, |request| request.is("HEAD", "pack")));
    }
    upload_survives(&faulty).await;
    assert!(hits.iter().all(|hits| hits.count() > 0), "{:?}", hits.iter().map(Hits::count).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_answered_late_or_never_arrives_nevertheless() {
    let slow = Faulty::start().await;
    // Within the time of a request.
    let late = slow.proxy.fail(2, Fault::Delay(Duration::from_secs(2)), Request::is_part);
    upload_survives(&slow).await;
    assert_eq!(late.count(), 2);
    assert_eq!(slow.proxy.count(Request::is_part), 4, "a part that was only late was sent again");

    let silent = Faulty::start_with(|settings| settings.data_request = Duration::from_secs(3)).await;
    let never = silent.proxy.fail(2, Fault::Hang, Request::is_part);
    // The proxy itself breaks the connection off after a minute.
    tokio::time::timeout(SOON / 4 * 3, upload_survives(&silent)).await.expect("it waits for an answer");
    assert_eq!(never.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_complete_is_success() {
    for fault in
        [Fault::LoseAnswer(500, "InternalError"), Fault::LoseAnswerAndReset, Fault::LoseAnswer(404, "NoSuchUpload")]
    {
        let faulty = Faulty::start().await;
        let lost = faulty.proxy.fail(1, fault, Request::is_complete);
        upload_survives(&faulty).await;
        assert_eq!(lost.count(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_inside_a_successful_answer_is_an_error() {
    let faulty = Faulty::start().await;
    // S3 answers 200 to "complete" and says in the body that it failed.
    let failed = faulty.proxy.fail(2, Fault::Answer(200, "InternalError"), Request::is_complete);
    upload_survives(&faulty).await;
    assert_eq!(failed.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_that_fails_for_good_fails_the_object_and_leaves_no_upload() {
    let faulty = Faulty::start().await;
    let run = begin(&faulty.repository, &id()).await;
    faulty.proxy.fail(usize::MAX, Fault::Answer(400, "InvalidPart"), Request::is_complete);
    let error = write(run.sink(), "pack", pattern(SIZE)).await.unwrap_err();
    let ObjectError::Failed { name, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(name, "pack");
    let cause = std::error::Error::source(source.as_ref()).unwrap().to_string();
    assert!(cause.contains("400") && cause.contains("InvalidPart"), "{cause}");
    run.abandon().await;
    let left = files_below(&faulty.server.bucket().join("p/backups"));
    assert_eq!(left, Vec::<String>::new());
    let aborted = |request: &Request| request.method == "DELETE" && request.query.contains("uploadId=");
    assert!(faulty.proxy.count(aborted) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_small_object_is_success() {
    for fault in [Fault::LoseAnswer(503, "SlowDown"), Fault::LoseAnswerAndReset] {
        let faulty = Faulty::start().await;
        let run = begin(&faulty.repository, &id()).await;
        let lost = faulty.proxy.fail(1, fault, |request| request.is("PUT", "index"));
        write(run.sink(), "index", pattern(5000)).await.unwrap();
        assert_eq!(lost.count(), 1);
        // The second of that name is not the first's echo, whatever its size.
        let mut other = pattern(5000);
        other[17] ^= 1;
        write(run.sink(), "index", other).await.unwrap_err();
        run.abandon().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_the_manifest_is_success() {
    for fault in [
        Fault::LoseAnswer(503, "SlowDown"),
        Fault::LoseAnswerAndReset,
        Fault::LoseAnswer(409, "ConditionalRequestConflict"),
    ] {
        let faulty = Faulty::start().await;
        let id = id();
        let lost = faulty.proxy.fail(1, fault, |request| request.is("PUT", "manifest.json"));
        backup(&faulty.repository, &id, None).await;
        assert_eq!(lost.count(), 1);
        assert!(matches!(faulty.repository.state(&id).await.unwrap(), Some(BackupState::Complete { .. })), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_over_nothing_is_asked_again() {
    let faulty = Faulty::start().await;
    // S3's answer when two conditional requests meet: neither is done.
    let conflict =
        faulty.proxy.fail(2, Fault::Answer(409, "ConditionalRequestConflict"), |r| r.is("PUT", "manifest.json"));
    backup(&faulty.repository, &id(), None).await;
    assert_eq!(conflict.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_is_a_failure_with_its_cause() {
    let faulty = Faulty::start_with(|settings| settings.patience = Duration::from_secs(2)).await;
    let id = id();
    let run = begin(&faulty.repository, &id).await;
    faulty.proxy.fail(usize::MAX, Fault::Answer(503, "SlowDown"), |request| request.is("PUT", "manifest.json"));
    let error = run.commit(&manifest(&id, run.attempt(), None)).await.unwrap_err();
    assert!(error.to_string().contains("manifest.json"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("SlowDown"), "{cause}");
    faulty.proxy.heal();
    run.abandon().await;
    // The failed commit might have been on its way: the id is claimed for good.
    assert_eq!(faulty.repository.state(&id).await.unwrap(), Some(BackupState::Deleted { remains: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_cut_short_is_asked_for_again_and_a_short_object_is_an_error() {
    let faulty = Faulty::start().await;
    let id = id();
    let run = begin(&faulty.repository, &id).await;
    write(run.sink(), "pack", pattern(100_000)).await.unwrap();
    let cut = faulty.proxy.fail(2, Fault::CutShort(1234), |request| request.is("GET", "pack"));
    let source = faulty.repository.objects(&id, run.attempt(), &CancellationToken::new());
    assert!(read(source.clone(), "pack").await.unwrap() == pattern(100_000));
    assert_eq!(cut.count(), 2);
    // Truncated where it is stored: no waiting, an error that says so.
    let path = files_below(&faulty.server.bucket()).into_iter().find(|path| path.ends_with("/pack")).unwrap();
    std::fs::write(faulty.server.bucket().join(path), pattern(60_000)).unwrap();
    let asked = |proxy: &Proxy| proxy.count(|request| request.is("GET", "pack"));
    let before = asked(&faulty.proxy);
    let error = blocking(move || source.read("pack", 0, 100_000)).await.unwrap_err();
    let text = std::error::Error::source(&error).and_then(std::error::Error::source).unwrap().to_string();
    assert!(text.contains("60000 bytes"), "{text}");
    assert_eq!(asked(&faulty.proxy), before + 1, "asking again would give the same");
    run.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_uploads_and_downloads_at_once() {
    let faulty = Faulty::start().await;
    let cancel = CancellationToken::new();
    let options = RunOptions { cancel: cancel.clone(), ..RunOptions::default() };
    let id = id();
    let attempt = stillframe::archive::id::AttemptId::generate();
    let run = faulty.repository.begin_with(&id, &attempt, options).await.unwrap();
    write(run.sink(), "small", pattern(10)).await.unwrap();
    let hang = faulty.proxy.fail(1, Fault::Hang, Request::is_part);
    let busy = faulty.proxy.fail(usize::MAX, Fault::Answer(503, "SlowDown"), Request::is_part);
    let silent = faulty.proxy.fail(usize::MAX, Fault::Hang, |request| request.is("GET", "small"));
    let upload = tokio::spawn(write(run.sink(), "pack", pattern(60 << 20)));
    let source = faulty.repository.objects(&id, &attempt, &cancel);
    let download = tokio::spawn(blocking(move || source.read("small", 0, 10)));
    let under_way = async || [&hang, &busy, &silent].iter().all(|hits| hits.count() > 0);
    until("both are on their way", under_way).await;
    cancel.cancel();
    // Each would be tried for minutes.
    let upload = tokio::time::timeout(SOON, upload).await.expect("the upload ends").unwrap();
    assert!(matches!(upload, Err(ObjectError::Cancelled)), "{upload:?}");
    let download = tokio::time::timeout(SOON, download).await.expect("the download ends").unwrap();
    assert!(matches!(download, Err(ObjectError::Cancelled)), "{download:?}");
    assert!(matches!(run.commit(&manifest(&id, &attempt, None)).await, Err(StoreError::Cancelled)));
    run.abandon().await;
    assert_eq!(faulty.repository.state(&id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_are_bounded_over_all_writers() {
    let bound = |settings: &mut StoreSettings| settings.bytes_in_flight = 10 << 20;
    let faulty = Faulty::start_with(bound).await;
    let run = begin(&faulty.repository, &id()).await;
    // Parts hang, so that what may be on its way is; writers then wait.
    let held = faulty.proxy.fail(usize::MAX, Fault::Hold, Request::is_part);
    let writers: Vec<_> =
        (0..4).map(|n| tokio::spawn(write(run.sink(), ["a", "b", "c", "d"][n], pattern(11 << 20)))).collect();
    until("some are on their way", async || held.count() > 0).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let parts = held.count();
    assert!(parts <= 2, "{parts} parts of 5 MiB on their way with 10 MiB allowed");
    faulty.proxy.heal();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    run.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_part_fails_the_writer_that_goes_on() {
    let faulty = Faulty::start_with(|settings| settings.patience = Duration::from_secs(1)).await;
    let run = begin(&faulty.repository, &id()).await;
    faulty.proxy.fail(usize::MAX, Fault::Answer(507, "InsufficientStorage"), Request::is_part);
    let sink = run.sink();
    let error = blocking(move || {
        let mut writer = sink.create("pack").unwrap();
        let error = (0..100).find_map(|_| writer.write(Bytes::from(pattern(5 << 20))).err()).unwrap();
        assert!(writer.write(Bytes::from_static(b"more")).is_err());
        error
    })
    .await;
    let ObjectError::Failed { source, .. } = &error else { panic!("{error:?}") };
    let cause = std::error::Error::source(source.as_ref()).unwrap().to_string();
    assert!(cause.contains("InsufficientStorage"), "{cause}");
    run.abandon().await;
}
