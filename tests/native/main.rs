//! Native recovery against the server's own: the same files and the same redo, recovered twice, and every byte of every
//! page compared, but for the short list in `docs/native-differences.md`.
//!
//! ```text
//!   case ─► base + redo ──► oracle: mysqld recovers ──────────────┐
//!                     └───► driver: apply, record by record ──────┴─► compare ─► explain
//!                                     └─► cover: which branches real redo has taken
//! ```
//! Bounded, and the same in each run, but for what a server does by itself. `make soak` runs more work of other rows on
//! pages of each size: `STILLFRAME_SEED`, `STILLFRAME_SCALE`, `STILLFRAME_PAGE_SIZE`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is part of tests: what fails, fails them"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../redo/log.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod log;

mod case;
mod compare;
mod cover;
mod driver;
mod ends;
mod explain;
mod files;
mod handmade;
mod oracle;
mod prepared;
mod scenarios;
mod seeds;

use std::collections::BTreeMap;

use case::Crash;
use compare::compare;
use driver::Mode;
use files::{Pages, spaces};
use scenarios::{Work, compressed, files as files_of, lobs, rows, trees, versions, wait_for_purge, zipped};
use stillframe::innodb::ids::{PageNo, SpaceId};
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::page::PageType;
use support::server::{Builder, scratch};
use support::wait::until;
use support::workload::{Options, Workload};

/// All cases: when each has passed, nothing may be missing in what they covered.
const CASES: [&str; 25] = [
    "rows",
    "others",
    "compressed",
    "shapes",
    "compressed-levels",
    "pages-4k",
    "pages-8k",
    "pages-32k",
    "pages-64k",
    "files-4k",
    "files-8k",
    "files-32k",
    "files-64k",
    "files",
    "encryption",
    "being-encrypted",
    "being-decrypted",
    "transactions",
    "hot",
    "hot-4k",
    "hot-64k",
    "as-left",
    "checksums",
    "sealed",
    "undo-spaces",
];

fn read_all(spaces: &BTreeMap<SpaceId, files::Space>) -> BTreeMap<SpaceId, Pages> {
    spaces.iter().map(|(id, space)| (*id, Pages::read(space))).collect()
}

/// Recovers a crash in three ways: by the server, record by record, and as the product does it. Panics, with all that is
/// known, unless the outcome is the same. Gives where the log ended.
async fn prove(name: &str, crash: &Crash) -> Lsn {
    let recovered = oracle::recover(crash, |_| ()).await;
    let base = read_all(&spaces(&crash.base(), crash.keyring.as_ref()));
    let native = driver::recover(&base, &crash.log, Mode::Apply);
    assert_eq!(native.scanned, recovered.end, "{name}: the log ends elsewhere for the server");
    let outcome = compare(&base, &native, &spaces(&recovered.datadir(), crash.keyring.as_ref()));
    assert!(outcome.is_good(), "{}", explain::explain(&outcome, Some(&native), &crash.log, name));
    println!("{name}: {outcome}");

    let prepared = scratch();
    let datadir = prepared.path().join("data");
    prepared::prepare(crash, native.end, &datadir);
    let outcome = prepared::compare(&base, crash, native.end, &datadir, &recovered.datadir());
    assert!(outcome.is_good(), "{}", explain::explain(&outcome, None, &crash.log, name));
    println!("{name}, prepared: {outcome}");
    drop(recovered);
    prepared::start_both(name, crash, &datadir).await;
    // The list is one of all kinds of pages, some of which other sizes do not have.
    if page_size() == 16384 {
        cover::passed(name, &native.coverage, &CASES);
    }
    native.end
}

/// A case with a cold base: `work` is what the log holds.
async fn prove_cold(name: &str, builder: Builder, work: impl AsyncFn(&mut Work<'_>)) {
    let crash = case::cold(
        builder,
        async |_| (),
        async |server| {
            let mut work_of = Work::new(server, seed(), scale()).await;
            work(&mut work_of).await;
            wait_for_purge(server).await;
        },
    );
    prove(name, &crash.await).await;
}

/// What random choices begin with: `STILLFRAME_SEED`, else always the same.
fn seed() -> u64 {
    std::env::var("STILLFRAME_SEED").map_or(1, |text| text.parse().unwrap())
}

/// How much work there is: `STILLFRAME_SCALE`.
fn scale() -> u64 {
    std::env::var("STILLFRAME_SCALE").map_or(1, |text| text.parse().unwrap())
}

/// Page size of all cases that do not name one: `STILLFRAME_PAGE_SIZE`.
fn page_size() -> u32 {
    std::env::var("STILLFRAME_PAGE_SIZE").map_or(16384, |text| text.parse().unwrap())
}

fn usual() -> Builder {
    Builder::default().page_size(page_size())
}

fn quiet() -> Builder {
    usual().log_bin(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_trees() {
    prove_cold("rows", quiet(), async |work| {
        rows::heap(work).await;
        rows::redundant(work).await;
        trees::levels(work).await;
        trees::leftmost(work).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_trees_versions_and_large_objects() {
    prove_cold("others", quiet(), async |work| {
        trees::other_trees(work).await;
        versions::versions(work).await;
        lobs::lobs(work).await;
        lobs::undo(work).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_pages() {
    prove_cold("compressed", quiet(), async |work| {
        compressed::compressed(work).await;
        compressed::not_logged(work).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_tables_of_many_shapes() {
    prove_cold("shapes", quiet(), async |work| zipped::shapes(work).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_trees_that_are_compressed_anew() {
    prove_cold("compressed-levels", quiet(), async |work| zipped::levels(work).await).await;
}

/// Everything that is not of files, on another page size.
async fn prove_page_size(bytes: u32) {
    prove_cold(&format!("pages-{}k", bytes >> 10), quiet().page_size(bytes), async |work| {
        rows::heap(work).await;
        rows::redundant(work).await;
        trees::levels(work).await;
        trees::leftmost(work).await;
        trees::other_trees(work).await;
        versions::versions(work).await;
        lobs::lobs(work).await;
        lobs::undo(work).await;
        compressed::compressed(work).await;
        compressed::not_logged(work).await;
        zipped::shapes(work).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_4k() {
    prove_page_size(4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_8k() {
    prove_page_size(8192).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_32k() {
    prove_page_size(32768).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_64k() {
    prove_page_size(65536).await;
}

/// Files that come and go, are encrypted, and transactions that are not at their end, on another page size.
async fn prove_files(bytes: u32) {
    let crash = case::cold(
        Builder::default().page_size(bytes).keyring(),
        async |_| (),
        async |server| {
            let mut work = Work::new(server, seed(), scale()).await;
            files_of::tables(&mut work).await;
            files_of::undo_tablespaces(&mut work).await;
            files_of::encryption(&mut work).await;
            files_of::automatic_numbers(&mut work).await;
            lobs::undo(&mut work).await;
            let open = lobs::open(&mut work).await;
            lobs::prepared(&mut work, 20).await;
            // They die with the server.
            std::mem::forget(open);
        },
    );
    prove(&format!("files-{}k", bytes >> 10), &crash.await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_transactions_with_pages_of_4k() {
    prove_files(4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_transactions_with_pages_of_8k() {
    prove_files(8192).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_transactions_with_pages_of_32k() {
    prove_files(32768).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_transactions_with_pages_of_64k() {
    prove_files(65536).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_and_go() {
    prove_cold("files", quiet(), async |work| {
        files_of::tables(work).await;
        files_of::undo_tablespaces(work).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_tablespaces() {
    prove_cold("encryption", quiet().keyring(), async |work| files_of::encryption(work).await).await;
}

/// The server dies while it encrypts, or decrypts, a tablespace in its place. How far it was is in page 0, from where a
/// server goes on when it starts; what it leaves behind must be as it has to be already.
async fn prove_cut(name: &str, from: &str, to: &str) {
    let crash = case::cold(
        quiet().keyring(),
        async |server| files_of::large_shared(&mut Work::new(server, seed(), scale()).await, from).await,
        async |server| files_of::change_encryption(&mut Work::new(server, seed(), scale()).await, to).await,
    );
    let crash = crash.await;
    let end = prove(name, &crash).await;

    let dir = scratch();
    let datadir = dir.path().join("data");
    prepared::prepare(&crash, end, &datadir);
    let file = datadir.join("c_shared.ibd");
    assert!(files::is_encryption_changing(&file), "nothing is left to do");
    let mut server = crash.server.sibling().default_places().on_datadir(&datadir).start().await;
    until("the tablespace is changed", async || !files::is_encryption_changing(&file)).await;
    server.stop().await;
    server.error_log().assert_clean();
    let shared = spaces(&datadir, crash.keyring.as_ref()).into_values().find(|space| space.file == file).unwrap();
    let pages = Pages::read(&shared);
    for page in (1..pages.count()).map(PageNo).filter(|page| pages.kind(*page) != Some(PageType::Allocated)) {
        assert_eq!(pages.is_encrypted(page), to == "Y", "{page} of {}", file.display());
        pages.plain(page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_is_being_encrypted() {
    prove_cut("being-encrypted", "N", "Y").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_is_being_decrypted() {
    prove_cut("being-decrypted", "Y", "N").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_compressed_or_encrypted_before() {
    let crash = case::cold(
        quiet().keyring(),
        async |server| files_of::sealed(&mut Work::new(server, seed(), scale()).await).await,
        async |server| {
            let mut work = Work::new(server, seed(), scale()).await;
            files_of::sealed_changes(&mut work).await;
            wait_for_purge(server).await;
        },
    );
    let crash = crash.await;
    let kinds = files::kinds(&crash.base(), crash.keyring.as_ref());
    let small = [PageType::Encrypted, PageType::EncryptedRtree];
    let large = [PageType::Compressed, PageType::CompressedAndEncrypted];
    // A page of 4 KiB has no block that compression could save.
    for kind in small.into_iter().chain(large.into_iter().filter(|_| page_size() > 4096)) {
        assert!(kinds.get(&kind.id()).is_some_and(|count| *count > 1), "{kind:?}: none among {kinds:?}");
    }
    prove("sealed", &crash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_undo_tablespaces() {
    prove_cold("undo-spaces", quiet(), async |work| files_of::many_undo_tablespaces(work).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_prepared_or_open() {
    let crash = case::cold(
        usual(),
        async |_| (),
        async |server| {
            let mut work = Work::new(server, seed(), scale()).await;
            files_of::automatic_numbers(&mut work).await;
            lobs::undo(&mut work).await;
            let open = lobs::open(&mut work).await;
            lobs::prepared(&mut work, 100).await;
            // They die with the server.
            std::mem::forget(open);
        },
    );
    prove("transactions", &crash.await).await;
}

/// Options of the many tables' workload: what has files elsewhere or none of InnoDB's is not of interest here.
fn busy(encrypted: bool) -> Options {
    Options { external: false, plain: false, encrypted, rows: 40, ..Options::default() }
}

/// Files that are copied while four writers change them.
async fn prove_hot(name: &str, builder: Builder) {
    let options = busy(false);
    let crash = case::hot(
        builder,
        async |server| drop(Workload::create(server, &options).await),
        async |server| {
            let running = Workload::attach(server, &options).start(4).await;
            running.wait_for(400 * scale()).await;
            running.stop().await;
        },
        async |server| {
            let running = Workload::attach(server, &options).start(3).await;
            running.wait_for(300 * scale()).await;
            running.stop().await;
        },
    );
    let crash = crash.await;
    prove(name, &crash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_while_it_changes() {
    prove_hot("hot", quiet()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_while_it_changes_with_pages_of_4k() {
    prove_hot("hot-4k", quiet().page_size(4096)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_while_it_changes_with_pages_of_64k() {
    prove_hot("hot-64k", quiet().page_size(65536)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_as_the_crash_left_them() {
    // So small that pages are written now and then.
    let pool = if page_size() > 16384 { "28M" } else { "14M" };
    let builder = quiet().option("innodb_buffer_pool_size", pool);
    let crash = case::crashed(
        builder,
        async |_| (),
        async |server| {
            let mut work = Work::new(server, seed() + 3, scale()).await;
            rows::heap(&mut work).await;
            versions::versions(&mut work).await;
            trees::other_trees(&mut work).await;
            files_of::tables(&mut work).await;
        },
    );
    prove("as-left", &crash.await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_of_every_kind() {
    // The base has pages of all three, the log blocks without one.
    let builder = quiet().option("innodb_log_checksums", "OFF").option("innodb_checksum_algorithm", "innodb");
    let crash = case::cold(
        builder,
        async |server| {
            let mut work = Work::new(server, seed(), scale()).await;
            lobs::undo(&mut work).await;
            trees::leftmost(&mut work).await;
            work.run("SET GLOBAL innodb_checksum_algorithm = none").await;
        },
        async |server| {
            let mut work = Work::new(server, seed(), scale()).await;
            work.run("UPDATE un SET w = 'after' WHERE id % 3 = 0").await;
            work.run("DELETE FROM left_COMPACT WHERE id % 3 = 0").await;
            rows::redundant(&mut work).await;
        },
    );
    prove("checksums", &crash.await).await;
}
