//! Keys: the recipients' own, the backup's data key, and what is derived from it.
//!
//! ```text
//!   RecipientKey ─ HKDF ► wraps ──► WrappedKey (stored beside the manifest, one a recipient)
//!                                       │ unwrap
//!   ArchiveKeys (data key) ─ HKDF ► ObjectSeal of each object · HMAC key of the manifest
//! ```
//! Key material is wiped when released and has no printed form. (docs/format/encryption.md.)

use std::fmt;

use aws_lc_rs::aead::{self, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest as sha, hkdf, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::cipher::ObjectSeal;
use super::container::Place;
use super::id::BackupId;
use super::wire::Output;
use super::{ArchiveError, FORMAT};

const KEY_BYTES: usize = 32;
const WRAP_INFO: &[u8] = b"stillframe/1 wrap";
const OBJECT_INFO: &[u8] = b"stillframe/1 object";
const MANIFEST_INFO: &[u8] = b"stillframe/1 manifest";
const KEY_ID_INFO: &[u8] = b"stillframe/1 key id";
const WRAP_ALGORITHM: &str = "HKDF-SHA256+AES-256-GCM";
/// No key file and no wrapped key is near as long.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// A random value that makes a derived key different from all others.
pub type Salt = [u8; 32];

/// A new [`Salt`].
pub(super) fn random_salt() -> Result<Salt, ArchiveError> {
    let mut salt = [0; 32];
    rand::fill(&mut salt).map_err(|_| ArchiveError::Machine { act: "draw random bytes" })?;
    Ok(salt)
}

/// A key that may open backups, from a key file.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecipientKey {
    key: [u8; KEY_BYTES],
    #[zeroize(skip)]
    id: String,
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl RecipientKey {
    /// Reads the contents of a key file: 32 bytes as they are, or as 64 hex digits, or in base64.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let bad = |why| ArchiveError::BadKey { why };
        if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(bytes) {
            let raw = Zeroizing::new(raw);
            if raw.iter().all(u8::is_ascii_hexdigit) {
                return Err(bad("32 hex digits are only 128 bits; 64 are needed"));
            }
            return Self::new(&raw);
        }
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(bad("it is far too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is neither 32 bytes nor text"))?.trim();
        let mut raw = Zeroizing::new([0; KEY_BYTES]);
        if text.len() == 2 * KEY_BYTES {
            hex::decode_to_slice(text, raw.as_mut_slice()).map_err(|_| bad("it has 64 digits that are not hex"))?;
            return Self::new(&raw);
        }
        // Room for what the decoder may write before it knows the true length.
        let mut decoded = Zeroizing::new([0; KEY_BYTES + 4]);
        match STANDARD.decode_slice(text, decoded.as_mut_slice()) {
            Ok(KEY_BYTES) => {
                for (to, from) in raw.iter_mut().zip(decoded.iter()) {
                    *to = *from;
                }
                Self::new(&raw)
            }
            _ => Err(bad("it is none of 32 bytes, 64 hex digits, 32 bytes in base64")),
        }
    }

    fn new(key: &[u8; KEY_BYTES]) -> Result<Self, ArchiveError> {
        if key.iter().all(|byte| Some(byte) == key.first()) {
            return Err(ArchiveError::BadKey { why: "all its bytes are the same" });
        }
        let mut hash = sha::Context::new(&sha::SHA256);
        hash.update(KEY_ID_INFO);
        hash.update(key);
        let id = hex::encode(hash.finish()).chars().take(16).collect();
        Ok(Self { key: *key, id })
    }

    /// The key's id: 16 hex digits that say nothing of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn wrapping_key(&self, salt: &Salt) -> Result<LessSafeKey, ArchiveError> {
        derive_aead(salt, &self.key, WRAP_INFO)
    }
}

/// A backup's data key, locked for one recipient: a small JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrappedKey {
    format: u32,
    backup: BackupId,
    key_id: String,
    algorithm: String,
    salt: String,
    wrapped: String,
}

impl WrappedKey {
    /// Of the recipient's key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// As it is stored.
    pub fn encode(&self) -> Result<Vec<u8>, ArchiveError> {
        serde_json::to_vec(self).map_err(|_| ArchiveError::Machine { act: "write a wrapped key as JSON" })
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let damaged = |what: String| ArchiveError::damaged("wrapped key", what);
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(damaged("it is far too long".to_owned()));
        }
        let key: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if key.key_id.len() != 16 || !key.key_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged("its key id is not 16 hex digits".to_owned()));
        }
        if key.format != u32::from(FORMAT) || key.algorithm != WRAP_ALGORITHM {
            let what = format!("format {}, algorithm {}", key.format, key.algorithm);
            return Err(ArchiveError::Unsupported { object: format!("key {}", key.key_id), what });
        }
        Ok(key)
    }

    fn bound(backup: &BackupId, key_id: &str) -> Vec<u8> {
        let mut bound = Vec::new();
        for text in [WRAP_INFO, backup.as_str().as_bytes(), key_id.as_bytes()] {
            bound.put_sized(text);
        }
        bound
    }

    /// The data key, or `None` if this document was not made with that key, or was changed.
    fn open(&self, backup: &BackupId, recipient: &RecipientKey) -> Result<Option<ArchiveKeys>, ArchiveError> {
        let mut salt = [0; 32];
        let mut wrapped = Zeroizing::new([0; KEY_BYTES + 16]);
        if hex::decode_to_slice(&self.salt, &mut salt).is_err()
            || hex::decode_to_slice(&self.wrapped, wrapped.as_mut_slice()).is_err()
        {
            return Ok(None);
        }
        let key = recipient.wrapping_key(&salt)?;
        let bound = Aad::from(Self::bound(backup, &self.key_id));
        let Ok(clear) = key.open_in_place(Nonce::assume_unique_for_key([0; 12]), bound, wrapped.as_mut_slice()) else {
            return Ok(None);
        };
        Ok(<[u8; KEY_BYTES]>::try_from(&*clear).ok().map(|key| ArchiveKeys { key }))
    }
}

/// The data key of one backup.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ArchiveKeys {
    key: [u8; KEY_BYTES],
}

impl fmt::Debug for ArchiveKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchiveKeys")
    }
}

impl ArchiveKeys {
    /// A new random one.
    pub(super) fn generate() -> Result<Self, ArchiveError> {
        let mut keys = Self { key: [0; KEY_BYTES] };
        rand::fill(&mut keys.key).map_err(|_| ArchiveError::Machine { act: "draw random bytes" })?;
        Ok(keys)
    }

    /// Locks the data key for one more recipient.
    pub fn wrap(&self, backup: &BackupId, recipient: &RecipientKey) -> Result<WrappedKey, ArchiveError> {
        let salt = random_salt()?;
        let key = recipient.wrapping_key(&salt)?;
        let mut wrapped = self.key.to_vec();
        let bound = Aad::from(WrappedKey::bound(backup, recipient.id()));
        // The key that is used here exists for this one message, so any nonce is unique.
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), bound, &mut wrapped)
            .map_err(|_| ArchiveError::Machine { act: "wrap a key" })?;
        Ok(WrappedKey {
            format: FORMAT.into(),
            backup: backup.clone(),
            key_id: recipient.id().to_owned(),
            algorithm: WRAP_ALGORITHM.to_owned(),
            salt: hex::encode(salt),
            wrapped: hex::encode(wrapped),
        })
    }

    /// Opens the data key of `backup` with whichever of the keys `given` fits.
    pub fn unwrap(backup: &BackupId, wrapped: &[WrappedKey], given: &[RecipientKey]) -> Result<Self, ArchiveError> {
        let mut damaged = None;
        for document in wrapped {
            for recipient in given.iter().filter(|key| key.id() == document.key_id) {
                if document.backup != *backup {
                    damaged = Some((document, format!("it belongs to backup {}", document.backup)));
                } else if let Some(keys) = document.open(backup, recipient)? {
                    return Ok(keys);
                } else {
                    damaged = Some((document, "it was changed: its own key does not open it".to_owned()));
                }
            }
        }
        match damaged {
            Some((document, what)) => Err(ArchiveError::damaged(&format!("keys/{}.json", document.key_id), what)),
            None => Err(ArchiveError::WrongKey {
                wanted: wrapped.iter().map(|key| key.key_id.clone()).collect(),
                given: given.iter().map(|key| key.id().to_owned()).collect(),
            }),
        }
    }

    /// The seal of one object.
    pub(super) fn object_seal(&self, salt: &Salt, place: &Place<'_>) -> Result<ObjectSeal, ArchiveError> {
        Ok(ObjectSeal::new(derive_aead(salt, &self.key, OBJECT_INFO)?, place))
    }

    /// The key of the manifest's HMAC.
    pub(super) fn manifest_key(&self, salt: &Salt) -> Result<hmac::Key, ArchiveError> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.key);
        let okm = prk
            .expand(&[MANIFEST_INFO], hmac::HMAC_SHA256)
            .map_err(|_| ArchiveError::Machine { act: "derive a key" })?;
        Ok(hmac::Key::from(okm))
    }
}

fn derive_aead(salt: &Salt, key: &[u8; KEY_BYTES], info: &[u8]) -> Result<LessSafeKey, ArchiveError> {
    let algorithm: &'static aead::Algorithm = &AES_256_GCM;
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let info = [info];
    let okm = prk.expand(&info, algorithm).map_err(|_| ArchiveError::Machine { act: "derive a key" })?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> RecipientKey {
        RecipientKey::parse(&(0..32).map(|i| i * 7 + seed).collect::<Vec<u8>>()).unwrap()
    }

    fn backup() -> BackupId {
        "nightly-20260314T150926Z-1a2b3c4d".parse().unwrap()
    }

    #[test]
    fn a_key_file_has_three_forms() {
        let raw: Vec<u8> = (0..32).map(|i| i * 7 + 1).collect();
        let hex_form = format!("{}\n", hex::encode(&raw));
        let base64_form = format!(" {}\r\n", STANDARD.encode(&raw));
        let id = RecipientKey::parse(&raw).unwrap().id().to_owned();
        assert_eq!(id.len(), 16);
        assert_eq!(RecipientKey::parse(hex_form.as_bytes()).unwrap().id(), id);
        assert_eq!(RecipientKey::parse(hex_form.to_uppercase().as_bytes()).unwrap().id(), id);
        assert_eq!(RecipientKey::parse(base64_form.as_bytes()).unwrap().id(), id);
        assert_ne!(key(2).id(), id);
        assert!(!format!("{:?}", key(1)).contains(&hex::encode(&raw)[..8]));
    }

    #[test]
    fn other_key_files_are_refused() {
        let weak = [0_u8; 32];
        let half = b"00112233445566778899aabbccddeeff";
        let long = vec![b'a'; MAX_TEXT_BYTES + 1];
        let short = STANDARD.encode([1, 2, 3]);
        let nearly = STANDARD.encode([9; 35]);
        for bad in [&b""[..], &weak, half, &long, short.as_bytes(), nearly.as_bytes(), &[0xFF; 40], &[b'x'; 64]] {
            assert!(matches!(RecipientKey::parse(bad), Err(ArchiveError::BadKey { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_data_key_opens_for_each_recipient_and_nobody_else() {
        let keys = ArchiveKeys::generate().unwrap();
        let wrapped = vec![keys.wrap(&backup(), &key(1)).unwrap(), keys.wrap(&backup(), &key(2)).unwrap()];
        let stored: Vec<_> = wrapped.iter().map(|key| WrappedKey::decode(&key.encode().unwrap()).unwrap()).collect();
        assert_eq!(stored, wrapped);
        for recipient in [key(1), key(2)] {
            assert_eq!(ArchiveKeys::unwrap(&backup(), &stored, &[key(3), recipient]).unwrap().key, keys.key);
        }
        let error = ArchiveKeys::unwrap(&backup(), &stored, &[key(3)]).unwrap_err();
        let text = error.to_string();
        for id in [key(1).id(), key(2).id(), key(3).id()] {
            assert!(text.contains(id), "{text}");
        }
        assert!(ArchiveKeys::unwrap(&backup(), &stored, &[]).unwrap_err().to_string().ends_with("given none"));
    }

    #[test]
    fn a_changed_or_foreign_wrapped_key_is_no_wrong_key() {
        let keys = ArchiveKeys::generate().unwrap();
        let good = keys.wrap(&backup(), &key(1)).unwrap();
        let flip = |text: &str| format!("{}{}", if text.starts_with('0') { '1' } else { '0' }, &text[1..]);
        let other: BackupId = "other-20260314T150926Z-1a2b3c4d".parse().unwrap();
        let mut foreign = keys.wrap(&other, &key(1)).unwrap();
        let moved = foreign.clone();
        foreign.backup = backup();
        for bad in [
            WrappedKey { salt: flip(&good.salt), ..good.clone() },
            WrappedKey { wrapped: flip(&good.wrapped), ..good.clone() },
            WrappedKey { wrapped: "00".into(), ..good.clone() },
            foreign,
            moved,
        ] {
            let error = ArchiveKeys::unwrap(&backup(), &[bad], &[key(1)]).unwrap_err();
            assert!(matches!(&error, ArchiveError::Damaged { object, .. } if object.contains(key(1).id())), "{error}");
        }
        let newer = WrappedKey { format: 2, ..good };
        assert!(matches!(WrappedKey::decode(&newer.encode().unwrap()), Err(ArchiveError::Unsupported { .. })));
    }
}
