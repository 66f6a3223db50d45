//! Seals: AES-256-GCM of one object's blocks, each bound to its place.
//!
//! ```text
//!   nonce   8 zero bytes │ block number u32          object key: own salt, so no nonce is used twice with it
//!   bound   format · kind · cipher · backup · attempt · object name │ head of the block (number, last, lengths)
//! ```
//! (docs/format/encryption.md.)

use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

use super::ArchiveError;
use super::container::Place;
use super::wire::Output;

/// Bytes that a seal adds.
pub const TAG_BYTES: usize = 16;

/// The key of one object, with what it binds.
pub struct ObjectSeal {
    key: LessSafeKey,
    bound: Vec<u8>,
}

impl fmt::Debug for ObjectSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectSeal")
    }
}

impl ObjectSeal {
    /// Binds the key to the object at `place`.
    pub fn new(key: LessSafeKey, place: &Place<'_>) -> Self {
        let mut bound = Vec::with_capacity(160);
        bound.put_sized(b"stillframe/1");
        bound.push(place.kind.number());
        bound.push(1);
        for text in [place.backup.as_str(), place.attempt.as_str(), place.name] {
            bound.put_sized(text.as_bytes());
        }
        Self { key, bound }
    }

    fn aad(&self, head: &[u8]) -> Aad<Vec<u8>> {
        let mut bound = Vec::with_capacity(self.bound.len() + head.len());
        bound.extend_from_slice(&self.bound);
        bound.extend_from_slice(head);
        Aad::from(bound)
    }

    /// Seals `bytes` where they stand and returns the tag.
    pub fn seal(&self, number: u32, head: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], ArchiveError> {
        let failed = || ArchiveError::Machine { act: "seal a block" };
        let tag = self.key.seal_in_place_separate_tag(nonce(number), self.aad(head), bytes).map_err(|_| failed())?;
        tag.as_ref().try_into().map_err(|_| failed())
    }

    /// Opens what was sealed; `None` if it was not sealed so.
    pub fn open(&self, number: u32, head: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (bytes, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_BYTES)?)?;
        let mut clear = vec![0; bytes.len()];
        self.key.open_separate_gather(nonce(number), self.aad(head), bytes, tag, &mut clear).ok()?;
        Some(clear)
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().skip(8).zip(number.to_be_bytes()) {
        *to = from;
    }
    Nonce::assume_unique_for_key(nonce)
}
