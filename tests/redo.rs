//! The redo decoder against the logs of real servers: everything from a checkpoint to the end is understood, and the
//! end is where the server itself finds it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is part of tests: what fails, fails them"
)]

mod support;

#[path = "redo/log.rs"]
mod log;
#[path = "redo/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use log::{Log, Seen, decode, each_group, recovered_lsn, status_lsn};
use mysql_async::prelude::Queryable as _;
use stillframe::innodb::ids::SpaceId;
use stillframe::innodb::keyring::Keyring;
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::{EndReason, RecordKind, SpacesNamed, spaces_named};
use support::server::{Builder, Server};

/// Runs `work` on a server that keeps all of its redo, kills it, and returns the log from where the work began.
async fn log_of_work(builder: Builder, work: impl AsyncFn(&Server)) -> (Server, Log) {
    let mut server = builder.option("innodb_redo_log_capacity", "1G").start().await;
    // While this session lives, no redo from here on is given up.
    let mut holder = server.connect().await;
    let refused: Option<i64> = holder.query_first("SELECT innodb_redo_log_consumer_register()").await.unwrap();
    assert_eq!(refused, Some(0));
    let checkpoint = status_lsn(&server, "checkpoint_lsn").await;
    work(&server).await;
    workload::wait_for_purge(&server).await;
    server.sql("FLUSH ENGINE LOGS").await;
    let flushed = status_lsn(&server, "flushed_to_disk_lsn").await;
    server.kill9();
    drop(holder);
    let keyring = server.keyring_file().map(|path| Keyring::parse(&std::fs::read(path).unwrap()).unwrap());
    let log = Log::read(&server.redo_home().join("#innodb_redo"), checkpoint, keyring.as_ref());
    let seen = decode(&log, 1 << 20).unwrap();
    assert!(seen.end_lsn() >= flushed, "{:?} before {flushed}", seen.end);
    (server, log)
}

/// What the server's own recovery says of the end of the same log.
async fn assert_server_agrees(server: &mut Server, end: Lsn) {
    server.start().await;
    assert_eq!(recovered_lsn(&server.error_log().text), Some(end));
    server.error_log().assert_clean();
}

async fn all_kinds_of_work(server: &Server, scale: u32) {
    workload::prepare(server).await;
    workload::empty_pages(server).await;
    workload::change_rows(server, scale).await;
    workload::change_columns(server).await;
    workload::change_indexes(server, scale + scale / 2).await;
    workload::change_compressed(server).await;
    workload::change_files(server).await;
}

fn report(name: &str, seen: &Seen) {
    let table = seen.table();
    println!("{name}: {table}");
    std::fs::write(support::server::work_root().join(format!("redo-coverage-{name}.txt")), table).unwrap();
}

/// 29 is written by older servers only; 63 would be a dictionary information index in the oldest row format, which is
/// never made.
const NOT_WRITTEN: [RecordKind; 2] = [RecordKind::InitFilePage, RecordKind::SdiCreate];

#[tokio::test(flavor = "multi_thread")]
async fn a_real_log_is_understood_from_checkpoint_to_end() {
    let (mut server, log) = log_of_work(Server::builder().keyring(), async |server| {
        all_kinds_of_work(server, 10).await;
        workload::encrypt(server).await;
    })
    .await;
    assert!(log.key.is_some(), "the log is encrypted in part");
    let seen = decode(&log, 1).unwrap();
    report("16k", &seen);
    if let Some(dir) = std::env::var_os("STILLFRAME_WRITE_TESTDATA") {
        write_samples(&log, std::path::Path::new(&dir));
    }
    let missing: Vec<_> =
        RecordKind::ALL.iter().filter(|kind| !seen.counts.contains_key(kind) && !NOT_WRITTEN.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?} were not written");
    segments_name_their_spaces(&log);
    decoding_starts_anywhere(&log);
    torn_tails_end_early(&log, seen.end_lsn());
    assert_server_agrees(&mut server, seen.end_lsn()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_other_page_sizes_are_understood() {
    for page_size in [4096, 65536] {
        let (mut server, log) = log_of_work(Server::builder().page_size(page_size), async |server| {
            all_kinds_of_work(server, 5).await;
        })
        .await;
        let seen = decode(&log, 100).unwrap();
        report(&format!("{}k", page_size >> 10), &seen);
        assert_server_agrees(&mut server, seen.end_lsn()).await;
    }
}

/// The sets of segments, cut anywhere, are together that of the whole, and none names what does not end in it.
fn segments_name_their_spaces(log: &Log) {
    let whole = spaces_named(log.checkpoint, log.key.clone(), &log.blocks).unwrap();
    let (start, segment) = (log.checkpoint.block_start(), 1999 * 512);
    let mut expected: Vec<BTreeSet<SpaceId>> = vec![BTreeSet::new(); log.blocks.len().div_ceil(segment)];
    each_group(log, log.checkpoint, 64, |group| {
        // A group that fills its segment counts for the next: only then is it known to be complete.
        let at = usize::try_from(group.end.saturating_since(start)).unwrap() / segment;
        expected[at].extend(group.records().filter_map(|record| record.page).map(|page| page.space));
        true
    });
    let mut named = SpacesNamed::new(log.checkpoint, log.key.clone());
    for (blocks, expected) in log.blocks.chunks(segment).zip(&expected) {
        named.feed(blocks).unwrap();
        assert_eq!(named.take(), *expected);
    }
    assert_eq!(expected.into_iter().flatten().collect::<BTreeSet<_>>(), whole);
    assert!(whole.len() > 50 && whole.contains(&SpaceId::DICTIONARY) && whole.contains(&SpaceId::SYSTEM));
}

/// Whichever block decoding starts in, it finds the same groups from there on.
fn decoding_starts_anywhere(log: &Log) {
    let mut starts = BTreeSet::new();
    each_group(log, log.checkpoint, 64, |group| starts.insert(group.start));
    let blocks = u64::try_from(log.blocks.len()).unwrap() / 512;
    for part in 1..60 {
        let checkpoint = Lsn::new(log.checkpoint.block_start().get() + blocks * part / 100 * 512 + 12 + part);
        let mut left = 200;
        each_group(log, checkpoint, 8, |group| {
            assert!(starts.contains(&group.start), "a group at {} from {checkpoint} on", group.start);
            left -= 1;
            left > 0
        });
    }
}

/// A log that is cut or damaged near its end gives its undamaged beginning, and says why it ends.
fn torn_tails_end_early(log: &Log, end: Lsn) {
    let last = usize::try_from(end.block_start().saturating_since(log.checkpoint.block_start())).unwrap();
    let tail = last.saturating_sub(40 * 512);
    let from = Lsn::new(log.checkpoint.block_start().get() + u64::try_from(tail).unwrap() + 12);
    let part = |blocks: Vec<u8>| Log { checkpoint: from, blocks, key: log.key.clone() };
    let whole = decode(&part(log.blocks[tail..last + 512].to_vec()), 3).unwrap();
    assert_eq!(whole.end_lsn(), end);
    for at in (tail..last).step_by(512) {
        let mut damaged = log.blocks[tail..last + 512].to_vec();
        damaged[at - tail + 77] ^= 4;
        let damaged = decode(&part(damaged), 3).unwrap();
        assert!(damaged.end_lsn() < end && damaged.groups < whole.groups);
        assert!(matches!(damaged.end.unwrap().reason, EndReason::Torn { .. }));
        let cut = decode(&part([&log.blocks[tail..at], &[0; 512]].concat()), 3).unwrap();
        assert_eq!((cut.groups, cut.end.unwrap().reason), (damaged.groups, EndReason::NotWritten));
    }
}

/// Groups that are kept of each kind.
const SAMPLES: u32 = 6;

/// Writes some groups of each kind: what the library's own tests decode, change and decode again.
fn write_samples(log: &Log, dir: &std::path::Path) {
    let mut wanted: std::collections::BTreeMap<RecordKind, u32> =
        RecordKind::ALL.iter().map(|&kind| (kind, SAMPLES)).collect();
    // Filling that follows filling is one group to the decoder.
    wanted.insert(RecordKind::Dummy, 1);
    let mut text = String::from(
        "# LSN and bytes of groups of MySQL 9.7.4, written by tests/redo.rs with STILLFRAME_WRITE_TESTDATA set\n",
    );
    each_group(log, log.checkpoint, 64, |group| {
        let kinds: BTreeSet<_> = group.records().map(|record| record.kind).collect();
        // The first of a kind may be large.
        let limit = if kinds.iter().any(|kind| wanted[kind] == SAMPLES) { 20_000 } else { 700 };
        if group.bytes().len() <= limit && kinds.iter().any(|kind| wanted[kind] > 0) {
            for kind in kinds {
                wanted.entry(kind).and_modify(|left| *left = left.saturating_sub(1));
            }
            writeln!(text, "{} {}", group.start, hex::encode(group.bytes())).unwrap();
        }
        true
    });
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("groups.txt"), text).unwrap();
}
