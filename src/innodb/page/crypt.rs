//! Encryption of pages: AES-256-CBC without padding (MySQL 8.0.30 to 9.7; tablespace-files reference, section 9).
//!
//! ```text
//!   body (38..end)   |<------ main: a multiple of 16 ------>|< rest >|
//!   written:         CBC over main; if there is a rest, CBC again over the last 32 bytes of the body
//!   read:            the last 32 bytes first, then main
//! ```

use aes::Aes256;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};

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
    // A page of an R-tree has a number of its own there, a compressed one the header of its compression.
    if kind == PageType::Encrypted {
        write(page, fil::ORIGINAL_TYPE, &[0, 0]);
    }
    Ok(())
}

/// Encrypts `page`, which must be whole and stamped, in place and notes its type. Page 0 of a tablespace, pages of zeros
/// and compressed ones (page compression) are not for this.
pub fn encrypt_page(page: &mut [u8], key: &TablespaceKey) -> Result<(), FormatError> {
    let kind = PageType::try_from(u16_at(page, fil::TYPE, WHAT)?)?;
    if kind.is_encrypted() || kind.is_page_compressed() {
        return Err(FormatError::Invalid { what: WHAT, why: format!("it is of type {} already", kind.id()) });
    }
    encrypt_run(page.get_mut(fil::BODY..).unwrap_or_default(), key)?;
    if kind == PageType::Rtree {
        write(page, fil::TYPE, &PageType::EncryptedRtree.id().to_be_bytes());
        return Ok(());
    }
    write(page, fil::TYPE, &PageType::Encrypted.id().to_be_bytes());
    write(page, fil::ORIGINAL_TYPE, &kind.id().to_be_bytes());
    Ok(())
}

/// Encrypts a run of bytes as the server does a page's body or a log block: whole blocks of the cipher first, and where
/// they leave a rest, the last 32 bytes once more.
pub fn encrypt_run(body: &mut [u8], key: &TablespaceKey) -> Result<(), FormatError> {
    let rest = body.len() % AES_BLOCK;
    let main = body.len().saturating_sub(rest);
    cbc_encrypt(body.get_mut(..main).unwrap_or_default(), key)?;
    if rest != 0 {
        let tail = body.len().saturating_sub(TAIL);
        cbc_encrypt(body.get_mut(tail..).unwrap_or_default(), key)?;
    }
    Ok(())
}

fn cbc_encrypt(bytes: &mut [u8], key: &TablespaceKey) -> Result<(), FormatError> {
    let cipher = cbc::Encryptor::<Aes256>::new(key.key().into(), key.iv().into());
    let len = bytes.len();
    match cipher.encrypt_padded_mut::<NoPadding>(bytes, len) {
        Ok(_) => Ok(()),
        Err(_) => Err(FormatError::Invalid { what: WHAT, why: "its length is not a multiple of 16".into() }),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_as_they_were() {
        let key = TablespaceKey::new([3; 32], [4; 16]);
        for (kind, encrypted) in [(PageType::Index, PageType::Encrypted), (PageType::Rtree, PageType::EncryptedRtree)] {
            for size in [1024, 4096, 16384, 65536] {
                let mut page: Vec<u8> = (0..size).map(|i: usize| u8::try_from(i % 251).unwrap()).collect();
                page[24..26].copy_from_slice(&kind.id().to_be_bytes());
                if kind == PageType::Index {
                    page[28..30].fill(0);
                }
                let mut sealed = page.clone();
                encrypt_page(&mut sealed, &key).unwrap();
                assert_eq!(sealed[24..26], encrypted.id().to_be_bytes());
                assert!(sealed[38..].chunks(16).zip(page[38..].chunks(16)).all(|(one, other)| one != other));
                assert!(encrypt_page(&mut sealed, &key).is_err(), "it is encrypted already");
                decrypt_page(&mut sealed, encrypted, &key).unwrap();
                assert_eq!(sealed, page, "{kind:?}, {size}");
            }
        }
    }
}
