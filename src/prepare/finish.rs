//! The end of recovery: a redo log in which a server finds nothing to do to any page (redo-log reference, section 11).
//!
//! ```text
//!   #ib_redo0   header │ checkpoint X │ no encryption │ checkpoint X │ block of X: metadata of tables, or nothing │ zeros
//!   ibdata1     page 0: flush LSN = X                                                    X = next block + 12 > every LSN
//! ```
//! With nothing behind the checkpoint the server starts as after a clean shutdown. Metadata of tables is put there as
//! records; the server takes it in as it does after a crash, and keeps it: there are no pages to recover then, either.

use super::PrepareError;
use super::metadata::TableMetadata;
use crate::innodb::FormatError;
use crate::innodb::ids::PageSize;
use crate::innodb::lsn::{LOG_BLOCK_HEADER, LOG_BLOCK_SIZE, Lsn};
use crate::innodb::redo::block::{empty_block, encode_block};
use crate::innodb::redo::file::{
    HEADER_BLOCK_SIZE, MIN_FILE_SIZE, RedoFileHeader, RedoFlags, encode_checkpoint, file_name,
};

/// Where page 0 of the system tablespace has the LSN of the last clean shutdown. No checksum covers it.
pub const FLUSH_LSN_OFFSET: u64 = 26;
/// Bytes of records in a block.
const PAYLOAD: usize = 496;

/// A log to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanLog {
    /// Its checkpoint, which page 0 of the system tablespace must name as flush LSN.
    pub checkpoint: Lsn,
    /// Name of its one file.
    pub file_name: String,
    /// What the file begins with.
    pub bytes: Vec<u8>,
    /// Size of the file; zeros follow.
    pub size_bytes: u64,
}

/// Makes a log for pages that were recovered to `end`. `log_uuid` must be a new one: the history of this log is not that
/// of the one that was captured.
pub fn clean_log(
    end: Lsn,
    metadata: &TableMetadata,
    page_size: PageSize,
    log_uuid: u32,
    creator: &str,
) -> Result<CleanLog, PrepareError> {
    let make = || {
        let start = next_block(end)?;
        let checkpoint = start.checked_add(LOG_BLOCK_HEADER)?;
        Some((start, checkpoint))
    };
    let failed = |source| PrepareError::Finish { at: end, source };
    let overflow = || failed(FormatError::Invalid { what: "redo log", why: "its LSNs overflow".into() });
    let (start, checkpoint) = make().ok_or_else(overflow)?;
    let header =
        RedoFileHeader { log_uuid, start_lsn: start, creator: creator.to_owned(), flags: RedoFlags::default() };
    let mut bytes = header.encode().to_vec();
    bytes.extend(encode_checkpoint(checkpoint));
    bytes.extend([0; HEADER_BLOCK_SIZE]);
    bytes.extend(encode_checkpoint(checkpoint));
    append_blocks(&mut bytes, start, metadata).map_err(failed)?;
    let size_bytes = u64::try_from(bytes.len())
        .ok()
        .and_then(|len| len.checked_add(MIN_FILE_SIZE)?.checked_next_multiple_of(u64::from(page_size.bytes())))
        .ok_or_else(overflow)?;
    Ok(CleanLog { checkpoint, file_name: file_name(0), bytes, size_bytes })
}

/// The first block that begins behind `lsn`.
fn next_block(lsn: Lsn) -> Option<Lsn> {
    lsn.block_start().checked_add(LOG_BLOCK_SIZE)
}

fn append_blocks(bytes: &mut Vec<u8>, start: Lsn, metadata: &TableMetadata) -> Result<(), FormatError> {
    let (mut payload, mut starts) = (Vec::new(), Vec::new());
    for group in metadata.groups() {
        starts.push(payload.len());
        payload.extend_from_slice(group);
    }
    let mut at = start;
    let overflow = || FormatError::Invalid { what: "redo log", why: "its LSNs overflow".into() };
    for (index, part) in payload.chunks(PAYLOAD).enumerate() {
        let from = index.saturating_mul(PAYLOAD);
        let first = starts.get(starts.partition_point(|start| *start < from)).map(|start| start.saturating_sub(from));
        bytes.extend(encode_block(at, part, first.filter(|first| *first < part.len()))?);
        at = at.checked_add(LOG_BLOCK_SIZE).ok_or_else(overflow)?;
    }
    // A group that fills its block counts only where the next block is there; and a log has one block at least.
    if payload.len().is_multiple_of(PAYLOAD) {
        bytes.extend(empty_block(at.checked_add(LOG_BLOCK_HEADER).ok_or_else(overflow)?)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::redo::file::decode_checkpoint;
    use crate::innodb::redo::{EndReason, Poll, RedoDecoder, RedoRecord};

    const END: Lsn = Lsn::new(20_000 * 512 + 77);

    fn metadata(tables: u16) -> TableMetadata {
        let mut metadata = TableMetadata::default();
        for table in 0..tables {
            let [high, low] = table.to_be_bytes();
            let bytes = [62, 0x80 | high, low, 1, 2, 5];
            metadata.note(&RedoRecord::decode(&bytes, END).unwrap()).unwrap();
        }
        metadata
    }

    /// The groups that a server would find, and why the log ends.
    fn read(log: &CleanLog) -> (Vec<Vec<u8>>, EndReason) {
        let mut decoder = RedoDecoder::new(log.checkpoint, None);
        let mut blocks = log.bytes[2048..].to_vec();
        blocks.resize(usize::try_from(log.size_bytes).unwrap() - 2048, 0);
        decoder.feed(&blocks).unwrap();
        let mut groups = Vec::new();
        loop {
            match decoder.poll().unwrap() {
                Poll::Group(group) => {
                    assert!(group.start >= log.checkpoint && !group.begins_before_checkpoint());
                    groups.push(group.bytes().to_vec());
                }
                Poll::NeedMore => panic!("it has no end"),
                Poll::End(end) => return (groups, end.reason),
            }
        }
    }

    #[test]
    fn a_server_finds_nothing_but_metadata() {
        // 6 bytes each: 248 fill three blocks exactly.
        for tables in [0_u16, 1, 82, 83, 248, 1000] {
            let metadata = metadata(tables);
            let log = clean_log(END, &metadata, PageSize::DEFAULT, 7, "MySQL 9.7.4").unwrap();
            assert!(
                log.checkpoint > END && log.checkpoint.block_offset() == 12 && log.size_bytes.is_multiple_of(16384)
            );
            let (groups, reason) = read(&log);
            assert_eq!(reason, EndReason::PartialBlock, "{tables} tables");
            assert_eq!(groups, metadata.groups().map(<[u8]>::to_vec).collect::<Vec<_>>(), "{tables} tables");
            let header = RedoFileHeader::decode(&log.bytes[..512]).unwrap();
            assert_eq!((header.log_uuid, header.start_lsn), (7, log.checkpoint.block_start()));
            assert_eq!((header.creator.as_str(), header.flags), ("MySQL 9.7.4", RedoFlags::default()));
            for at in [512, 1536] {
                assert_eq!(decode_checkpoint(&log.bytes[at..at + 512]).unwrap(), Some(log.checkpoint));
            }
        }
    }

    #[test]
    fn the_last_lsn_there_is_has_no_log_behind_it() {
        assert!(clean_log(Lsn::new(u64::MAX), &metadata(1), PageSize::DEFAULT, 7, "MySQL 9.7.4").is_err());
    }
}
