//! The check of a tablespace's structure, against files of real servers: silent on good ones, and it finds what is
//! planted into them under right checksums.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is part of tests: what fails, fails them"
)]

mod support;

#[path = "structure/planted.rs"]
mod planted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stillframe::innodb::check::{Checked, Finding, Source, Subject, check_space};
use stillframe::innodb::checksum::stamp_page;
use stillframe::innodb::ids::PageNo;
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::page::{PageType, compress};
use stillframe::innodb::space::SpaceHeader;
use stillframe::ops::error::ErrorKind;
use support::cli::Cli;
use support::round;
use support::server::{Server, scratch};
use support::workload::text::Random;
use support::workload::{Options, Workload};

/// A tablespace's file in memory.
#[derive(Clone)]
struct File {
    bytes: Vec<u8>,
    header: SpaceHeader,
}

impl File {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let header = SpaceHeader::decode(&bytes[..bytes.len().min(65536)]).unwrap();
        Self { bytes, header }
    }

    fn size(&self) -> usize {
        self.header.flags.physical_size().len()
    }

    fn page(&self, number: usize) -> &[u8] {
        &self.bytes[number * self.size()..(number + 1) * self.size()]
    }

    fn check(&self) -> (Checked, Vec<Finding>) {
        let subject = Subject {
            space: self.header.space,
            flags: self.header.flags,
            pages: u32::try_from(self.bytes.len() / self.size()).unwrap(),
            end: Lsn::new(1 << 40),
        };
        check_space(&subject, &mut self.clone()).unwrap()
    }

    /// The file with some bytes of a page changed, and the page's checksum right again.
    fn with(&self, page: usize, at: usize, bytes: &[u8]) -> Self {
        let (mut changed, size) = (self.clone(), self.size());
        let page = &mut changed.bytes[page * size..(page + 1) * size];
        page[at..at + bytes.len()].copy_from_slice(bytes);
        stamp_page(page).unwrap();
        changed
    }
}

impl Source for File {
    type Error = String;

    fn read(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), String> {
        let found = self.page(usize::try_from(number.0).unwrap());
        page.copy_from_slice(found);
        if u16::from_be_bytes([page[24], page[25]]) == PageType::Compressed.id() {
            let mut out = Vec::new();
            compress::decompress_page(found, &mut out).map_err(|error| error.to_string())?;
            page.copy_from_slice(&out);
        }
        Ok(())
    }
}

fn is_tablespace(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    let extension = path.extension().is_some_and(|extension| extension == "ibd" || extension == "ibu");
    extension || name.starts_with("undo_") || name == "ibdata1"
}

fn tablespaces(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with("#innodb") {
                tablespaces(&path, found);
            }
        } else if is_tablespace(&path) {
            found.push(path);
        }
    }
}

/// A stopped server that has done all kinds of work, and its files.
async fn files(page_size: u32) -> (Server, BTreeMap<String, File>) {
    let mut server = Server::builder().page_size(page_size).start().await;
    let workload = Workload::create(&server, &Options { rows: 40, plain: false, ..Options::default() }).await;
    let running = workload.start(4).await;
    running.wait_for(1500).await;
    running.stop().await;
    workload.fill(6 << 20).await;
    server.sql("DELETE FROM sf.bulk WHERE id % 3 = 0").await;
    server.sql("SET GLOBAL innodb_fast_shutdown = 0").await;
    server.stop().await;
    let mut paths = Vec::new();
    tablespaces(server.root(), &mut paths);
    let files = paths.iter().map(|path| {
        let name = path.strip_prefix(server.root()).unwrap().to_string_lossy().into_owned();
        (name, File::read(path))
    });
    let files: BTreeMap<String, File> = files.collect();
    assert!(files.len() > 40, "{}", files.len());
    (server, files)
}

/// Seeds for fuzzing the check: the smallest file of each kind of tablespace, as far as anything is in it; what they look
/// like is told in `innodb/fuzzing.rs`. `STILLFRAME_WRITE_SEEDS=fuzz/corpus cargo test --test structure 4k` writes them.
fn write_seeds(files: &BTreeMap<String, File>) {
    let Some(corpus) = std::env::var_os("STILLFRAME_WRITE_SEEDS") else { return };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(corpus).join("check");
    std::fs::create_dir_all(&corpus).unwrap();
    let mut smallest: BTreeMap<(u32, bool), (usize, &File)> = BTreeMap::new();
    for file in files.values() {
        let used = file.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let key = (file.header.flags.raw(), !pages_of(file, PageType::LobFirst).is_empty());
        let least = smallest.entry(key).or_insert((used, file));
        if used < least.0 {
            *least = (used, file);
        }
    }
    for ((flags, lobs), (used, file)) in smallest.into_iter().filter(|(_, (used, _))| *used < 160 << 10) {
        let bytes = [&file.header.space.0.to_be_bytes()[..], &flags.to_be_bytes(), &file.bytes[..used]].concat();
        std::fs::write(corpus.join(format!("seed-{flags:x}{}", if lobs { "-lobs" } else { "" })), bytes).unwrap();
    }
}

async fn assert_silent(page_size: u32) {
    let (_server, files) = files(page_size).await;
    if page_size == 4096 {
        write_seeds(&files);
    }
    let (mut sum, mut wrong) = (Checked::default(), Vec::new());
    for (name, file) in &files {
        let (checked, findings) = file.check();
        wrong.extend(findings.iter().map(|finding| format!("{name}: {finding}")));
        sum.pages += checked.pages;
        sum.index_pages += checked.index_pages;
        sum.ordered_pages += checked.ordered_pages;
        sum.lobs += checked.lobs;
        sum.undo_segments += checked.undo_segments;
    }
    println!("{} files: {sum:?}", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(sum.index_pages > 500 && sum.lobs > 10 && sum.undo_segments > 0, "{sum:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn good_files_of_16k_pages_are_silent() {
    assert_silent(16384).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_files_of_4k_pages_are_silent() {
    assert_silent(4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_files_of_64k_pages_are_silent() {
    assert_silent(65536).await;
}

/// Compressed tables with comments so long that what is said of them does not fit into a row: the order of their rows is
/// checked as that of others, and it is noticed when a part of the description is gone.
#[tokio::test(flavor = "multi_thread")]
async fn descriptions_that_compressed_tablespaces_keep_off_page_are_read() {
    let mut server = Server::builder().start().await;
    server.sql("CREATE DATABASE wide").await;
    let sizes = [1, 2, 4, 8, 16];
    for kib in sizes {
        let columns: Vec<String> =
            (0..30).map(|number| format!("c{number} INT COMMENT '{}'", digits(number))).collect();
        server
            .sql(&format!(
                "CREATE TABLE wide.t{kib} (id INT PRIMARY KEY, {}) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={kib};\n\
                 INSERT INTO wide.t{kib} (id, c7) VALUES (1, 2), (2, 3), (3, 4), (4, 5)",
                columns.join(", ")
            ))
            .await;
    }
    server.stop().await;
    for kib in sizes {
        let file = File::read(&server.datadir().join(format!("wide/t{kib}.ibd")));
        let parts = pages_of(&file, PageType::SdiZBlob);
        let (checked, findings) = file.check();
        println!("{kib} KiB: {} parts, {checked:?}", parts.len());
        assert!(findings.is_empty(), "{kib} KiB: {findings:?}");
        assert!(!parts.is_empty() && checked.ordered_pages > 0, "{kib} KiB: {} parts, {checked:?}", parts.len());
        let mut damaged = file.clone();
        let at = parts[0] * file.size() + 60;
        damaged.bytes[at] ^= 0x55;
        let (checked, findings) = damaged.check();
        assert!(findings.iter().any(|finding| finding.what.contains("not whole")), "{kib} KiB: {findings:?}");
        assert_eq!(checked.ordered_pages, 0);
    }
}

/// 900 digits that take half of that at least, however they are compressed.
fn digits(seed: u64) -> String {
    let mut random = Random::new(seed);
    (0..900).map(|_| char::from_digit(u32::try_from(random.below(16)).unwrap(), 16).unwrap()).collect()
}

fn pages_of(file: &File, kind: PageType) -> Vec<usize> {
    (0..file.bytes.len() / file.size()).filter(|number| file.page(*number)[24..26] == kind.id().to_be_bytes()).collect()
}

/// Numbers of the pages of a kind that are in their tree at a level.
fn index_pages(file: &File, level: u16) -> Vec<usize> {
    let is_one = |number: &usize| {
        let page = file.page(*number);
        u16::from_be_bytes([page[24], page[25]]) == PageType::Index.id() && page[64..66] == level.to_be_bytes()
    };
    (3..file.bytes.len() / file.size()).filter(is_one).collect()
}

fn first_of(file: &File, kind: PageType) -> usize {
    let is_one = |number: &usize| file.page(*number)[24..26] == kind.id().to_be_bytes();
    (0..file.bytes.len() / file.size()).find(is_one).unwrap()
}

fn u16_of(page: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([page[at], page[at + 1]])
}

fn u32_of(page: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(page[at..at + 4].try_into().unwrap())
}

/// A leaf with neighbours on both sides, and rows of which none was ever freed.
fn busy_leaf(file: &File) -> usize {
    let is_one = |leaf: &usize| {
        let page = file.page(*leaf);
        u32_of(page, 8) != u32::MAX && u32_of(page, 12) != u32::MAX && u16_of(page, 54) > 2 && u16_of(page, 44) == 0
    };
    index_pages(file, 0).into_iter().find(is_one).unwrap()
}

/// Damage to a table's file: what it is called, and the file with it.
fn damaged(bulk: &File) -> Vec<(&'static str, File)> {
    let (leaves, leaf) = (index_pages(bulk, 0), busy_leaf(bulk));
    let page = bulk.page(leaf).to_vec();
    let root = *index_pages(bulk, 1).first().unwrap();
    let first_row = 99 + usize::from(u16_of(&page, 97));
    let second_row = first_row + usize::from(u16_of(&page, first_row - 2));
    let link = u16::try_from(second_row - 99).unwrap();
    let near = [u32_of(&page, 8), u32_of(&page, 12), u32::try_from(leaf).unwrap()];
    let other = leaves.iter().map(|other| u32::try_from(*other).unwrap()).find(|other| !near.contains(other)).unwrap();
    let slot = page.len() - 12;
    let word = |at: usize, more: u16| (u16_of(&page, at).wrapping_add(more)).to_be_bytes();
    let inode = first_of(bulk, PageType::Inode);
    let page0 = bulk.page(0);
    // Its first row's key has 8 bytes, and the child follows.
    let top = bulk.page(root);
    let node = |row: usize| row + usize::from(u16_of(top, row - 2));
    let child_at = node(99) + 8;
    let other_child = top[node(node(99)) + 8..][..4].to_vec();
    // The extent that the leaf is in.
    let extent = 150 + (leaf / 64) * 40;
    // One that is a segment's own.
    let owned = 150 + (0..64).find(|number| page0[150 + number * 40 + 20..][..4] == [0, 0, 0, 4]).unwrap() * 40;
    let mut bits = page0[extent + 24..extent + 40].to_vec();
    bits[(leaf % 64) / 4] |= 1 << ((leaf % 4) * 2);
    let cases = vec![
        ("previous page", bulk.with(leaf, 8, &other.to_be_bytes())),
        ("next page", bulk.with(leaf, 12, &other.to_be_bytes())),
        ("next page is none", bulk.with(leaf, 12, &[0xFF; 4])),
        ("level", bulk.with(leaf, 64, &[0, 1])),
        ("index", bulk.with(leaf, 73, &[0xEE])),
        ("kind", bulk.with(leaf, 24, &PageType::Rtree.id().to_be_bytes())),
        ("place", bulk.with(leaf, 4, &other.to_be_bytes())),
        ("space", bulk.with(leaf, 34, &[0, 0, 0, 1])),
        ("LSN", bulk.with(leaf, 16, &[0, 0, 2, 0, 0, 0, 0, 0])),
        ("slot", bulk.with(leaf, slot, &word(slot, 1))),
        ("slots", bulk.with(leaf, 38, &word(38, 0xFFFF))),
        ("rows", bulk.with(leaf, 54, &word(54, 1))),
        ("heap", bulk.with(leaf, 42, &word(42, 1))),
        ("heap's end", bulk.with(leaf, 40, &[0x3F, 0xF8])),
        ("freed row in use", bulk.with(leaf, 44, &u16::try_from(first_row).unwrap().to_be_bytes())),
        ("owned rows", bulk.with(leaf, 99 - 5, &[2])),
        ("a row is skipped", bulk.with(leaf, 97, &link.to_be_bytes())),
        ("a row follows itself", bulk.with(leaf, first_row - 2, &[0xFF, 0xFF])),
        ("number in the heap", bulk.with(leaf, first_row - 4, &[0x7F, 0xF8])),
        ("rows out of order", bulk.with(leaf, second_row, &[0; 8])),
        ("first row behind the last page's", bulk.with(leaf, first_row, &[0; 8])),
        ("a length", bulk.with(leaf, first_row - 7, &[page[first_row - 7] ^ 1])),
        ("freed bytes", bulk.with(leaf, 46, &word(46, 8))),
        ("child", bulk.with(root, child_at, &other_child)),
        ("child of another kind", bulk.with(root, child_at, &[0, 0, 0, 2])),
        ("root's segment", bulk.with(root, 82, &[0, 0])),
        ("root has a neighbour", bulk.with(root, 12, &other.to_be_bytes())),
        ("size", bulk.with(0, 46, &[0, 0xFF, 0xFF, 0xFF])),
        ("free limit", bulk.with(0, 50, &[0, 0xFF, 0xFF, 0xFF])),
        ("free extents", bulk.with(0, 65, &[page0[65] + 1])),
        ("first extent of a list", bulk.with(0, 86, &[0, 0])),
        ("extent's state", bulk.with(0, extent + 20, &[0, 0, 0, 1])),
        ("extent's segment", bulk.with(0, owned, &[0, 0, 0, 0, 0, 0, 0, 99])),
        ("page in use is free", bulk.with(0, extent + 24, &bits)),
        ("segment's mark", bulk.with(inode, 50 + 60, &[0; 4])),
        ("segment twice", bulk.with(inode, 50, &bulk.page(inode)[50 + 192..50 + 200])),
        ("segment's full extents", bulk.with(inode, 50 + 192 + 44, &[0, 0, 0, 77])),
    ];
    for (name, file) in &cases {
        assert!(file.bytes != bulk.bytes, "{name} changes nothing");
    }
    cases
}

/// A page with a row that goes on elsewhere, and where it says so: the last 20 bytes of the row name a page of a large
/// object in this tablespace.
fn external_row(file: &File) -> (usize, usize) {
    let space = file.header.space.0.to_be_bytes();
    let is_lob = |number: u32| {
        let number = usize::try_from(number).unwrap();
        number * file.size() < file.bytes.len() && file.page(number)[24..26] == PageType::LobFirst.id().to_be_bytes()
    };
    for leaf in index_pages(file, 0) {
        let page = file.page(leaf);
        let mut row = 99 + usize::from(u16_of(page, 97));
        while row != 112 {
            let found = (row..row + 1000).find(|at| page[*at..].starts_with(&space) && is_lob(u32_of(page, at + 4)));
            if let Some(at) = found
                && page[row - 5] & 0x20 == 0
                && page[at + 12] & 0x80 == 0
            {
                return (leaf, at);
            }
            row = (row + usize::from(u16_of(page, row - 2))) & (file.size() - 1);
        }
    }
    panic!("no row with a large object");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found() {
    let (_server, files) = files(16384).await;
    let bulk = &files["data/sf/bulk.ibd"];
    let mut cases = damaged(bulk);
    let with_lobs = files.values().find(|file| {
        let mut numbers = 0..file.bytes.len() / file.size();
        // Of rows in the new format, as the places below take them to be.
        let compact = index_pages(file, 0).iter().all(|leaf| file.page(*leaf)[42] & 0x80 != 0);
        file.size() == 16384
            && compact
            && numbers.any(|number| file.page(number)[24..26] == PageType::LobFirst.id().to_be_bytes())
    });
    let with_lobs = with_lobs.unwrap();
    let lob = first_of(with_lobs, PageType::LobFirst);
    cases.push(("parts of a large object", with_lobs.with(lob, 67, &[99])));
    cases.push(("part of a large object", with_lobs.with(lob, 96 + 48, &[0, 0, 0, 1])));
    let (row, reference) = external_row(with_lobs);
    cases.push(("column's first page", with_lobs.with(row, reference + 4, &[0, 0, 0, 4])));
    let undo = files.iter().find(|(name, _)| name.ends_with("undo_001")).unwrap().1;
    let array = first_of(undo, PageType::RsegArray);
    cases.push(("rollback segment", undo.with(array, 56, &[0, 0, 0, 1])));
    let in_use = (0..128).map(|slot| u32_of(undo.page(array), 56 + slot * 4) as usize);
    let (segment, slot) = in_use
        .flat_map(|segment| (0..1024).map(move |slot| (segment, slot)))
        .find(|(segment, slot)| u32_of(undo.page(*segment), 72 + slot * 4) != u32::MAX)
        .unwrap();
    cases.push(("undo log of another kind", undo.with(segment, 72 + slot * 4, &[0, 0, 0, 2])));
    let log = u32_of(undo.page(segment), 72 + slot * 4) as usize;
    cases.push(("pages of an undo log", undo.with(log, 73, &[99])));
    cases.push(("state of an undo log", undo.with(log, 56, &[0, 0])));
    cases.extend(planted::of_table(bulk));
    cases.extend(planted::of_large_object(with_lobs));
    cases.extend(planted::of_undo(undo, array, segment, slot));
    let compressed = files.values().find(|file| file.header.flags.zip_size().is_some()).unwrap();
    cases.push(planted::of_compressed(compressed));
    let many = file_of_many_pages().await;
    assert_eq!(many.check().1, [], "it is good before");
    cases.extend(planted::of_many_pages(&many));
    let (mut missed, mut told) = (Vec::new(), Vec::new());
    for (name, file) in &cases {
        let (_, findings) = file.check();
        println!("{name}: {}", findings.first().map_or("NOTHING".into(), ToString::to_string));
        if findings.is_empty() {
            missed.push(*name);
        }
        told.extend(findings.iter().map(ToString::to_string));
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    let classes = planted::CLASSES.iter().chain(&planted::CLASSES_OF_LISTS);
    let silent: Vec<_> = classes.filter(|class| !told.iter().any(|finding| planted::is_of(class, finding))).collect();
    assert!(silent.is_empty(), "nothing that was planted is told by these: {silent:#?}");
}

/// A table of so many pages that the tree has three levels and page 0 does not describe all extents.
async fn file_of_many_pages() -> File {
    let mut server = Server::builder().page_size(4096).start().await;
    server
        .sql(
            "CREATE DATABASE d; CREATE TABLE d.many (id BIGINT UNSIGNED PRIMARY KEY, pad VARBINARY(1300) NOT NULL);\n\
             SET SESSION cte_max_recursion_depth = 100000;\n\
             INSERT INTO d.many WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) \
             SELECT i, REPEAT('p', 1300) FROM n",
        )
        .await;
    server.sql("SET GLOBAL innodb_fast_shutdown = 0").await;
    server.stop().await;
    File::read(&server.datadir().join("d/many.ibd"))
}

/// Damage that was in the source is in its backup, under right checksums: only a deep look finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deep_look_finds_what_was_wrong_in_the_source() {
    let mut server = Server::builder().start().await;
    let workload = Workload::create(&server, &Options { rows: 20, plain: false, ..Options::default() }).await;
    workload.fill(3 << 20).await;
    round::minimal_user(&server).await;
    let (_folder, store) = round::folder_store();
    round::backup(&server, &store).args(["--name", "good"]).json().await;
    server.stop().await;
    let path = server.datadir().join("sf/bulk.ibd");
    let bulk = File::read(&path);
    let (_, damaged) = damaged(&bulk).into_iter().find(|(name, _)| *name == "previous page").unwrap();
    std::fs::write(&path, &damaged.bytes).unwrap();
    server.start().await;
    round::backup(&server, &store).args(["--name", "bad"]).json().await;

    let place = scratch();
    let verify = |name: &str| Cli::new("verify").args(["--store", &store, name]);
    let deep = |name: &str| verify(name).args(["--deep", "--scratch-dir"]).arg(place.path());
    assert_eq!(verify("bad").json().await["good"], true, "every byte is as it was copied");
    let good = deep("good").json().await;
    assert_eq!((&good["good"], &good["structure"]["problemCount"]), (&true.into(), &0.into()), "{good}");
    let outcome = deep("bad").args(["-o", "json"]).run().await;
    assert_eq!(outcome.code(), Some(23), "{outcome}");
    let bad = outcome.json();
    assert_eq!(bad["good"], false);
    assert!(bad["problems"].to_string().contains("bulk.ibd"), "{bad}");
    // A restore that is asked to look, too: the database is there, and it is said what is wrong with it.
    let datadir = place.path().join("data");
    let restored =
        Cli::restore(&store, "bad", &datadir).args(["--external-files", "inside", "--check", "-o", "json"]).run().await;
    restored.assert_failed(ErrorKind::DamagedBackup, "are damaged");
    assert!(restored.json()["structure"]["problems"].to_string().contains("bulk.ibd"), "{restored}");
    std::fs::remove_dir_all(datadir).unwrap();
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "the scratch directory is left as it was");
}
