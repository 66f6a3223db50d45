//! Where a log ends, and whether these tests would notice a wrong recovery: with one small crash.
//!
//! ```text
//!   … │ group │ group │ gro│up │ group            cut inside a group, cut inside a record, a flipped bit,
//!                          ▲                      an old block behind the end: both recoveries end at the same LSN
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stillframe::innodb::ids::{PageId, PageNo, SpaceId};
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::block::{BLOCK_LEN, cut_block};

use crate::case::{self, Crash, redo_files};
use crate::compare::compare;
use crate::driver::{self, Mode};
use crate::files::{Pages, spaces};
use crate::log::{Log, each_group};
use crate::oracle;
use crate::scenarios::{Work, rows};
use crate::{explain, quiet, read_all, seed};

/// A crash with small files of redo, so that its log goes through many of them.
async fn small_crash() -> Crash {
    case::cold(
        quiet(),
        async |_| (),
        async |server| {
            // So the files that follow have 512 KiB, and then a quarter more.
            let mut capacity = 16_u64 << 20;
            server.sql(&format!("SET GLOBAL innodb_redo_log_capacity = {capacity}")).await;
            let mut work = Work::new(server, seed() + 7, 1).await;
            work.run("CREATE TABLE small (id INT PRIMARY KEY, v VARBINARY(300), KEY (v(9)))").await;
            for step in 0..200 {
                work.run(format!(
                    "INSERT INTO small SELECT n * 200 + {step}, REPEAT(SHA2(n, 256), 4) FROM {}",
                    crate::scenarios::numbers(0, 700)
                ))
                .await;
                work.run(format!("DELETE FROM small WHERE id % 11 = {step}")).await;
                if step == 3 {
                    capacity = 20 << 20;
                    work.run(format!("SET GLOBAL innodb_redo_log_capacity = {capacity}")).await;
                }
                // A server with much else to do makes its files smaller late, and one with large pages not at all.
                let files = "SELECT COUNT(*) FROM performance_schema.innodb_redo_log_files";
                if step >= 5 && server.row::<u64>(files).await >= 6 {
                    break;
                }
                // All of its log is kept: full, it would wait for ever.
                let size = "SELECT CAST(VARIABLE_VALUE AS UNSIGNED) FROM performance_schema.global_status \
                            WHERE VARIABLE_NAME = 'Innodb_redo_log_logical_size'";
                if server.row::<u64>(size).await > capacity / 2 {
                    capacity *= 2;
                    work.run(format!("SET GLOBAL innodb_redo_log_capacity = {capacity}")).await;
                }
            }
            work.run("SET GLOBAL innodb_redo_log_capacity = 1 << 30").await;
            rows::redundant(&mut work).await;
        },
    )
    .await
}

/// A change to the block at an LSN, made to the log in memory and to its files.
type Change = Box<dyn Fn(&mut [u8])>;

/// What the log is like when it is cut: at which block, and how.
fn cuts(log: &Log) -> Vec<(&'static str, Lsn, Change)> {
    let mut ends = Vec::new();
    each_group(log, log.checkpoint, 512, |group| {
        ends.push((group.start, group.end, group.is_single(), group.records().last().map(|record| record.lsn)));
        true
    });
    let last_third = &ends[ends.len() * 2 / 3..];
    // One that is in three blocks at least: the middle one is gone.
    let wide =
        last_third.iter().find(|(start, end, ..)| end.block_start().get() - start.block_start().get() >= 1024).unwrap();
    let middle = Lsn::new(wide.0.block_start().get() + 512);
    // The log ends in the last record of a group, and in a record that is a group by itself.
    let in_block = |lsn: Lsn| lsn.is_legal_end() && lsn.block_offset() > 20;
    let several = last_third.iter().rev().find_map(|(_, _, single, last)| {
        let at = Lsn::new((*last)?.get() + 3);
        (!single && in_block(at)).then_some(at)
    });
    let alone = last_third.iter().rev().find_map(|(start, end, single, _)| {
        let at = Lsn::new(start.get() + 4);
        (*single && in_block(at) && at < *end && at.block_start() == start.block_start()).then_some(at)
    });
    let (several, alone) = (several.unwrap(), alone.unwrap());
    let at = |part: usize| last_third[last_third.len() * part / 8].0.block_start();
    let old = {
        let from = usize::try_from(at(1).saturating_since(log.checkpoint.block_start())).unwrap();
        log.blocks[from..from + BLOCK_LEN].to_vec()
    };
    vec![
        ("a block of a group is missing", middle, Box::new(|block: &mut [u8]| block.fill(0))),
        ("the end is in a group", several, Box::new(move |block: &mut [u8]| cut_block(block, several, None).unwrap())),
        ("the end is in a record", alone, Box::new(move |block: &mut [u8]| cut_block(block, alone, None).unwrap())),
        ("a bit is flipped", at(6), Box::new(|block: &mut [u8]| block[100] ^= 4)),
        ("an old block follows", at(5), Box::new(move |block: &mut [u8]| block.copy_from_slice(&old))),
    ]
}

fn change_files(redo: &Path, lsn: Lsn, change: &Change) {
    let files = redo_files(redo);
    let (start, path) = files.range(..=lsn).next_back().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = 2048 + usize::try_from(lsn.block_start().saturating_since(*start)).unwrap();
    change(&mut bytes[at..at + BLOCK_LEN]);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_logs_end_where_the_server_ends_them() {
    let crash = small_crash().await;
    assert!(redo_files(&crash.redo()).range(crash.log.checkpoint..).count() >= 4, "the log is in few files");
    let base = read_all(&spaces(&crash.base(), None));
    let whole = driver::recover(&base, &crash.log, Mode::Nothing).end;
    let named = named_pages(&crash.log);
    for (name, lsn, change) in cuts(&crash.log) {
        let recovered = oracle::recover(&crash, |redo| change_files(redo, lsn, &change)).await;
        let mut log = Log { checkpoint: crash.log.checkpoint, blocks: crash.log.blocks.clone(), key: None };
        let at = usize::try_from(lsn.block_start().saturating_since(log.checkpoint.block_start())).unwrap();
        change(&mut log.blocks[at..at + BLOCK_LEN]);
        let native = driver::recover(&base, &log, Mode::Apply);
        assert!(native.end < whole, "{name}: nothing was cut off");
        assert_eq!(native.scanned, recovered.end, "{name}: the log ends elsewhere for the server");
        let server = spaces(&recovered.datadir(), None);
        let outcome = compare(&base, &native, &server);
        // Nothing may be as a group behind our end leaves it: that group was not to be used. What the server itself wrote
        // before it was killed has LSNs from our end on, also such as it had read without using.
        let of_the_log =
            |(id, _): &(PageId, String)| named.contains(&(*id, lsn_of(&Pages::read(&server[&id.space]), id.page)));
        let good = outcome.is_good() && !outcome.written_since.iter().any(of_the_log);
        assert!(good, "{}", explain::explain(&outcome, Some(&native), &log, name));
        println!("{name}, at {} instead of {whole}: {outcome}", native.end);
    }
}

/// The pages that each group of a log names, with the LSN that the group leaves them with: where it ends.
fn named_pages(log: &Log) -> BTreeSet<(PageId, Lsn)> {
    let mut named = BTreeSet::new();
    each_group(log, log.checkpoint, 512, |group| {
        named.extend(group.records().filter_map(|record| Some((record.page?, group.end))));
        true
    });
    named
}

fn lsn_of(pages: &Pages, page: PageNo) -> Lsn {
    Lsn::new(u64::from_be_bytes(pages.raw(page).unwrap()[16..24].try_into().unwrap()))
}

/// The last record that changes something on each of some pages.
fn some_records(log: &Log, base: &BTreeMap<SpaceId, Pages>) -> Vec<(PageId, Lsn)> {
    let mut last: BTreeMap<PageId, Lsn> = BTreeMap::new();
    each_group(log, log.checkpoint, 512, |group| {
        for record in group.records().filter(|record| record.kind.changes_page() && !record.before_checkpoint) {
            if let Some(page) = record.page.filter(|page| base.contains_key(&page.space)) {
                last.insert(page, record.lsn);
            }
        }
        true
    });
    let step = last.len() / 25;
    last.into_iter().step_by(step.max(1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_recovery_is_noticed() {
    let crash = small_crash().await;
    let (first, second) = (oracle::recover(&crash, |_| ()).await, oracle::recover(&crash, |_| ()).await);
    let mut base = read_all(&spaces(&crash.base(), None));
    let server = spaces(&first.datadir(), None);

    // The server itself does the same twice.
    let again = spaces(&second.datadir(), None);
    for (id, space) in &server {
        let (one, two) = (Pages::read(space), Pages::read(&again[id]));
        assert_eq!(one.count(), two.count());
        for page in (0..one.count()).map(PageNo) {
            let newer = |pages: &Pages| lsn_of(pages, page) > first.end;
            // Where one of them was killed later, it has worked on.
            let same = one.raw(page) == two.raw(page) || newer(&one) || newer(&two);
            assert!(same, "page {page} of {}", space.path.display());
        }
    }

    let good = driver::recover(&base, &crash.log, Mode::Apply);
    let changed = compare(&base, &good, &server).changed;
    assert!(changed * u64::from(crash.server.page_size()) > 100 << 14, "{changed}");
    let nothing = driver::recover(&base, &crash.log, Mode::Nothing);
    let found = compare(&base, &nothing, &server);
    // What is written as it was is no loss.
    assert!(found.differences.len() as u64 > changed * 9 / 10, "of {changed} pages: {found}");

    let (mut noticed, mut idle) = (0, 0);
    for (page, lsn) in some_records(&crash.log, &base) {
        let one = BTreeMap::from([base.remove_entry(&page.space).unwrap()]);
        let found = compare(&one, &driver::recover(&one, &crash.log, Mode::Without(page, lsn)), &server);
        base.extend(one);
        let others: Vec<_> = found.differences.iter().filter(|difference| difference.id != page).collect();
        assert!(others.is_empty(), "a record of {page} is missing, {} is different", others[0].id);
        if found.differences.is_empty() {
            idle += 1;
        } else {
            noticed += 1;
        }
    }
    println!("{noticed} records were missed, {idle} had changed nothing");
    assert!(noticed > 15, "{noticed}, {idle}");
}
