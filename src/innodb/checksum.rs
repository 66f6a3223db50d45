//! Page checksums: every algorithm that a data directory may mix (MySQL 8.0.30 to 9.7; tablespace-files reference,
//! section 4).
//!
//! ```text
//!   page of size n      0 checksum │ 4 ……… 26 │ 38 ……… n-8 │ n-8 checksum │ n-4 low half of the LSN
//!     crc32             crc(4..26) ^ crc(38..n-8), at both places
//!     innodb            fold(4..26) + fold(38..n-8) in front, fold(0..26) behind
//!     none              0xDEADBEEF at both places
//!   compressed page z   0 checksum │ 4 …… 16 │ (LSN) │ 24 type 26 │ 34 ……… z      no trailer
//!     crc32 / innodb    crc or adler32 over 4..16, 24..26 and 34..z
//! ```
//! `innodb_checksum_algorithm` may be changed at run time and pages are rewritten only when they are flushed, so all
//! are accepted whatever it says.

use super::FormatError;
use super::cursor::{slice, u32_at};

/// What `innodb_checksum_algorithm=none` writes.
pub const NO_CHECKSUM: u32 = 0xDEAD_BEEF;
/// Bytes behind the part of a page that its checksum covers.
pub const TRAILER_SIZE: usize = 8;
const HEADER_PART: (usize, usize) = (4, 26);
const BODY_START: usize = 38;
const WHAT: &str = "page checksum";

/// The checksum of a page, as far as it matters: it fits, or it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// One of the algorithms fits.
    Good,
    /// None does. `computed` is that of crc32, the default.
    Bad {
        /// As stored at the front.
        stored: u32,
        /// As crc32 would have it.
        computed: u32,
    },
}

/// Checks an uncompressed, decrypted page.
pub fn check_page(page: &[u8]) -> Result<Outcome, FormatError> {
    let trailer = page.len().saturating_sub(TRAILER_SIZE);
    let stored = u32_at(page, 0, WHAT)?;
    let behind = u32_at(page, trailer, WHAT)?;
    let computed = page_crc32(page)?;
    if stored == behind && (stored == computed || stored == NO_CHECKSUM) {
        return Ok(Outcome::Good);
    }
    if fits_innodb(page, stored, behind)? {
        return Ok(Outcome::Good);
    }
    Ok(Outcome::Bad { stored, computed })
}

/// Checks a page of `ROW_FORMAT=COMPRESSED`, decrypted.
pub fn check_zip_page(page: &[u8]) -> Result<Outcome, FormatError> {
    let stored = u32_at(page, 0, WHAT)?;
    let [front, kind, body] = zip_parts(page)?;
    let computed = crc32c::crc32c(front) ^ crc32c::crc32c(kind) ^ crc32c::crc32c(body);
    if stored == computed || stored == NO_CHECKSUM {
        return Ok(Outcome::Good);
    }
    // The server starts this sum from 0, where the standard has 1.
    let adler = [front, kind, body].into_iter().fold((0, 0), adler32);
    if stored == (adler.1 << 16 | adler.0) {
        return Ok(Outcome::Good);
    }
    Ok(Outcome::Bad { stored, computed })
}

/// The crc32 checksum of an uncompressed page.
pub fn page_crc32(page: &[u8]) -> Result<u32, FormatError> {
    let (header, body) = page_parts(page)?;
    Ok(crc32c::crc32c(header) ^ crc32c::crc32c(body))
}

fn fits_innodb(page: &[u8], stored: u32, behind: u32) -> Result<bool, FormatError> {
    let (header, body) = page_parts(page)?;
    let front = fold(header).wrapping_add(fold(body));
    let back = fold(slice(page, 0, HEADER_PART.1, WHAT)?);
    // Pages of very old servers repeat the high half of the LSN behind.
    let lsn_high = u32_at(page, 16, WHAT)?;
    Ok(stored == front && (behind == back || behind == lsn_high))
}

fn page_parts(page: &[u8]) -> Result<(&[u8], &[u8]), FormatError> {
    let end = page.len().saturating_sub(TRAILER_SIZE);
    let header = slice(page, HEADER_PART.0, HEADER_PART.1.saturating_sub(HEADER_PART.0), WHAT)?;
    let body = slice(
        page,
        BODY_START,
        end.checked_sub(BODY_START).ok_or(FormatError::Truncated { what: WHAT, needed: BODY_START, got: end })?,
        WHAT,
    )?;
    Ok((header, body))
}

fn zip_parts(page: &[u8]) -> Result<[&[u8]; 3], FormatError> {
    Ok([slice(page, 4, 12, WHAT)?, slice(page, 24, 2, WHAT)?, slice(page, 34, page.len().saturating_sub(34), WHAT)?])
}

/// The legacy checksum of a run of bytes.
fn fold(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0_u32, |sum, &byte| {
        let mixed = sum ^ u32::from(byte) ^ 0x6294_6a4f;
        (mixed.wrapping_shl(8).wrapping_add(sum) ^ 0x573e_d587).wrapping_add(u32::from(byte))
    })
}

fn adler32(start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    bytes.iter().fold(start, |(low, high), &byte| {
        let low = low.wrapping_add(u32::from(byte)) % 65521;
        (low, high.wrapping_add(low) % 65521)
    })
}

/// Stamps `page` with its crc32 checksum, at both places.
pub fn stamp_page(page: &mut [u8]) -> Result<(), FormatError> {
    let sum = page_crc32(page)?.to_be_bytes();
    let trailer = page.len().saturating_sub(TRAILER_SIZE);
    for at in [0, trailer] {
        if let Some(field) = page.get_mut(at..at.saturating_add(4)) {
            field.copy_from_slice(&sum);
        }
    }
    Ok(())
}

/// Stamps a page of `ROW_FORMAT=COMPRESSED` with its crc32 checksum.
pub fn stamp_zip_page(page: &mut [u8]) -> Result<(), FormatError> {
    let [front, kind, body] = zip_parts(page)?;
    let sum = crc32c::crc32c(front) ^ crc32c::crc32c(kind) ^ crc32c::crc32c(body);
    if let Some(field) = page.get_mut(..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        (0..4096_u32).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn every_algorithm_is_accepted_and_a_flipped_bit_is_not() {
        let mut crc = page();
        stamp_page(&mut crc).unwrap();
        let mut none = page();
        let mut legacy = page();
        let front = fold(&legacy[4..26]).wrapping_add(fold(&legacy[38..4088]));
        legacy[..4].copy_from_slice(&front.to_be_bytes());
        let back = fold(&legacy[..26]);
        legacy[4088..4092].copy_from_slice(&back.to_be_bytes());
        for at in [0, 4088] {
            none[at..at + 4].copy_from_slice(&NO_CHECKSUM.to_be_bytes());
        }
        for good in [&crc, &none, &legacy] {
            assert_eq!(check_page(good).unwrap(), Outcome::Good);
        }
        for bad in [&mut crc, &mut legacy] {
            bad[2000] ^= 1;
            assert!(matches!(check_page(bad).unwrap(), Outcome::Bad { .. }));
        }
    }

    #[test]
    fn compressed_pages_have_sums_of_their_own() {
        let mut zip = page();
        let sum = crc32c::crc32c(&zip[4..16]) ^ crc32c::crc32c(&zip[24..26]) ^ crc32c::crc32c(&zip[34..]);
        zip[..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(check_zip_page(&zip).unwrap(), Outcome::Good);
        zip[18] ^= 1;
        assert_eq!(check_zip_page(&zip).unwrap(), Outcome::Good, "the LSN is not covered");
        zip[34] ^= 1;
        assert!(matches!(check_zip_page(&zip).unwrap(), Outcome::Bad { .. }));
    }

    #[test]
    fn short_input_is_an_error() {
        for len in [0, 3, 25, 33, 43] {
            assert!(check_page(&vec![1; len]).is_err(), "{len}");
            assert!(len >= 34 || check_zip_page(&vec![1; len]).is_err(), "{len}");
        }
    }
}
