//! A server's redo log read from its files, and what was found in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use stillframe::innodb::keyring::Keyring;
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::file::{RedoFileHeader, encryption_info, file_number, file_offset};
use stillframe::innodb::redo::{EndOfLog, MiniTransaction, Poll, RecordKind, RedoDecoder, RedoError};
use stillframe::innodb::space::TablespaceKey;

use crate::support::server::Server;

/// Blocks from the one that holds a checkpoint on, with whatever the last file holds behind the end.
pub struct Log {
    pub checkpoint: Lsn,
    pub blocks: Vec<u8>,
    pub key: Option<TablespaceKey>,
}

impl Log {
    pub fn read(dir: &Path, checkpoint: Lsn, keyring: Option<&Keyring>) -> Self {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if file_number(path.file_name().unwrap().to_str().unwrap()).is_some() {
                let bytes = std::fs::read(&path).unwrap();
                files.push((RedoFileHeader::decode(&bytes).unwrap().start_lsn, bytes));
            }
        }
        files.sort_by_key(|(start, _)| *start);
        let (mut blocks, mut key) = (Vec::new(), None);
        let mut next = None;
        for (start, bytes) in &files {
            if let (Some(info), Some(keyring)) = (encryption_info(&bytes[1024..1536]).unwrap(), keyring) {
                key = Some(info.unwrap_key(keyring).unwrap());
            }
            let end = start.get() + u64::try_from(bytes.len()).unwrap() - 2048;
            if end <= checkpoint.get() {
                continue;
            }
            match next {
                Some(next) => assert_eq!(next, *start, "the files of the log follow one another"),
                None => {
                    assert!(*start <= checkpoint, "the file of LSN {checkpoint} is gone, the first begins at {start}");
                }
            }
            next = Some(Lsn::new(end));
            let from = file_offset(*start, checkpoint.block_start().max(*start)).expect("it is in this file");
            blocks.extend_from_slice(&bytes[usize::try_from(from).unwrap()..]);
        }
        Self { checkpoint, blocks, key }
    }
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Seen {
    pub groups: u64,
    pub records: u64,
    pub largest: usize,
    pub counts: BTreeMap<RecordKind, (u64, u64)>,
    pub end: Option<EndOfLog>,
}

/// Hands over every group from `checkpoint` on, fed `step` blocks at a time, until `each` says that it is enough.
pub fn each_group(
    log: &Log,
    checkpoint: Lsn,
    step: usize,
    mut each: impl FnMut(MiniTransaction<'_>) -> bool,
) -> Option<EndOfLog> {
    try_each_group(log, checkpoint, step, |group| Ok(each(group))).unwrap()
}

fn try_each_group(
    log: &Log,
    checkpoint: Lsn,
    step: usize,
    mut each: impl FnMut(MiniTransaction<'_>) -> Result<bool, RedoError>,
) -> Result<Option<EndOfLog>, RedoError> {
    let skipped = checkpoint.block_start().saturating_since(log.checkpoint.block_start());
    let mut decoder = RedoDecoder::new(checkpoint, log.key.clone());
    for blocks in log.blocks[usize::try_from(skipped).unwrap()..].chunks(step * 512) {
        decoder.feed(blocks)?;
        loop {
            match decoder.poll()? {
                Poll::Group(group) if !each(group)? => return Ok(None),
                Poll::Group(_) => {}
                Poll::NeedMore => break,
                Poll::End(end) => return Ok(Some(end)),
            }
        }
    }
    panic!("the log has no end");
}

/// Decodes the whole log, `step` blocks at a time, every body too.
pub fn decode(log: &Log, step: usize) -> Result<Seen, RedoError> {
    let mut seen = Seen::default();
    let mut at = None;
    let end = try_each_group(log, log.checkpoint, step, |group| {
        assert!(at.is_none_or(|at| group.start == at), "groups follow one another");
        at = Some(group.end);
        seen.groups += 1;
        seen.largest = seen.largest.max(group.bytes().len());
        for record in group.records() {
            record.body().map_err(|source| RedoError { lsn: record.lsn, kind: Some(record.kind), source })?;
            seen.count(record.kind, record.bytes.len());
        }
        if !group.is_single() {
            seen.count(RecordKind::MultiRecEnd, 1);
        }
        Ok(true)
    })?;
    seen.end = end;
    Ok(seen)
}

impl Seen {
    fn count(&mut self, kind: RecordKind, bytes: usize) {
        self.records += 1;
        let count = self.counts.entry(kind).or_default();
        *count = (count.0 + 1, count.1 + u64::try_from(bytes).unwrap());
    }

    pub fn end_lsn(&self) -> Lsn {
        self.end.as_ref().unwrap().at
    }

    /// Kinds, how often and in how many bytes each was seen.
    pub fn table(&self) -> String {
        let mut text =
            format!("{} groups, {} records, largest group {} bytes\n", self.groups, self.records, self.largest);
        for kind in RecordKind::ALL {
            let (count, bytes) = self.counts.get(kind).copied().unwrap_or_default();
            writeln!(text, "{:>3} {:<32} {count:>9} records {bytes:>10} bytes", kind.id(), kind.name()).unwrap();
        }
        text
    }
}

/// A status variable that is an LSN.
pub async fn status_lsn(server: &Server, name: &str) -> Lsn {
    let query = format!(
        "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Innodb_redo_log_{name}'"
    );
    let (value,): (String,) = server.row(&query).await;
    value.parse().unwrap()
}

/// Where the server's recovery says that the log ends.
pub fn recovered_lsn(error_log: &str) -> Option<Lsn> {
    let found = error_log.lines().rev().find_map(|line| line.split("scanned up to log sequence number ").nth(1))?;
    found.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
