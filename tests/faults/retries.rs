//! Uploads that take several tries: what is stored, and what the manifest says of it, is as if the first had worked.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::Value;

use crate::help::{key_file, small, write_redo};
use crate::support::cli::Cli;
use crate::support::proxy::{Fault, Proxy, Request};
use crate::support::round;
use crate::support::s3::{self, S3Server};
use crate::support::server::{Server, scratch};

/// Requests that are such, the first time that each is seen.
fn first_try(is_such: impl Fn(&Request) -> bool + Send + Sync) -> impl Fn(&Request) -> bool + Send + Sync {
    let seen = Mutex::new(HashSet::new());
    move |request| is_such(request) && seen.lock().unwrap().insert((request.path.clone(), request.query.clone()))
}

/// What must not depend on how the upload went: all but names, times, and the digests that seal them.
fn lasting(manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    let document = manifest.as_object_mut().unwrap();
    for own in ["id", "attempt", "startTime", "completionTime", "durationSeconds", "hmac", "lsn"] {
        document.remove(own).unwrap_or_else(|| panic!("no {own}"));
    }
    for time in ["lockHeldMilliseconds", "globalReadLockMilliseconds", "ddlWaitMilliseconds"] {
        document.remove(time).unwrap();
    }
    document["cipher"].as_object_mut().unwrap().remove("salt").unwrap();
    // Between the two backups the server may have written a little redo.
    let bytes = document.remove("bytes").unwrap();
    assert!(bytes["stored"].as_u64().unwrap() > 16 << 20, "too little to be uploaded in parts: {bytes}");
    let pages = ["copied", "zero"].map(|kind| document["pages"][kind].as_u64().unwrap());
    document["pages"] = pages.iter().sum::<u64>().into();
    let contents = &document["contents"];
    let counts = ["packCount", "redoPackCount", "objectCount", "frameCount"].map(|name| contents[name].clone());
    assert!(counts.iter().all(|count| count.as_u64().is_some_and(|count| count > 0)), "{contents}");
    document["contents"] = counts.into_iter().collect();
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_took_several_tries_is_as_one_that_took_one() {
    let mut server = small(Server::builder().log_bin(false)).await;
    write_redo(&server, 8 << 20).await;
    // All pages are in their files then.
    server.restart().await;
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.address());
    let keys = scratch();
    let key = key_file(keys.path(), "key", 1);
    let env = |cli: Cli| cli.envs(&s3::environment(&proxy.endpoint()));
    let store = s3.url("p");
    let backup = || {
        let options = ["--compression", "none", "--parallel", "1", "--encryption-key-file", &key];
        env(round::backup(&server, &store)).args(options)
    };
    let plain = backup().json().await;

    // Of each way to fail one kind of request; each works at the second try, or has worked without saying so.
    let small_data =
        |request: &Request| request.method == "PUT" && request.path.contains("/data/") && !request.is_part();
    let lost = Fault::LoseAnswer(500, "InternalError");
    let hits = [
        proxy.fail(usize::MAX, lost, first_try(Request::is_part)),
        proxy.fail(usize::MAX, Fault::LoseAnswerAndReset, first_try(Request::is_complete)),
        proxy.fail(usize::MAX, lost, first_try(small_data)),
        proxy.fail(usize::MAX, Fault::Answer(503, "SlowDown"), first_try(|request| request.path.contains("/keys/"))),
        proxy.fail(usize::MAX, Fault::LoseAnswerAndReset, first_try(|request| request.is("PUT", "manifest.json"))),
    ];
    let retried = backup().json().await;
    for (number, hits) in hits.iter().enumerate() {
        assert!(hits.count() > 0, "rule {number} met nothing");
    }
    proxy.heal();

    for same in ["name", "type", "gtidExecuted", "binlog", "server", "warnings", "destination"] {
        assert_eq!(plain[same], retried[same], "{same}");
    }
    let mut manifests = Vec::new();
    for report in [&plain, &retried] {
        let id = report["id"].as_str().unwrap();
        let show = env(Cli::new("show").args(["--store", &store, id]));
        manifests.push(show.json().await);
        let verify = env(Cli::new("verify").args(["--store", &store, id, "--encryption-key-file", &key]));
        assert_eq!(verify.json().await["good"], true);
    }
    assert_eq!(lasting(&manifests[0]), lasting(&manifests[1]));
}
