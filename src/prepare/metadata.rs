//! Tables' metadata that only redo knows: the last value of `AUTO_INCREMENT`, and which indexes are corrupt
//! (redo-records reference, section 7).
//!
//! ```text
//!   records in log order ─► per table: newest version, highest value │ every set of corrupt indexes ─► records again
//! ```
//! The server keeps these in a table that it writes seldom. What is behind in it must reach the restored server, or
//! `AUTO_INCREMENT` would give numbers that were used before; so the winners are put into the new log, and the server
//! stores them when it starts. Every record counts, also one before the checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use crate::innodb::FormatError;
use crate::innodb::redo::body::Body;
use crate::innodb::redo::body::files::Metadata;
use crate::innodb::redo::record::SINGLE_RECORD;
use crate::innodb::redo::{RecordKind, RedoRecord};

/// The metadata of all tables that a log tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableMetadata {
    tables: BTreeMap<u64, OfTable>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfTable {
    auto_increment: Option<AutoIncrement>,
    corrupt: BTreeSet<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AutoIncrement {
    version: u64,
    value: u64,
    record: Vec<u8>,
}

impl TableMetadata {
    /// Takes a record into account. Those of other kinds say nothing here.
    pub fn note(&mut self, record: &RedoRecord<'_>) -> Result<(), FormatError> {
        if record.kind != RecordKind::DynamicMeta {
            return Ok(());
        }
        let Body::DynamicMeta(meta) = record.body()? else { return Ok(()) };
        let table = self.tables.entry(meta.table).or_default();
        match meta.metadata {
            Metadata::CorruptIndexes(_) => {
                let _ = table.corrupt.insert(alone(record.bytes));
            }
            Metadata::AutoIncrement(value) => {
                let (version, known) = (meta.version, table.auto_increment.as_ref());
                if known.is_none_or(|known| (version, value) > (known.version, known.value)) {
                    let record = alone(record.bytes);
                    table.auto_increment = Some(AutoIncrement { version, value, record });
                }
            }
        }
        Ok(())
    }

    /// Number of tables.
    pub fn table_count(&self) -> usize {
        self.tables.len()
    }

    /// The records that say it all, each a group by itself.
    pub fn groups(&self) -> impl Iterator<Item = &[u8]> {
        self.tables.values().flat_map(|table| {
            let auto_increment = table.auto_increment.iter().map(|winner| winner.record.as_slice());
            table.corrupt.iter().map(Vec::as_slice).chain(auto_increment)
        })
    }
}

/// A record's bytes, as those of a group of its own.
fn alone(record: &[u8]) -> Vec<u8> {
    let mut bytes = record.to_vec();
    if let Some(kind) = bytes.first_mut() {
        *kind |= SINGLE_RECORD;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::lsn::Lsn;

    /// Table, version and value, all below 128.
    fn auto_increment(table: u8, version: u8, value: u8) -> Vec<u8> {
        vec![62, table, version, 2, value]
    }

    fn noted(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut metadata = TableMetadata::default();
        for record in records {
            metadata.note(&RedoRecord::decode(record, Lsn::new(8204)).unwrap()).unwrap();
        }
        metadata.groups().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn the_newest_version_wins_and_then_the_highest_value() {
        let groups = noted(&[
            auto_increment(7, 1, 50),
            auto_increment(7, 1, 60),
            auto_increment(7, 1, 55),
            auto_increment(9, 2, 90),
            auto_increment(9, 3, 10),
            auto_increment(9, 2, 99),
        ]);
        assert_eq!(groups, [vec![0x3E | 0x80, 7, 1, 2, 60], vec![0x3E | 0x80, 9, 3, 2, 10]]);
    }

    #[test]
    fn corrupt_indexes_add_up() {
        let corrupt = |index: u8| [vec![62, 7, 1, 1, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], vec![index]].concat();
        let groups = noted(&[corrupt(1), auto_increment(7, 1, 3), corrupt(2), corrupt(1)]);
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[2], [0x3E | 0x80, 7, 1, 2, 3]);
    }

    #[test]
    fn other_records_say_nothing() {
        assert!(noted(&[vec![0x81, 5, 3, 0, 40, 1]]).is_empty());
    }
}
