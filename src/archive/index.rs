//! The index: where the frame of a window is.
//!
//! ```text
//!   frames, as packs are closed ─► run of at most 262 144 ─ sort ─► index-0001, index-0002, …
//!   a window ─► each object: directory ─► one page ─► found or not
//!   a walk   ─► all objects side by side, one page of each in memory ─► in order of keys
//! ```
//! Runs keep the writer's memory bounded without a place to sort on. (docs/format/index.md.)

use super::digest::Digest;
use super::frame::{FrameKey, KEY_BYTES};
use super::table::directory_key;
use super::wire::{Input, Malformed, Output};

/// Records of one index object at most.
pub const RUN_RECORDS: usize = 262_144;

/// Where a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// Which window.
    pub key: FrameKey,
    /// Units that the frame speaks of.
    pub units: u32,
    /// Its pack.
    pub pack: u32,
    /// Its block there.
    pub block: u32,
    /// Where that begins.
    pub offset: u64,
    /// The block's bytes.
    pub length: u32,
    /// The block's digest.
    pub digest: Digest,
}

impl IndexRecord {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(52);
        bytes.extend_from_slice(&self.key.encode(0));
        bytes.put_u32(self.units);
        bytes.put_u32(self.pack);
        bytes.put_u32(self.block);
        bytes.put_u64(self.offset);
        bytes.put_u32(self.length);
        bytes.extend_from_slice(&self.digest.to_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let (key, reserved) = FrameKey::decode(input)?;
        if reserved != 0 {
            return Err(Malformed::unsupported("reserved bytes of the index are in use"));
        }
        Ok(Self {
            key,
            units: input.u32()?,
            pack: input.u32()?,
            block: input.u32()?,
            offset: input.u64()?,
            length: input.u32()?,
            digest: Digest(input.u128()?),
        })
    }

    /// Its key in the directory of an index object.
    pub fn directory_key(&self) -> [u8; 16] {
        index_key(self.key)
    }

    /// Its key in the directory of a pack: with the units, and the unit's size as in the frame's head.
    pub fn pack_key(frame_head: &[u8], units: u32) -> [u8; 16] {
        let mut bytes = frame_head.get(..KEY_BYTES).unwrap_or_default().to_vec();
        bytes.put_u32(units);
        directory_key(&bytes)
    }
}

/// The key of a window in the directory of an index object.
pub fn index_key(key: FrameKey) -> [u8; 16] {
    directory_key(&key.encode(0))
}
