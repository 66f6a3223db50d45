//! Reads the index in part: one key, or a walk in order over all its objects side by side.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

use super::ArchiveError;
use super::codec::Decompressor;
use super::container::Kind;
use super::frame::FrameKey;
use super::index::{IndexRecord, index_key};
use super::object::ObjectSource;
use super::table::{Owner, TableReader, TableRef};

/// The index objects of an archive. Their directories are read once, when first needed.
pub struct Index {
    tables: Vec<(TableRef, Mutex<Option<Arc<TableReader>>>)>,
}

impl Index {
    /// Of these objects; nothing is read yet.
    pub fn new(tables: &[TableRef]) -> Self {
        Self { tables: tables.iter().map(|table| (table.clone(), Mutex::default())).collect() }
    }

    fn open(
        &self,
        number: usize,
        source: &dyn ObjectSource,
        owner: &Owner,
        decompressor: &mut Decompressor,
    ) -> Result<Option<Arc<TableReader>>, ArchiveError> {
        let Some((table, opened)) = self.tables.get(number) else { return Ok(None) };
        // Held while it is read, so that threads that need the same directory read it once.
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = opened.as_ref() {
            return Ok(Some(Arc::clone(reader)));
        }
        let reader = Arc::new(TableReader::open(source, owner, table, Kind::Index, decompressor)?);
        *opened = Some(Arc::clone(&reader));
        Ok(Some(reader))
    }

    /// The record of a window, if there is one.
    pub fn find(
        &self,
        source: &dyn ObjectSource,
        owner: &Owner,
        key: FrameKey,
    ) -> Result<Option<IndexRecord>, ArchiveError> {
        let mut decompressor = Decompressor::new()?;
        for number in 0..self.tables.len() {
            let Some(table) = self.open(number, source, owner, &mut decompressor)? else { continue };
            let Some(page) = table.page_of(&index_key(key)) else { continue };
            let records = table.read_page(source, page, &mut decompressor, IndexRecord::decode)?;
            if let Ok(at) = records.binary_search_by_key(&key, |record| record.key) {
                return Ok(records.get(at).copied());
            }
        }
        Ok(None)
    }

    /// Checks the header of each index object; gives what is wrong to `failed`, by object.
    pub fn check_headers(
        &self,
        source: &dyn ObjectSource,
        owner: &Owner,
        failed: &mut dyn FnMut(&str, ArchiveError) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut decompressor = Decompressor::new()?;
        for (number, (table, _)) in self.tables.iter().enumerate() {
            let opened = self.open(number, source, owner, &mut decompressor);
            if let Err(error) = opened.and_then(|table| table.map_or(Ok(()), |table| table.check_header(source))) {
                failed(&table.name, error)?;
            }
        }
        Ok(())
    }

    /// A walk over all records whose key is not below `from`, or all.
    pub fn walk<'a>(
        &'a self,
        source: &'a dyn ObjectSource,
        owner: &'a Owner,
        from: Option<FrameKey>,
    ) -> Result<IndexWalk<'a>, ArchiveError> {
        let mut walk =
            IndexWalk { source, decompressor: Decompressor::new()?, cursors: Vec::new(), next: BinaryHeap::new() };
        for number in 0..self.tables.len() {
            let Some(table) = self.open(number, source, owner, &mut walk.decompressor)? else { continue };
            let page = from.and_then(|key| table.page_of(&index_key(key))).unwrap_or(0);
            walk.cursors.push(Cursor { table, next_page: page, records: Vec::new().into_iter(), last: None });
            let mut record = walk.advance(number)?;
            while let (Some(found), Some(from)) = (record, from)
                && found.key < from
            {
                record = walk.advance(number)?;
            }
            walk.push(record, number);
        }
        Ok(walk)
    }
}

struct Cursor {
    table: Arc<TableReader>,
    next_page: u32,
    records: std::vec::IntoIter<IndexRecord>,
    last: Option<FrameKey>,
}

/// A walk in order of keys; one page of each index object is in memory.
pub struct IndexWalk<'a> {
    source: &'a dyn ObjectSource,
    decompressor: Decompressor,
    cursors: Vec<Cursor>,
    next: BinaryHeap<Reverse<(FrameKey, usize, HeapRecord)>>,
}

/// Rides along in the heap without a part in its order.
struct HeapRecord(IndexRecord);

impl PartialEq for HeapRecord {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for HeapRecord {}

impl PartialOrd for HeapRecord {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HeapRecord {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl IndexWalk<'_> {
    fn push(&mut self, record: Option<IndexRecord>, number: usize) {
        if let Some(record) = record {
            self.next.push(Reverse((record.key, number, HeapRecord(record))));
        }
    }

    /// The next record of one index object.
    fn advance(&mut self, number: usize) -> Result<Option<IndexRecord>, ArchiveError> {
        let Some(cursor) = self.cursors.get_mut(number) else { return Ok(None) };
        loop {
            if let Some(record) = cursor.records.next() {
                if cursor.last.is_some_and(|last| last >= record.key) {
                    let what = format!("{} is out of order", record.key);
                    return Err(ArchiveError::damaged(cursor.table.name(), what));
                }
                cursor.last = Some(record.key);
                return Ok(Some(record));
            }
            if cursor.next_page >= cursor.table.pages() {
                return Ok(None);
            }
            let page = cursor.next_page;
            cursor.next_page += 1;
            let records = cursor.table.read_page(self.source, page, &mut self.decompressor, IndexRecord::decode)?;
            cursor.records = records.into_iter();
        }
    }

    /// The next record of all.
    pub fn next(&mut self) -> Result<Option<IndexRecord>, ArchiveError> {
        let Some(Reverse((_, number, HeapRecord(record)))) = self.next.pop() else { return Ok(None) };
        let following = self.advance(number)?;
        self.push(following, number);
        Ok(Some(record))
    }
}
