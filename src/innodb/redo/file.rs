//! Redo log files (format 6, MySQL 8.0.30 to 9.7; redo-log reference, sections 2, 3 and 11).
//!
//! ```text
//!   0 main header │ 512 checkpoint │ 1024 encryption │ 1536 checkpoint │ 2048 blocks of 512 bytes …
//!
//!   main header   0 format │ 4 log uuid │ 8 start LSN │ 16 creator (32) │ 48 flags │ 508 CRC-32C
//!   checkpoint    8 LSN │ 508 CRC-32C            encryption   48 encryption info (111)
//! ```
//! A set of files: numbers follow one another, each starts at the LSN where the former ends, all but the newest are
//! marked full. The valid checkpoint is the largest of all blocks whose LSN lies in their own file.

use crate::innodb::FormatError;
use crate::innodb::cursor::{slice, u32_at, u64_at};
use crate::innodb::ids::PageSize;
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
use crate::innodb::space::EncryptionInfo;

/// The one redo format that is known.
pub const REDO_FORMAT: u32 = 6;
/// Bytes before the first block.
pub const REDO_HEADER_SIZE: u64 = 2048;
/// Size of each of the four parts of the header.
pub const HEADER_BLOCK_SIZE: usize = 512;
/// Where the two checkpoint blocks are.
pub const CHECKPOINT_OFFSETS: [u64; 2] = [512, 1536];
/// Where the encryption block is.
pub const ENCRYPTION_OFFSET: u64 = 1024;
/// The smallest file a server accepts.
pub const MIN_FILE_SIZE: u64 = 64 << 10;
/// The largest file a server accepts.
pub const MAX_FILE_SIZE: u64 = 16 << 30;

const CREATOR: (usize, usize) = (16, 32);
const FLAGS: usize = 48;
const CRC: usize = 508;
const CHECKPOINT_LSN: usize = 8;
const ENCRYPTION_INFO: usize = 48;

/// Flags of a redo file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RedoFlags(pub u32);

impl RedoFlags {
    /// Redo logging is disabled.
    pub const NO_LOGGING: u32 = 1;
    /// A crash would lose data.
    pub const CRASH_UNSAFE: u32 = 2;
    /// The data directory is being initialised.
    pub const NOT_INITIALIZED: u32 = 4;
    /// The writer has left this file for a newer one.
    pub const FILE_FULL: u32 = 8;

    /// The log does not hold every change.
    pub const fn is_incomplete(self) -> bool {
        self.0 & (Self::NO_LOGGING | Self::CRASH_UNSAFE | Self::NOT_INITIALIZED) != 0
    }
}

/// The main header of a redo file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedoFileHeader {
    /// The same in all files of a set; a server's `Innodb_redo_log_uuid`.
    pub log_uuid: u32,
    /// LSN of the first block, a multiple of 512.
    pub start_lsn: Lsn,
    /// Who wrote it: `MySQL 9.7.4`.
    pub creator: String,
    /// Its flags.
    pub flags: RedoFlags,
}

impl RedoFileHeader {
    /// Decodes the first 512 bytes of a file.
    pub fn decode(block: &[u8]) -> Result<Self, FormatError> {
        let what = "header of the redo file";
        check_crc(block, what)?;
        let format = u32_at(block, 0, what)?;
        if format != REDO_FORMAT {
            return Err(FormatError::Unsupported { what: "redo log format", found: format.to_string() });
        }
        let start_lsn = Lsn::new(u64_at(block, 8, what)?);
        if start_lsn.block_offset() != 0 {
            return Err(FormatError::Invalid { what, why: format!("start LSN {start_lsn} is not at a block's start") });
        }
        let flags = u32_at(block, FLAGS, what)?;
        if flags > 0xF {
            return Err(FormatError::Unsupported { what: "redo file flags", found: format!("{flags:#x}") });
        }
        let creator = slice(block, CREATOR.0, CREATOR.1, what)?;
        let creator = creator.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Self {
            log_uuid: u32_at(block, 4, what)?,
            start_lsn,
            creator: String::from_utf8_lossy(creator).into_owned(),
            flags: RedoFlags(flags),
        })
    }

    /// Encodes it as the server would.
    pub fn encode(&self) -> [u8; HEADER_BLOCK_SIZE] {
        let mut block = [0; HEADER_BLOCK_SIZE];
        put(&mut block, 0, &REDO_FORMAT.to_be_bytes());
        put(&mut block, 4, &self.log_uuid.to_be_bytes());
        put(&mut block, 8, &self.start_lsn.get().to_be_bytes());
        let creator = self.creator.as_bytes();
        put(&mut block, CREATOR.0, creator.get(..31).unwrap_or(creator));
        put(&mut block, FLAGS, &self.flags.0.to_be_bytes());
        stamp_crc(&mut block);
        block
    }
}

/// Decodes a checkpoint block; `None` where this file never held the checkpoint.
pub fn decode_checkpoint(block: &[u8]) -> Result<Option<Lsn>, FormatError> {
    let what = "checkpoint of the redo file";
    check_crc(block, what)?;
    let lsn = Lsn::new(u64_at(block, CHECKPOINT_LSN, what)?);
    Ok((lsn != Lsn::ZERO).then_some(lsn))
}

/// Encodes a checkpoint block.
pub fn encode_checkpoint(lsn: Lsn) -> [u8; HEADER_BLOCK_SIZE] {
    let mut block = [0; HEADER_BLOCK_SIZE];
    put(&mut block, CHECKPOINT_LSN, &lsn.get().to_be_bytes());
    stamp_crc(&mut block);
    block
}

/// The wrapped key of an encrypted log, from the encryption block of a file.
pub fn encryption_info(block: &[u8]) -> Result<Option<EncryptionInfo>, FormatError> {
    let len = block.len().saturating_sub(ENCRYPTION_INFO);
    EncryptionInfo::decode(slice(block, ENCRYPTION_INFO, len, "encryption block of the redo file")?)
}

/// Where in a file that starts at `start` the block of `lsn` is; `None` before the start.
pub fn file_offset(start: Lsn, lsn: Lsn) -> Option<u64> {
    lsn.get().checked_sub(start.get())?.checked_add(REDO_HEADER_SIZE)
}

/// The number in the name of a redo file in use; `None` for spare files and everything else.
pub fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("#ib_redo")?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// The name of the redo file with this number.
pub fn file_name(number: u64) -> String {
    format!("#ib_redo{number}")
}

/// One file of a log set that is to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedFile {
    /// The number in its name.
    pub number: u64,
    /// LSN of its first block.
    pub start: Lsn,
    /// Its size with header.
    pub size_bytes: u64,
    /// Bytes of captured blocks in it; zeros follow.
    pub data_bytes: u64,
    /// The newest: the only one that is not marked full.
    pub last: bool,
}

/// Plans the files for `block_bytes` of captured blocks from `start` on, as a server accepts them: each at most
/// [`MAX_FILE_SIZE`] and a multiple of the page size, only the newest not full.
pub fn plan_log_set(start: Lsn, block_bytes: u64, page_size: PageSize) -> Result<Vec<PlannedFile>, FormatError> {
    let overflow = || FormatError::Invalid { what: "redo log set", why: "its LSNs overflow".into() };
    let capacity = MAX_FILE_SIZE.checked_sub(REDO_HEADER_SIZE).ok_or_else(overflow)?;
    let mut files = Vec::new();
    let (mut at, mut left, mut number) = (start, block_bytes, 0_u64);
    loop {
        let data_bytes = left.min(capacity);
        left = left.saturating_sub(data_bytes);
        let last = left == 0;
        // The newest file keeps room: recovery goes on writing behind what it read.
        let wanted = data_bytes.checked_add(REDO_HEADER_SIZE).ok_or_else(overflow)?;
        let wanted = if last { wanted.saturating_add(MIN_FILE_SIZE).min(MAX_FILE_SIZE) } else { wanted };
        let size_bytes = wanted.checked_next_multiple_of(u64::from(page_size.bytes())).ok_or_else(overflow)?;
        files.push(PlannedFile { number, start: at, size_bytes, data_bytes, last });
        if last {
            return Ok(files);
        }
        at = at.checked_add(data_bytes).ok_or_else(overflow)?;
        number = number.checked_add(1).ok_or_else(overflow)?;
    }
}

fn check_crc(block: &[u8], what: &'static str) -> Result<(), FormatError> {
    let stored = u32_at(block, CRC, what)?;
    let computed = crc32c::crc32c(slice(block, 0, CRC, what)?);
    if stored == computed { Ok(()) } else { Err(FormatError::Checksum { what, stored, computed }) }
}

pub(super) fn stamp_crc(block: &mut [u8]) {
    let sum = crc32c::crc32c(block.get(..CRC).unwrap_or_default());
    put(block, CRC, &sum.to_be_bytes());
}

/// Overwrites a field of a block of 512 bytes.
pub(super) fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = block.get_mut(at..at.saturating_add(bytes.len())) {
        field.copy_from_slice(bytes);
    }
}

const _: () = assert!(MAX_FILE_SIZE.is_multiple_of(65536) && REDO_HEADER_SIZE.is_multiple_of(LOG_BLOCK_SIZE));

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RedoFileHeader {
        RedoFileHeader {
            log_uuid: 77,
            start_lsn: Lsn::new(8192),
            creator: "MySQL 9.7.4".into(),
            flags: RedoFlags(RedoFlags::FILE_FULL),
        }
    }

    #[test]
    fn a_header_survives_the_way_there_and_back() {
        let block = header().encode();
        assert_eq!(RedoFileHeader::decode(&block).unwrap(), header());
        for at in [0, 4, 8, 20, 50, 300, 511] {
            let mut broken = block;
            broken[at] ^= 1;
            assert!(RedoFileHeader::decode(&broken).is_err(), "byte {at}");
        }
        assert!(RedoFileHeader::decode(&block[..100]).is_err());
    }

    #[test]
    fn other_formats_and_flags_are_refused_by_name() {
        let mut block = header().encode();
        block[3] = 7;
        stamp_crc(&mut block);
        assert_eq!(RedoFileHeader::decode(&block).unwrap_err().to_string(), "redo log format 7 is not supported");
        let mut block = header().encode();
        block[51] = 0x10;
        stamp_crc(&mut block);
        assert!(RedoFileHeader::decode(&block).is_err());
    }

    #[test]
    fn checkpoints() {
        assert_eq!(decode_checkpoint(&encode_checkpoint(Lsn::new(9000))), Ok(Some(Lsn::new(9000))));
        assert_eq!(decode_checkpoint(&encode_checkpoint(Lsn::ZERO)), Ok(None));
        assert!(decode_checkpoint(&[1; 512]).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(file_number("#ib_redo12"), Some(12));
        assert_eq!(file_number("#ib_redo0"), Some(0));
        for other in ["#ib_redo12_tmp", "#ib_redo", "#ib_redo01", "#ib_redo-1", "ib_logfile0"] {
            assert_eq!(file_number(other), None, "{other}");
        }
        assert_eq!(file_name(12), "#ib_redo12");
    }

    #[test]
    fn log_sets_obey_the_servers_limits() {
        let small = plan_log_set(Lsn::new(8192), 512, PageSize::DEFAULT).unwrap();
        assert_eq!(small.len(), 1);
        assert!(small[0].size_bytes >= MIN_FILE_SIZE && small[0].size_bytes.is_multiple_of(16384) && small[0].last);

        let large = plan_log_set(Lsn::new(8192), 40 << 30, PageSize::new(65536).unwrap()).unwrap();
        assert_eq!(large.iter().map(|file| file.data_bytes).sum::<u64>(), 40 << 30);
        for pair in large.windows(2) {
            assert_eq!(pair[0].start.get() + pair[0].size_bytes - REDO_HEADER_SIZE, pair[1].start.get());
            assert_eq!(pair[0].number + 1, pair[1].number);
            assert!(!pair[0].last && pair[0].size_bytes <= MAX_FILE_SIZE);
        }
        assert!(large.last().unwrap().last);
        assert!(plan_log_set(Lsn::new(u64::MAX - 511), 40 << 30, PageSize::DEFAULT).is_err());
    }
}
