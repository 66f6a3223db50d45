//! Seeds for fuzzing `apply`, from real redo: a page as a record found it, that record, and the next ones of the page.
//!
//! `STILLFRAME_WRITE_SEEDS=fuzz/corpus cargo test --test native pages_of_4k` writes them anew; what they look like is
//! told in `innodb/fuzzing.rs`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use stillframe::innodb::apply::PageBuffer;
use stillframe::innodb::ids::PageId;
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::{RecordKind, RedoRecord};
use stillframe::innodb::space::TablespaceFlags;

/// Records of a seed.
const RECORDS: usize = 4;
/// Larger pages make large seeds and nothing else.
const LARGEST_PAGE: usize = 4096;

#[derive(Debug, Default)]
pub struct Seeds {
    seeds: BTreeMap<(RecordKind, bool, bool), Seed>,
    growing: HashMap<PageId, (RecordKind, bool, bool)>,
}

#[derive(Debug)]
struct Seed {
    flags: u32,
    page: Vec<u8>,
    records: Vec<Vec<u8>>,
}

impl Seeds {
    /// `None` unless they are to be written.
    pub fn wanted() -> Option<Self> {
        std::env::var_os("STILLFRAME_WRITE_SEEDS").map(|_| Self::default())
    }

    /// Looks at a record that is about to be applied.
    pub fn note(&mut self, flags: TablespaceFlags, page: &PageBuffer, record: &RedoRecord<'_>) {
        if flags.physical_size().len() > LARGEST_PAGE {
            return;
        }
        let id = record.page.unwrap();
        if let Some(seed) = self.growing.get(&id).and_then(|key| self.seeds.get_mut(key)) {
            seed.records.push(record.bytes.to_vec());
            if seed.records.len() == RECORDS {
                self.growing.remove(&id);
            }
            return;
        }
        let compact = page.frame().u16(42).unwrap_or(0) & 0x8000 != 0;
        let key = (record.kind, flags.zip_size().is_some(), compact);
        if self.seeds.contains_key(&key) {
            return;
        }
        // As it is in its file: what it is loaded from. In the midst of a group there are compressed pages that never are.
        let mut page = page.clone();
        let Ok(page) = page.finish(Lsn::new(8204)).map(<[u8]>::to_vec) else { return };
        let used = page.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let seed = Seed { flags: flags.raw(), page: page[..used].to_vec(), records: vec![record.bytes.to_vec()] };
        self.seeds.insert(key, seed);
        self.growing.insert(id, key);
    }

    /// Writes them, and their records as groups for the decoder.
    pub fn write(&self) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(std::env::var_os("STILLFRAME_WRITE_SEEDS").unwrap());
        for target in ["apply", "redo"] {
            std::fs::create_dir_all(corpus.join(target)).unwrap();
        }
        for ((kind, zip, compact), seed) in &self.seeds {
            let mut bytes = seed.flags.to_be_bytes().to_vec();
            bytes.push(u8::try_from(seed.records.len()).unwrap());
            let mut groups = Vec::new();
            for record in &seed.records {
                bytes.extend_from_slice(&u16::try_from(record.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(record);
                groups.extend_from_slice(record);
                if record[0] & 0x80 == 0 {
                    groups.push(RecordKind::MultiRecEnd.id());
                }
            }
            bytes.extend_from_slice(&seed.page);
            let name = |target: &str| {
                let format = if *compact { "compact" } else { "other" };
                corpus.join(target).join(format!("seed-{:02}-{format}{}", kind.id(), if *zip { "-zip" } else { "" }))
            };
            std::fs::write(name("apply"), bytes).unwrap();
            // One of each kind is enough for what does not know pages.
            let plainest = |(kind, zip, compact): (RecordKind, bool, bool)| (kind, zip, !compact);
            let is_other =
                |key: &(RecordKind, bool, bool)| key.0 == *kind && plainest(*key) < plainest((*kind, *zip, *compact));
            if !self.seeds.keys().any(is_other) {
                std::fs::write(name("redo"), groups).unwrap();
            }
        }
    }
}
