//! The same recovery as the product does it, by `prepare`: planned by page in little memory, files extended, pages
//! encrypted again, a clean log at the end. And what comes after: both directories are started, and a client must not be
//! able to tell them apart. What may differ is listed in `docs/native-differences.md`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use stillframe::innodb::ids::{PageId, PageNo, PageSize, SpaceId};
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::page::all_zero;
use stillframe::prepare::finish::FLUSH_LSN_OFFSET;
use stillframe::prepare::{CopiedSpace, PageWorker, PrepareError, Recovery, RedoScan, ScanOptions, clean_log};

use crate::case::Crash;
use crate::compare::{Difference, Outcome, forget_headers};
use crate::files::{Pages, Space, spaces};
use crate::oracle::{self, copy_tree};
use crate::support::replica::{check_tables, compare_checksums};
use crate::support::server::{Server, scratch};

/// So little that records go to disk.
const MEMORY: u64 = 1 << 20;
/// Pages that are recovered together.
const WINDOW: u32 = 256;

/// Recovers a crash into `to` up to `end`, and gives it a clean log.
pub fn prepare(crash: &Crash, end: Lsn, to: &Path) {
    let recovery = scan(crash, end, &spaces(&crash.base(), crash.keyring.as_ref()), to.parent().unwrap())
        .unwrap_or_else(|error| panic!("{error}"));
    copy_tree(&crash.base(), to);
    let copied = spaces(to, crash.keyring.as_ref());
    let mut worker = PageWorker::new(&recovery);
    for space in copied.values() {
        recover_space(&recovery, &mut worker, space);
    }
    let log = clean_log(end, recovery.metadata(), page_size(crash), 77, "MySQL 9.7.4").unwrap();
    let redo = to.join("#innodb_redo");
    std::fs::create_dir(&redo).unwrap();
    let mut bytes = log.bytes;
    bytes.resize(usize::try_from(log.size_bytes).unwrap(), 0);
    std::fs::write(redo.join(&log.file_name), bytes).unwrap();
    let system = std::fs::File::options().write(true).open(to.join("ibdata1")).unwrap();
    system.write_all_at(&log.checkpoint.get().to_be_bytes(), FLUSH_LSN_OFFSET).unwrap();
}

fn page_size(crash: &Crash) -> PageSize {
    PageSize::new(crash.server.page_size()).unwrap()
}

fn scan(
    crash: &Crash,
    end: Lsn,
    copied: &BTreeMap<SpaceId, Space>,
    spill_dir: &Path,
) -> Result<Recovery, PrepareError> {
    let options = ScanOptions {
        checkpoint: crash.log.checkpoint,
        end,
        log_key: crash.log.key.clone(),
        keyring: crash.keyring.clone(),
        zlib: Some(crash.zlib.clone()),
        memory: MEMORY,
        spill_dir: spill_dir.to_owned(),
    };
    let copied: Vec<CopiedSpace> = copied
        .values()
        .map(|space| CopiedSpace {
            space: space.id,
            flags: space.flags,
            pages: Pages::read(space).count(),
            last_file: PageNo(0),
        })
        .collect();
    let mut scan = RedoScan::new(options, &copied).unwrap();
    let until = end.block_start().saturating_since(crash.log.checkpoint.block_start()) + 512;
    scan.feed(&crash.log.blocks[..usize::try_from(until).unwrap()])?;
    scan.finish()
}

fn recover_space(recovery: &Recovery, worker: &mut PageWorker<'_>, space: &Space) {
    let pages = Pages::read(space);
    let wanted = recovery.space(space.id).map_or(0, |space| space.pages).max(pages.count());
    let file = std::fs::File::options().write(true).open(&space.file).unwrap();
    let size = u64::from(space.flags.physical_size().bytes());
    file.set_len(u64::from(wanted) * size).unwrap();
    if recovery.needs_page0(space.id) {
        recovery.learn(space.id, pages.raw(PageNo(0)).unwrap()).unwrap();
    }
    let mut first = 0;
    while first < wanted {
        let end = (first + WINDOW).min(wanted);
        worker.seek(space.id, first..end).unwrap();
        while let Some(page) = worker.next_page().unwrap() {
            let stored = pages.raw(page).filter(|raw| !all_zero(raw));
            if let Some(bytes) = worker.recover(page, stored).unwrap() {
                file.write_all_at(bytes, u64::from(page.0) * size).unwrap();
            }
        }
        first = end;
    }
}

/// Compares a prepared directory with what the server made of the same.
pub fn compare(base: &BTreeMap<SpaceId, Pages>, crash: &Crash, end: Lsn, ours: &Path, server: &Path) -> Outcome {
    let keyring = crash.keyring.as_ref();
    let (ours, server) = (spaces(ours, keyring), spaces(server, keyring));
    let mut outcome = Outcome::default();
    for (id, copied) in base {
        let (mine, theirs) = (Pages::read(&ours[id]), Pages::read(&server[id]));
        let file = copied.space.path.display().to_string();
        if mine.count() != theirs.count() {
            outcome.sizes.push(format!("{file}: {} pages, the server has {}", mine.count(), theirs.count()));
        }
        for page in (0..theirs.count().max(mine.count())).map(PageNo) {
            let mut native = mine.plain(page);
            if (*id, page) == (SpaceId::SYSTEM, PageNo(0)) {
                // Where the clean log begins is not the server's to know.
                let at = usize::try_from(FLUSH_LSN_OFFSET).unwrap();
                native[at..at + 8].copy_from_slice(&theirs.plain(page)[at..at + 8]);
            }
            let mut server = theirs.plain(page);
            forget_headers(&mut native, &mut server, [copied, &theirs], page);
            if native == server {
                let changed = copied.raw(page) != mine.raw(page);
                outcome.changed += u64::from(changed);
                outcome.untouched += u64::from(!changed);
                continue;
            }
            let page = PageId { space: *id, page };
            if u64::from_be_bytes(server[16..24].try_into().unwrap()) > end.get() {
                outcome.written_since.push((page, file.clone()));
            } else {
                let copied = copied.plain(page.page);
                let file = file.clone();
                outcome.differences.push(Difference { id: page, file, copied, native: Ok(native), server });
            }
        }
    }
    outcome
}

/// Starts the prepared directory, and the server on what the crash left, and compares all that a client can see.
pub async fn start_both(name: &str, crash: &Crash, prepared: &Path) {
    let dir = scratch();
    let datadir = oracle::with_redo(crash, dir.path());
    let builder = || crash.server.sibling().default_places().option("innodb_buffer_pool_size", oracle::pool());
    let (mut native, server) =
        tokio::join!(builder().on_datadir(prepared).start(), builder().on_datadir(&datadir).start());
    native.error_log().assert_clean();
    let (checked, also) = (check_tables(&native).await, check_tables(&server).await);
    assert_eq!(checked, also, "{name}: other tables are there");
    let compared = compare_checksums(&native, &server).await;
    for what in ["automatic numbers", "prepared transactions", "transactions executed"] {
        let (ours, theirs) = (seen(&native, what).await, seen(&server, what).await);
        assert_eq!(ours, theirs, "{name}: {what}");
        // Known from the redo alone: the rows that had these numbers are gone.
        if ours.iter().any(|text| text.starts_with("n.auto_a ")) {
            for number in ["n.auto_a 601", "n.auto_b 5003", "n.auto_p 601", "n.auto_r 601"] {
                assert!(ours.iter().any(|text| text == number), "{number} is not among {ours:?}");
            }
        }
        println!("{name}: {what}: {} are the same", ours.len());
    }
    println!("{name}: {checked} tables checked, {compared} compared");
    // And it goes on living.
    native.restart().await;
    native.error_log().assert_clean();
}

async fn seen(server: &Server, what: &str) -> Vec<String> {
    let query = match what {
        "automatic numbers" => {
            "SELECT /*+ SET_VAR(information_schema_stats_expiry = 0) */ CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' ', AUTO_INCREMENT) \
             FROM information_schema.TABLES WHERE AUTO_INCREMENT IS NOT NULL AND TABLE_SCHEMA NOT IN ('mysql', 'sys') ORDER BY 1"
        }
        "prepared transactions" => "XA RECOVER",
        _ => "SELECT @@GLOBAL.gtid_executed",
    };
    if what == "prepared transactions" {
        let mut rows: Vec<(i64, i64, i64, String)> = server.rows(query).await;
        rows.sort();
        return rows.into_iter().map(|(.., data)| data).collect();
    }
    server.rows::<(String,)>(query).await.into_iter().map(|(text,)| text).collect()
}
