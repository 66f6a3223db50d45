//! The wrapped key of an encrypted tablespace or redo log (MySQL 8.0.30 to 9.7; tablespace-files reference, section 9).
//!
//! ```text
//!   0 magic lCC (lCB, lCA older) │ 3 master key id │ 7 server uuid, 36 │ 43 AES-256-ECB(key 32 ‖ iv 32) │ 107 CRC-32C
//!   The checksum is that of the unwrapped 64 bytes.
//! ```

use std::fmt;

use aes::Aes256;
use aes::cipher::{BlockDecrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::innodb::FormatError;
use crate::innodb::cursor::{array, slice, u32_at};
use crate::innodb::keyring::Keyring;

/// Bytes of the encryption info.
pub const ENCRYPTION_INFO_SIZE: usize = 111;
const MAGIC_SIZE: usize = 3;
const UUID_OFFSET: usize = 7;
const UUID_SIZE: usize = 36;
const WRAPPED_OFFSET: usize = 43;
const WRAPPED_SIZE: usize = 64;
const CRC_OFFSET: usize = 107;
const AES_BLOCK: usize = 16;

/// A wrapped key as it stands in page 0 or in a redo file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionInfo {
    /// Id of the master key that wraps it.
    pub master_key_id: u32,
    /// Uuid of the server that made the master key.
    pub server_uuid: String,
    wrapped: [u8; WRAPPED_SIZE],
    crc: u32,
}

impl EncryptionInfo {
    /// Decodes `info`; all zero means that there is none.
    pub fn decode(info: &[u8]) -> Result<Option<Self>, FormatError> {
        let what = "encryption info";
        let magic = slice(info, 0, MAGIC_SIZE, what)?;
        match magic {
            b"lCC" | b"lCB" => {}
            [0, 0, 0] => return Ok(None),
            b"lCA" => return Err(FormatError::Unsupported { what, found: "of version 1 (MySQL 5.7)".into() }),
            other => return Err(FormatError::Unsupported { what, found: format!("with magic {other:02x?}") }),
        }
        let uuid = slice(info, UUID_OFFSET, UUID_SIZE, what)?;
        Ok(Some(Self {
            master_key_id: u32_at(info, MAGIC_SIZE, what)?,
            server_uuid: String::from_utf8_lossy(uuid).into_owned(),
            wrapped: array(info, WRAPPED_OFFSET, what)?,
            crc: u32_at(info, CRC_OFFSET, what)?,
        }))
    }

    /// The master key's id in the keyring.
    pub fn master_key_name(&self) -> String {
        format!("INNODBKey-{}-{}", self.server_uuid, self.master_key_id)
    }

    /// Opens the key with the master key that `keyring` holds.
    pub fn unwrap_key(&self, keyring: &Keyring) -> Result<TablespaceKey, FormatError> {
        let name = self.master_key_name();
        let master = keyring.key(&name).ok_or(FormatError::KeyMissing { key_id: name })?;
        let mut plain = self.wrapped;
        let cipher = Aes256::new(master.into());
        for block in plain.chunks_exact_mut(AES_BLOCK) {
            cipher.decrypt_block(block.into());
        }
        let computed = crc32c::crc32c(&plain);
        if computed != self.crc {
            plain.zeroize();
            return Err(FormatError::Checksum { what: "unwrapped tablespace key", stored: self.crc, computed });
        }
        let key = TablespaceKey { key: array(&plain, 0, "tablespace key")?, iv: array(&plain, 32, "tablespace iv")? };
        plain.zeroize();
        Ok(key)
    }
}

/// The key and initialisation vector of a tablespace or a redo log. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TablespaceKey {
    key: [u8; 32],
    iv: [u8; 16],
}

impl TablespaceKey {
    /// Makes a key of its parts.
    pub const fn new(key: [u8; 32], iv: [u8; 16]) -> Self {
        Self { key, iv }
    }

    /// The AES-256 key.
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The initialisation vector: the first 16 of the 32 stored bytes.
    pub const fn iv(&self) -> &[u8; 16] {
        &self.iv
    }
}

impl fmt::Debug for TablespaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TablespaceKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::BlockEncrypt;

    use super::*;

    fn info(master: &[u8; 32], plain: &[u8; 64]) -> Vec<u8> {
        let mut wrapped = *plain;
        let cipher = Aes256::new(master.into());
        for block in wrapped.chunks_exact_mut(AES_BLOCK) {
            cipher.encrypt_block(block.into());
        }
        let mut info = b"lCC\0\0\0\x01".to_vec();
        info.extend_from_slice(b"00000000-1111-2222-3333-444444444444");
        info.extend_from_slice(&wrapped);
        info.extend_from_slice(&crc32c::crc32c(plain).to_be_bytes());
        info
    }

    fn keyring(key: &[u8; 32]) -> Keyring {
        let data = hex::encode(key);
        let name = "INNODBKey-00000000-1111-2222-3333-444444444444-1";
        let json = format!(
            r#"{{"version":"1.0","elements":[{{"user":"","data_id":"{name}","data_type":"AES","data":"{data}","extension":[]}}]}}"#
        );
        Keyring::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_wrapped_key_opens_with_its_master_key_only() {
        let master = [7_u8; 32];
        let mut plain = [1_u8; 64];
        plain[32..].fill(2);
        let decoded = EncryptionInfo::decode(&info(&master, &plain)).unwrap().unwrap();
        let key = decoded.unwrap_key(&keyring(&master)).unwrap();
        assert_eq!((key.key(), key.iv()), (&[1; 32], &[2; 16]));
        assert!(matches!(decoded.unwrap_key(&keyring(&[8; 32])), Err(FormatError::Checksum { .. })));
        let missing = decoded.unwrap_key(&Keyring::default()).unwrap_err();
        assert!(missing.to_string().contains("INNODBKey-00000000-1111-2222-3333-444444444444-1"));
        assert_eq!(format!("{key:?}"), "TablespaceKey(hidden)");
    }

    #[test]
    fn zeros_mean_none_and_other_magic_is_refused() {
        assert_eq!(EncryptionInfo::decode(&[0; ENCRYPTION_INFO_SIZE]), Ok(None));
        assert!(EncryptionInfo::decode(b"lCAxxxxxxx").is_err());
        assert!(EncryptionInfo::decode(b"xyz").is_err());
        assert!(EncryptionInfo::decode(b"l").is_err());
    }
}
