//! Log blocks: 512 bytes that the redo log is made of (format 6, MySQL 8.0.30 to 9.7; redo-log reference, section 4).
//!
//! ```text
//!   0 number │ 4 length, 0x8000 = encrypted │ 6 first group │ 8 epoch │ 12 payload (496) │ 508 CRC-32C
//!
//!   read at the place of LSN x:   number and epoch fit x      Valid
//!                                 … of an earlier LSN, zeros  NotWritten: what the file held before
//!                                 … of a later LSN            Overwritten: the server has lapped the reader
//!                                 checksum does not fit       a fault: torn, read again
//! ```

use crate::innodb::FormatError;
use crate::innodb::cursor::{slice, u16_at, u32_at};
use crate::innodb::lsn::{LOG_BLOCK_HEADER, LOG_BLOCK_SIZE, Lsn};
use crate::innodb::page::crypt::{decrypt_run, encrypt_run};
use crate::innodb::redo::file::{put, stamp_crc};
use crate::innodb::space::TablespaceKey;

/// Size of a block in memory.
pub const BLOCK_LEN: usize = 512;
/// What servers with `innodb_log_checksums=OFF` write.
const NO_CHECKSUM: u32 = 0xDEAD_BEEF;
const DATA_LEN: usize = 4;
const FIRST_GROUP: usize = 6;
const EPOCH: usize = 8;
const PAYLOAD: usize = 12;
const CRC: usize = 508;
const FLUSH_BIT: u32 = 0x8000_0000;
const ENCRYPTED: u16 = 0x8000;
/// Block numbers wrap here, and the epoch counts on.
const NUMBERS: u64 = 1 << 30;
const WHAT: &str = "log block";

/// A block in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBlock {
    /// LSN of its first byte.
    pub lsn: Lsn,
    /// Bytes used, counted from its start: 512 when full.
    pub data_len: u16,
    /// Where the first group of records that starts here starts; 0 when none does.
    pub first_rec_group: u16,
    /// Its payload is encrypted.
    pub encrypted: bool,
    /// Its checksum was compared: not so for an encrypted block without key.
    pub checked: bool,
}

impl LogBlock {
    /// Nothing more will be written into it.
    pub const fn is_full(&self) -> bool {
        self.data_len == 512
    }

    /// The LSN up to which it holds log: the next block's first LSN when it is full.
    pub fn end(&self) -> Lsn {
        self.lsn.checked_add(u64::from(self.data_len)).unwrap_or(self.lsn)
    }
}

/// What stands at the place of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockRead {
    /// Not this block yet: zeros, or a block of earlier log.
    NotWritten,
    /// A block of later log: the one that was wanted is gone.
    Overwritten {
        /// Its LSN.
        found: Lsn,
    },
    /// The block.
    Valid(LogBlock),
}

/// Decodes what was read at the place of `expected`. An error may be a torn read: read again first.
pub fn decode_block(raw: &[u8], expected: Lsn, key: Option<&TablespaceKey>) -> Result<BlockRead, FormatError> {
    let raw = slice(raw, 0, BLOCK_LEN, WHAT)?;
    let number = u32_at(raw, 0, WHAT)? & !FLUSH_BIT;
    if number == 0 {
        return Ok(BlockRead::NotWritten);
    }
    let length = u16_at(raw, DATA_LEN, WHAT)?;
    let found = block_lsn(number, u32_at(raw, EPOCH, WHAT)?)?;
    if found < expected {
        return Ok(BlockRead::NotWritten);
    }
    let encrypted = length & ENCRYPTED != 0;
    let checked = check_sum(raw, encrypted, key)?;
    if found > expected {
        return Ok(BlockRead::Overwritten { found });
    }
    let block = LogBlock {
        lsn: expected,
        data_len: length & !ENCRYPTED,
        first_rec_group: u16_at(raw, FIRST_GROUP, WHAT)?,
        encrypted,
        checked,
    };
    let legal = block.is_full() || (12..508).contains(&block.data_len);
    if !legal || block.first_rec_group > block.data_len {
        let why = format!("LSN {expected}: length {}, first group {}", block.data_len, block.first_rec_group);
        return Err(FormatError::Invalid { what: WHAT, why });
    }
    Ok(BlockRead::Valid(block))
}

/// Makes `raw`, the block that holds `end`, the last of a log that ends exactly there: what follows is cut off, and
/// recovery stops at precisely that LSN (MySQL 9.7; hot-backup-protocol reference, trap T1). An encrypted block
/// needs its key and is encrypted again.
pub fn cut_block(raw: &mut [u8], end: Lsn, key: Option<&TablespaceKey>) -> Result<(), FormatError> {
    let refuse = |why: String| FormatError::Invalid { what: "end of the captured log", why };
    if !end.is_legal_end() {
        return Err(refuse(format!("LSN {end} is in no block's payload")));
    }
    let BlockRead::Valid(block) = decode_block(raw, end.block_start(), key)? else {
        return Err(refuse(format!("the block at LSN {} is not there", end.block_start())));
    };
    if block.end() < end {
        return Err(refuse(format!("the block holds log up to LSN {}, not up to {end}", block.end())));
    }
    if block.encrypted {
        let Some(key) = key else {
            return Err(refuse(format!("the block at LSN {} is encrypted and its key is not at hand", block.lsn)));
        };
        decrypt_run(raw.get_mut(PAYLOAD..BLOCK_LEN).unwrap_or_default(), key)?;
    }
    let length = u16::try_from(end.block_offset()).map_err(|_| refuse(format!("LSN {end}")))?;
    let first = if block.first_rec_group >= length { length } else { block.first_rec_group };
    put(raw, DATA_LEN, &length.to_be_bytes());
    put(raw, FIRST_GROUP, &first.to_be_bytes());
    if let Some(tail) = raw.get_mut(usize::from(length)..CRC) {
        tail.fill(0);
    }
    stamp_crc(raw);
    if let (true, Some(key)) = (block.encrypted, key) {
        encrypt_run(raw.get_mut(PAYLOAD..BLOCK_LEN).unwrap_or_default(), key)?;
        put(raw, DATA_LEN, &(length | ENCRYPTED).to_be_bytes());
    }
    Ok(())
}

/// The block that begins at `start` and holds `payload`: 496 bytes make it a full one. `first_group` is where in the
/// payload the first group of records begins that begins in it.
pub fn encode_block(start: Lsn, payload: &[u8], first_group: Option<usize>) -> Result<[u8; BLOCK_LEN], FormatError> {
    let bad = || FormatError::Invalid { what: WHAT, why: format!("{} bytes at LSN {start}", payload.len()) };
    let mut raw = [0; BLOCK_LEN];
    raw.get_mut(PAYLOAD..CRC).and_then(|to| to.get_mut(..payload.len())).ok_or_else(bad)?.copy_from_slice(payload);
    let end = PAYLOAD.saturating_add(payload.len());
    let length = u16::try_from(if end == CRC { BLOCK_LEN } else { end }).map_err(|_| bad())?;
    let first = first_group.map_or(0, |at| PAYLOAD.saturating_add(at));
    let first = u16::try_from(first).map_err(|_| bad())?;
    let (number, epoch) = block_number(start).filter(|_| start.block_offset() == 0).ok_or_else(bad)?;
    put(&mut raw, 0, &number.to_be_bytes());
    put(&mut raw, DATA_LEN, &length.to_be_bytes());
    put(&mut raw, FIRST_GROUP, &first.to_be_bytes());
    put(&mut raw, EPOCH, &epoch.to_be_bytes());
    stamp_crc(&mut raw);
    Ok(raw)
}

/// A block that ends at `lsn` and holds no records: where a log begins that has only a checkpoint.
pub fn empty_block(lsn: Lsn) -> Result<[u8; BLOCK_LEN], FormatError> {
    let mut raw = [0; BLOCK_LEN];
    let bad = || FormatError::Invalid { what: WHAT, why: format!("LSN {lsn} is in no block's payload") };
    let offset = u16::try_from(lsn.block_offset()).map_err(|_| bad())?;
    if !lsn.is_legal_end() {
        return Err(bad());
    }
    let (number, epoch) = block_number(lsn).ok_or_else(bad)?;
    put(&mut raw, 0, &number.to_be_bytes());
    put(&mut raw, DATA_LEN, &offset.to_be_bytes());
    put(&mut raw, FIRST_GROUP, &offset.to_be_bytes());
    put(&mut raw, EPOCH, &epoch.to_be_bytes());
    stamp_crc(&mut raw);
    Ok(raw)
}

/// Number and epoch of the block that `lsn` is in.
fn block_number(lsn: Lsn) -> Option<(u32, u32)> {
    let index = lsn.get().checked_div(LOG_BLOCK_SIZE)?;
    let number = u32::try_from(index.checked_rem(NUMBERS)?).ok()?.checked_add(1)?;
    let epoch = u32::try_from(index.checked_div(NUMBERS)?).ok()?.checked_add(1)?;
    Some((number, epoch))
}

/// The LSN of the block with this number and epoch.
fn block_lsn(number: u32, epoch: u32) -> Result<Lsn, FormatError> {
    let bad = || FormatError::Invalid { what: WHAT, why: format!("number {number}, epoch {epoch}") };
    let number = u64::from(number).checked_sub(1).ok_or_else(bad)?;
    let epoch = u64::from(epoch).checked_sub(1).ok_or_else(bad)?;
    epoch
        .checked_mul(NUMBERS)
        .and_then(|base| base.checked_add(number))
        .and_then(|index| index.checked_mul(LOG_BLOCK_SIZE))
        .map(Lsn::new)
        .ok_or_else(bad)
}

/// Compares the checksum; says whether it could.
fn check_sum(raw: &[u8], encrypted: bool, key: Option<&TablespaceKey>) -> Result<bool, FormatError> {
    if !encrypted {
        return compare(raw).map(|()| true);
    }
    let Some(key) = key else { return Ok(false) };
    let mut plain = [0; BLOCK_LEN];
    put(&mut plain, 0, raw);
    decrypt_run(plain.get_mut(PAYLOAD..).unwrap_or_default(), key)?;
    let length = u16_at(&plain, DATA_LEN, WHAT)? & !ENCRYPTED;
    put(&mut plain, DATA_LEN, &length.to_be_bytes());
    compare(&plain).map(|()| true)
}

fn compare(raw: &[u8]) -> Result<(), FormatError> {
    let stored = u32_at(raw, CRC, WHAT)?;
    let computed = crc32c::crc32c(slice(raw, 0, CRC, WHAT)?);
    if stored == computed || stored == NO_CHECKSUM {
        Ok(())
    } else {
        Err(FormatError::Checksum { what: WHAT, stored, computed })
    }
}

/// Encrypts a plain block as the server does.
#[cfg(test)]
pub(crate) fn encrypt_block(raw: &mut [u8], key: &TablespaceKey) -> Result<(), FormatError> {
    encrypt_run(raw.get_mut(PAYLOAD..BLOCK_LEN).unwrap_or_default(), key)?;
    let length = u16_at(raw, DATA_LEN, WHAT)? | ENCRYPTED;
    put(raw, DATA_LEN, &length.to_be_bytes());
    Ok(())
}

const _: () = assert!(LOG_BLOCK_HEADER == 12);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LSN: Lsn = Lsn::new(512 * 1000);

    fn full_block() -> Vec<u8> {
        let mut raw = empty_block(Lsn::new(LSN.get() + 12)).unwrap().to_vec();
        raw[12..508].fill(0xAB);
        put(&mut raw, DATA_LEN, &512_u16.to_be_bytes());
        put(&mut raw, FIRST_GROUP, &300_u16.to_be_bytes());
        stamp_crc(&mut raw);
        raw
    }

    #[test]
    fn a_block_is_valid_in_its_place_only() {
        let raw = full_block();
        let BlockRead::Valid(block) = decode_block(&raw, LSN, None).unwrap() else { panic!("not valid") };
        assert!(block.is_full() && block.checked && !block.encrypted);
        assert_eq!(block.end(), Lsn::new(LSN.get() + 512));
        let (earlier, later) = (Lsn::new(LSN.get() - 512), Lsn::new(LSN.get() + 512));
        assert_eq!(decode_block(&raw, earlier, None), Ok(BlockRead::Overwritten { found: LSN }));
        assert_eq!(decode_block(&raw, later, None), Ok(BlockRead::NotWritten));
        assert_eq!(decode_block(&[0; 512], LSN, None), Ok(BlockRead::NotWritten));
    }

    #[test]
    fn the_epoch_counts_on_where_numbers_wrap() {
        let far = Lsn::new((NUMBERS * 3 + 5) * 512 + 40);
        let raw = empty_block(far).unwrap();
        let BlockRead::Valid(block) = decode_block(&raw, far.block_start(), None).unwrap() else { panic!("not valid") };
        assert_eq!(block.end(), far);
    }

    #[test]
    fn encoded_blocks_are_decoded_the_same() {
        for (bytes, length, first) in [(0, 12, None), (100, 112, Some(0)), (495, 507, Some(7)), (496, 512, None)] {
            let raw = encode_block(LSN, &vec![0xAB; bytes], first).unwrap();
            let BlockRead::Valid(block) = decode_block(&raw, LSN, None).unwrap() else { panic!("not valid") };
            let first = first.map_or(0, |at| u16::try_from(at + 12).unwrap());
            assert_eq!((block.data_len, block.first_rec_group), (length, first));
            assert!(raw[12..12 + bytes].iter().all(|&byte| byte == 0xAB));
        }
        assert!(encode_block(LSN, &[0; 497], None).is_err());
        assert!(encode_block(Lsn::new(LSN.get() + 12), &[], None).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let raw = full_block();
        for at in 0..512 {
            let mut broken = raw.clone();
            broken[at] ^= 0x10;
            let outcome = decode_block(&broken, LSN, None);
            assert!(!matches!(outcome, Ok(BlockRead::Valid(_))), "byte {at}: {outcome:?}");
        }
    }

    #[test]
    fn a_cut_log_ends_exactly_there() {
        for (offset, first) in [(12_u64, 12_u16), (200, 200), (300, 300), (301, 300), (507, 300)] {
            let mut raw = full_block();
            let end = Lsn::new(LSN.get() + offset);
            cut_block(&mut raw, end, None).unwrap();
            let BlockRead::Valid(block) = decode_block(&raw, LSN, None).unwrap() else { panic!("not valid") };
            assert_eq!((block.end(), block.first_rec_group), (end, first));
            assert!(raw[usize::try_from(offset).unwrap()..508].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_log_cannot_be_cut_where_it_has_not_come_to() {
        let mut raw = full_block();
        cut_block(&mut raw, Lsn::new(LSN.get() + 100), None).unwrap();
        assert!(cut_block(&mut raw, Lsn::new(LSN.get() + 200), None).is_err(), "beyond the block's end");
        assert!(cut_block(&mut raw, Lsn::new(LSN.get() + 510), None).is_err(), "in the trailer");
        assert!(cut_block(&mut raw, Lsn::new(LSN.get() + 612), None).is_err(), "in the next block");
    }

    #[test]
    fn encrypted_blocks_are_cut_with_their_key() {
        let key = TablespaceKey::new([3; 32], [4; 16]);
        let mut raw = full_block();
        encrypt_block(&mut raw, &key).unwrap();
        let BlockRead::Valid(sealed) = decode_block(&raw, LSN, None).unwrap() else { panic!("not valid") };
        assert!(sealed.encrypted && !sealed.checked);
        let BlockRead::Valid(opened) = decode_block(&raw, LSN, Some(&key)).unwrap() else { panic!("not valid") };
        assert!(opened.encrypted && opened.checked);
        assert!(decode_block(&raw, LSN, Some(&TablespaceKey::new([9; 32], [4; 16]))).is_err());

        let end = Lsn::new(LSN.get() + 222);
        assert!(cut_block(&mut raw.clone(), end, None).is_err());
        cut_block(&mut raw, end, Some(&key)).unwrap();
        let BlockRead::Valid(cut) = decode_block(&raw, LSN, Some(&key)).unwrap() else { panic!("not valid") };
        assert!(cut.encrypted && cut.checked && cut.end() == end);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_panic(raw in proptest::collection::vec(any::<u8>(), 0..600), lsn: u64) {
            let key = TablespaceKey::new([3; 32], [4; 16]);
            let _ = decode_block(&raw, Lsn::new(lsn), Some(&key));
            let _ = cut_block(&mut raw.clone(), Lsn::new(lsn), Some(&key));
            let _ = empty_block(Lsn::new(lsn));
        }
    }
}
