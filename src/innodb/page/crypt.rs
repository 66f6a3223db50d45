//! Decryption of pages: AES-256-CBC without padding (MySQL 8.0.30 to 9.7; tablespace-files reference, section 9).
//!
//! ```text
//!   body (38..end)   |<------ main: a multiple of 16 ------>|< rest >|
//!   written:         CBC over main; if there is a rest, CBC again over the last 32 bytes of the body
//!   read:            the last 32 bytes first, then main
//! ```

use aes::Aes256;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut, KeyIvInit};

use crate::innodb::FormatError;
use crate::innodb::cursor::u16_at;
use crate::innodb::page::fil;
use crate::innodb::page::types::PageType;
use crate::innodb::space::TablespaceKey;

const AES_BLOCK: usize = 16;
const TAIL: usize = 32;
/// A page that is compressed and encrypted keeps at least so many encrypted bytes, header included.
const MIN_ENCRYPTED: usize = 64;
const WHAT: &str = "encrypted page";

/// Decrypts `page` in place and restores its type. The page must be of an encrypted type.
pub fn decrypt_page(page: &mut [u8], kind: PageType, key: &TablespaceKey) -> Result<(), FormatError> {
    let end = encrypted_end(page, kind)?;
    let body = page.get_mut(fil::BODY..end).ok_or(FormatError::Truncated { what: WHAT, needed: end, got: 0 })?;
    decrypt_run(body, key)?;
    let restored = match kind {
        PageType::CompressedAndEncrypted => PageType::Compressed.id(),
        PageType::EncryptedRtree => PageType::Rtree.id(),
        _ => u16_at(page, fil::ORIGINAL_TYPE, WHAT)?,
    };
    write(page, fil::TYPE, &restored.to_be_bytes());
    if kind != PageType::CompressedAndEncrypted {
        write(page, fil::ORIGINAL_TYPE, &[0, 0]);
    }
    Ok(())
}

/// Decrypts a run of bytes that was encrypted as a page's body or a log block is.
pub fn decrypt_run(body: &mut [u8], key: &TablespaceKey) -> Result<(), FormatError> {
    let rest = body.len() % AES_BLOCK;
    if rest != 0 {
        let tail = body.len().saturating_sub(TAIL);
        cbc_decrypt(body.get_mut(tail..).unwrap_or_default(), key)?;
    }
    let main = body.len().saturating_sub(rest);
    cbc_decrypt(body.get_mut(..main).unwrap_or_default(), key)
}

fn cbc_decrypt(bytes: &mut [u8], key: &TablespaceKey) -> Result<(), FormatError> {
    let cipher = cbc::Decryptor::<Aes256>::new(key.key().into(), key.iv().into());
    match cipher.decrypt_padded_mut::<NoPadding>(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(FormatError::Invalid { what: WHAT, why: "its length is not a multiple of 16".into() }),
    }
}

fn encrypted_end(page: &[u8], kind: PageType) -> Result<usize, FormatError> {
    if kind != PageType::CompressedAndEncrypted {
        return Ok(page.len());
    }
    let compressed = usize::from(u16_at(page, fil::COMPRESSED_SIZE, WHAT)?);
    let end = compressed.saturating_add(fil::BODY).max(MIN_ENCRYPTED);
    if end > page.len() {
        let why = format!("it names a compressed size of {compressed} bytes");
        return Err(FormatError::Invalid { what: WHAT, why });
    }
    Ok(end)
}

/// Overwrites a field; a page too short for it was refused before.
pub(super) fn write(page: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = page.get_mut(at..at.saturating_add(bytes.len())) {
        field.copy_from_slice(bytes);
    }
}
