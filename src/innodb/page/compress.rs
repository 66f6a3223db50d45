//! Page compression: the transparent kind, of single pages in sparse files (tablespace-files reference, section 2).

use std::io::Read;

use crate::innodb::FormatError;
use crate::innodb::cursor::{slice, u8_at, u16_at};
use crate::innodb::page::crypt::write;
use crate::innodb::page::fil;

const WHAT: &str = "page-compressed page";
const ZLIB: u8 = 1;
const LZ4: u8 = 2;

/// Bytes of `page` that carry something; what follows is a hole in the file.
pub fn used_bytes(page: &[u8]) -> Result<usize, FormatError> {
    let used = usize::from(u16_at(page, fil::COMPRESSED_SIZE, WHAT)?).saturating_add(fil::BODY);
    if used > page.len() {
        return Err(FormatError::Invalid { what: WHAT, why: format!("it names {used} bytes of {}", page.len()) });
    }
    Ok(used)
}

/// Decompresses `page`, which must be decrypted, into `out`: the page as a server has it that has read it.
///
/// As there, the header of the compression stays behind (bytes 26 to 33). Nobody reads it on a page of another type, no
/// checksum covers it, and pages of R-trees, which have a number of their own there, are never compressed (seen: MySQL 9.7
/// writes it back with pages that do not get smaller any more).
pub fn decompress_page(page: &[u8], out: &mut Vec<u8>) -> Result<(), FormatError> {
    let original = usize::from(u16_at(page, fil::ORIGINAL_SIZE, WHAT)?);
    if original.saturating_add(fil::BODY) > page.len() {
        let why = format!("it names an original size of {original} bytes");
        return Err(FormatError::Invalid { what: WHAT, why });
    }
    let used = used_bytes(page)?;
    let body = slice(page, fil::BODY, used.saturating_sub(fil::BODY), WHAT)?;
    out.clear();
    out.extend_from_slice(slice(page, 0, fil::BODY, WHAT)?);
    out.resize(page.len(), 0);
    let target = out.get_mut(fil::BODY..fil::BODY.saturating_add(original)).unwrap_or_default();
    match u8_at(page, fil::COMPRESSION_ALGORITHM, WHAT)? {
        ZLIB => flate2::read::ZlibDecoder::new(body).read_exact(target).map_err(|error| broken(&error))?,
        LZ4 => {
            let written = lz4_flex::block::decompress_into(body, target).map_err(|error| broken(&error))?;
            if written != original {
                return Err(broken(&format!("{written} bytes instead of {original}")));
            }
        }
        other => return Err(FormatError::Unsupported { what: "page compression algorithm", found: other.to_string() }),
    }
    let kind = u16_at(page, fil::ORIGINAL_TYPE, WHAT)?;
    write(out, fil::TYPE, &kind.to_be_bytes());
    Ok(())
}

fn broken(error: &dyn std::fmt::Display) -> FormatError {
    FormatError::Invalid { what: WHAT, why: format!("it does not decompress: {error}") }
}
