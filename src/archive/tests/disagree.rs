//! Tables that are whole each for itself, but do not fit each other: what a bug in a writer, or a forger of an
//! unencrypted backup, would leave.

use super::sample::*;
use crate::archive::container::Kind;
use crate::archive::index::IndexRecord;
use crate::archive::memory::MemoryStore;
use crate::archive::redo::RedoRef;
use crate::archive::table::{Owner, TableRef, TableWriter};
use crate::archive::*;
use crate::innodb::lsn::Lsn;

struct Forge {
    stored: Stored,
    manifest: Manifest,
    owner: Owner,
}

impl Forge {
    fn new() -> Self {
        let options = options(Codec::None, 40_000, Vec::new());
        let stored = write(&Sample::new(), &options);
        let manifest = Manifest::decode(&stored.manifest).unwrap();
        Self { stored, manifest, owner: Owner { backup: options.backup, attempt: options.attempt, keys: None } }
    }

    fn table(&self, name: &str, kind: Kind, records: impl IntoIterator<Item = ([u8; 16], Vec<u8>)>) -> TableRef {
        let store: &MemoryStore = &self.stored.store;
        let mut table = TableWriter::create(store, &self.owner, name, kind, Codec::None).unwrap();
        for (key, record) in records {
            table.record(key, &record).unwrap();
        }
        table.finish().unwrap()
    }

    fn index(&self, name: &str, records: &[IndexRecord]) -> TableRef {
        self.table(name, Kind::Index, records.iter().map(|record| (record.directory_key(), record.encode())))
    }

    fn records(&self) -> Vec<IndexRecord> {
        let reader = self.stored.open(&[]).unwrap();
        let mut records = Vec::new();
        for stream in Sample::new().streams {
            let mut push = |at: FrameRef| {
                records.push(at.record());
                Ok(())
            };
            reader.frames_of(stream.id, &mut push).unwrap();
        }
        records.sort_by_key(|record| record.key);
        records
    }

    fn problems(mut self) -> Vec<String> {
        self.stored.manifest = self.manifest.encode(None).unwrap();
        self.stored.problems(&[])
    }

    fn expect(self, what: &str) {
        let problems = self.problems();
        assert!(problems.iter().any(|problem| problem.contains(what)), "{what}: {problems:?}");
    }
}

fn with_index(change: impl FnOnce(&mut Vec<IndexRecord>)) -> Forge {
    let mut forge = Forge::new();
    let mut records = forge.records();
    change(&mut records);
    forge.manifest.contents.index = vec![forge.index("index-0001", &records)];
    forge
}

#[test]
fn an_index_that_does_not_fit_packs_or_files_is_noticed() {
    assert_eq!(with_index(|_| {}).problems(), Vec::<String>::new(), "the forging itself is sound");
    // Space 7 is the second stream; it has two windows, so records 1 and 2.
    with_index(|records| records.retain(|record| record.key.window_no != 1))
        .expect("space 7 has 258 pages or units, its frames have 256");
    with_index(|records| records[1] = IndexRecord { units: 9, ..records[1] }).expect("space 7 has");
    with_index(without_first).expect("no frame of space 0");
    with_index(without_first).expect("pack-000001: it has");
    with_index(|records| records[1].units -= 1).expect("pack-000002: its frames are not those");
    with_index(|records| records[1].offset += 1).expect("pack-000002: its frames are not those");
    with_index(|records| records[0].pack = 77).expect("pack-000077");
    with_index(|records| records.swap(0, 1)).expect("out of order");
    with_index(|records| records.push(IndexRecord { key: FrameKeyOf(99).into(), ..records[0] })).expect("file 99");
}

fn without_first(records: &mut Vec<IndexRecord>) {
    records.remove(0);
}

struct FrameKeyOf(u32);

impl From<FrameKeyOf> for crate::archive::frame::FrameKey {
    fn from(file: FrameKeyOf) -> Self {
        Self { stream: StreamId::File(file.0), window_no: 0 }
    }
}

#[test]
fn a_window_that_two_index_objects_have_is_noticed() {
    let mut forge = Forge::new();
    let records = forge.records();
    forge.manifest.contents.index = vec![forge.index("index-0001", &records), forge.index("index-0002", &records[..1])];
    forge.manifest.contents.object_count += 1;
    forge.expect("window 0 of space 0 is there twice");
}

#[test]
fn a_file_table_that_knows_more_is_noticed() {
    let mut forge = Forge::new();
    let mut table = Sample::new().table;
    table.spaces[0].pages += 1;
    table.spaces[0].pieces[0].pages += 1;
    forge.manifest.contents.files = forge.table("files", Kind::Files, table.encode());
    forge.expect("space 0 has 5 pages or units, its frames have 4");
}

fn with_redo(change: impl FnOnce(&mut Vec<RedoRef>)) -> Forge {
    let mut forge = Forge::new();
    let mut segments = forge.stored.open(&[]).unwrap().redo_segments().to_vec();
    change(&mut segments);
    let records = segments.iter().map(|segment| (segment.directory_key(), segment.encode()));
    forge.manifest.contents.redo_table = forge.table("redo-table", Kind::RedoTable, records.collect::<Vec<_>>());
    forge
}

#[test]
fn redo_with_a_gap_is_noticed_when_it_is_read() {
    assert_eq!(with_redo(|_| {}).problems(), Vec::<String>::new());
    with_redo(|segments| drop(segments.remove(1)))
        .expect("the redo has a gap: LSN 11264 should follow, found LSN 12288");
    with_redo(|segments| drop(segments.pop())).expect("redo-table is damaged: its LSNs are not those of the manifest");
    with_redo(Vec::clear).expect("its LSNs are not those");
    with_redo(|segments| segments[0].end = Lsn::new(11000)).expect("gap");
    with_redo(|segments| segments[1].first_block = 0).expect("redo-000001");
    with_redo(|segments| segments[1].blocks = 9).expect("redo-000001");
    with_redo(|segments| segments[2].blocks = 0).expect("redo-000001");
    with_redo(|segments| segments[0].pack = 5).expect("it has no redo-000005");
    with_redo(|segments| segments[2].offset += 1).expect("not where the redo table says");
}
