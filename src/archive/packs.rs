//! The list of packs and redo packs: what each object is and must be.

use super::container::Kind;
use super::digest::Digest;
use super::keys::Salt;
use super::object_reader::Expected;
use super::object_writer::Finished;
use super::table::directory_key;
use super::wire::{Input, Malformed, Output};

/// A pack in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRef {
    /// The object's name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its root digest.
    pub digest: Digest,
    /// Number of frames in it.
    pub frames: u32,
    pub(super) kind: Kind,
    pub(super) number: u32,
    pub(super) salt: Salt,
}

impl PackRef {
    pub(super) fn new(kind: Kind, number: u32, finished: &Finished) -> Self {
        Self {
            name: object_name(kind, number),
            bytes: finished.bytes,
            digest: finished.root,
            frames: finished.blocks,
            kind,
            number,
            salt: finished.salt,
        }
    }

    pub(super) fn expected(&self) -> Expected {
        Expected { bytes: self.bytes, root: self.digest, salt: Some(self.salt) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind.number()];
        bytes.put_zeros(3);
        bytes.put_u32(self.number);
        bytes.put_u64(self.bytes);
        bytes.put_u32(self.frames);
        bytes.extend_from_slice(&self.digest.to_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes
    }

    pub(super) fn directory_key(&self) -> [u8; 16] {
        let mut bytes = vec![self.kind.number(), 0, 0, 0];
        bytes.put_u32(self.number);
        directory_key(&bytes)
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let kind = match input.u8()? {
            1 => Kind::Pack,
            2 => Kind::RedoPack,
            other => return Err(Malformed::unsupported(format!("kind of pack {other}"))),
        };
        input.zeros(3)?;
        let (number, bytes, frames) = (input.u32()?, input.u64()?, input.u32()?);
        let (digest, salt) = (Digest(input.u128()?), input.array()?);
        Ok(Self { name: object_name(kind, number), bytes, digest, frames, kind, number, salt })
    }
}

/// The name of a numbered object.
pub fn object_name(kind: Kind, number: u32) -> String {
    match kind {
        Kind::Pack => format!("pack-{number:06}"),
        Kind::RedoPack => format!("redo-{number:06}"),
        Kind::Index => format!("index-{number:04}"),
        Kind::Files => "files".to_owned(),
        Kind::RedoTable => "redo-table".to_owned(),
        Kind::Objects => "objects".to_owned(),
    }
}

/// Checks that a list of packs is sorted and names none twice, so that a number finds its pack.
pub fn check_packs(packs: &[PackRef]) -> Result<(), Malformed> {
    let sorted = packs.is_sorted_by(|a, b| (a.kind, a.number) < (b.kind, b.number));
    if sorted { Ok(()) } else { Err(Malformed::damaged("its packs are not in order")) }
}
