//! The container that every stored object is: header, blocks, directory, footer; as bytes, no I/O.
//!
//! ```text
//!   │ header 80 │ head 32 · payload │ … │ head 32 · directory │ footer 96 │
//! ```
//! (docs/format/pack.md has every byte.)

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::FORMAT;
use super::codec::{BodyCodec, MAX_RAW_BYTES};
use super::digest::Digest;
use super::id::{AttemptId, BackupId};
use super::keys::Salt;
use super::wire::{Input, Malformed, Output, to_len, to_u32};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 80;
/// Bytes of a block's head.
pub const HEAD_BYTES: usize = 32;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 96;
/// Bytes of an entry of the directory.
pub const ENTRY_BYTES: usize = 44;
/// The most blocks of an object, the directory not counted.
pub const MAX_BLOCKS: u32 = 65_536;
/// The most bytes of `meta`: two bitmaps of the smallest pages, and the frame head.
pub const MAX_META_BYTES: usize = 16 + 2 * 512;
/// The most bytes of a block: head, meta with its length, body, tag.
pub const MAX_BLOCK_BYTES: usize = HEAD_BYTES + 2 + MAX_META_BYTES + MAX_RAW_BYTES + 16;

const HEADER_MAGIC: [u8; 8] = *b"SFOBJECT";
const FOOTER_MAGIC: [u8; 8] = *b"SFOBJEND";
const LAST: u8 = 1;

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Frames of pages and files.
    Pack,
    /// Frames of redo.
    RedoPack,
    /// Part of the index.
    Index,
    /// The file table.
    Files,
    /// The redo table.
    RedoTable,
    /// The list of packs and redo packs.
    Objects,
}

impl Kind {
    /// Its number in header, footer and seals.
    pub fn number(self) -> u8 {
        match self {
            Self::Pack => 1,
            Self::RedoPack => 2,
            Self::Index => 3,
            Self::Files => 4,
            Self::RedoTable => 5,
            Self::Objects => 6,
        }
    }
}

/// Where an object belongs: what its identity and its seals are bound to.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The backup.
    pub backup: &'a BackupId,
    /// The run.
    pub attempt: &'a AttemptId,
    /// The object's name.
    pub name: &'a str,
    /// What it holds.
    pub kind: Kind,
}

impl Place<'_> {
    /// The object's identity.
    pub fn identity(&self) -> [u8; 16] {
        let mut bytes = Vec::with_capacity(128);
        for text in [self.backup.as_str(), self.attempt.as_str(), self.name] {
            bytes.put_sized(text.as_bytes());
        }
        bytes.push(self.kind.number());
        xxh3_128(&bytes).to_be_bytes()
    }
}

/// What header and footer say of their object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// What it holds.
    pub kind: Kind,
    /// Its blocks are sealed.
    pub sealed: bool,
    /// Its key's salt; zero when not sealed.
    pub salt: Salt,
    /// Hash of its place.
    pub place: [u8; 16],
}

impl Identity {
    /// The bytes at the front of the object.
    pub fn encode_header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&HEADER_MAGIC);
        bytes.put_u16(FORMAT);
        bytes.push(self.kind.number());
        bytes.push(self.sealed.into());
        bytes.put_zeros(4);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.place);
        let hash = xxh3_128(&bytes);
        bytes.extend_from_slice(&hash.to_be_bytes());
        bytes
    }

    /// Checks a header against what it must say.
    pub fn check_header(&self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut input = Input::new(bytes, "header");
        let (magic, format) = (input.array::<8>()?, input.u16()?);
        check_magic(magic, HEADER_MAGIC, format)?;
        if self.encode_header() == bytes {
            return Ok(());
        }
        Err(Malformed::damaged("its header is not the one that was written"))
    }
}

/// The bytes at the end of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// As in the header.
    pub identity: Identity,
    /// Where the directory begins.
    pub directory_offset: u64,
    /// Its bytes, head included.
    pub directory_bytes: u32,
    /// Blocks, the directory not counted.
    pub blocks: u32,
    /// Bytes of the object.
    pub object_bytes: u64,
}

impl Footer {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.identity.salt);
        bytes.extend_from_slice(&self.identity.place);
        bytes.put_u64(self.directory_offset);
        bytes.put_u32(self.directory_bytes);
        bytes.put_u32(self.blocks.saturating_add(1));
        bytes.put_u64(self.object_bytes);
        bytes.put_u16(FORMAT);
        bytes.push(self.identity.kind.number());
        bytes.push(self.identity.sealed.into());
        bytes.put_zeros(4);
        let hash = xxh3_64(&bytes);
        bytes.put_u64(hash);
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes
    }

    /// Reads the footer of the object of this kind and identity that has `object_bytes`.
    pub fn decode(bytes: &[u8], place: &Place<'_>, sealed: bool, object_bytes: u64) -> Result<Self, Malformed> {
        let mut input = Input::new(bytes, "footer");
        let covered = Input::new(bytes, "footer").take(80)?;
        let (salt, identity) = (input.array::<32>()?, input.array::<16>()?);
        let (directory_offset, directory_bytes) = (input.u64()?, input.u32()?);
        let (blocks, stated_bytes) = (input.u32()?, input.u64()?);
        let (format, kind, cipher) = (input.u16()?, input.u8()?, input.u8()?);
        let reserved = input;
        input.take(4)?;
        let (hash, magic) = (input.u64()?, input.array::<8>()?);
        input.end()?;
        check_magic(magic, FOOTER_MAGIC, format)?;
        if hash != xxh3_64(covered) {
            return Err(Malformed::damaged("the footer has a wrong checksum"));
        }
        if identity != place.identity() || kind != place.kind.number() {
            return Err(Malformed::damaged("it is another object, of this backup or another, in this one's place"));
        }
        { reserved }.zeros(4)?;
        match (cipher, sealed) {
            (0, false) | (1, true) => {}
            (0 | 1, _) => return Err(Malformed::damaged("the manifest says otherwise about its encryption")),
            _ => return Err(Malformed::unsupported(format!("cipher {cipher}"))),
        }
        let end = directory_offset.checked_add(directory_bytes.into());
        if stated_bytes != object_bytes
            || end != object_bytes.checked_sub(96)
            || directory_offset < 80
            || to_len(directory_bytes) > MAX_BLOCK_BYTES
            || blocks == 0
            || blocks > MAX_BLOCKS + 1
        {
            return Err(Malformed::damaged("the footer's numbers do not fit the object"));
        }
        let identity = Identity { kind: place.kind, sealed, salt, place: identity };
        Ok(Self { identity, directory_offset, directory_bytes, blocks: blocks - 1, object_bytes })
    }
}

fn check_magic(found: [u8; 8], wanted: [u8; 8], format: u16) -> Result<(), Malformed> {
    if found != wanted {
        return Err(Malformed::damaged("it has no magic: cut short, overwritten, or never one of ours"));
    }
    if format != FORMAT {
        return Err(Malformed::unsupported(format!("format number {format}")));
    }
    Ok(())
}

/// The head of a block, without its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The block's number.
    pub number: u32,
    /// It is the directory.
    pub last: bool,
    /// How its body is stored.
    pub codec: BodyCodec,
    /// Bytes that follow.
    pub payload_bytes: u32,
    /// Bytes of the body, once decompressed.
    pub raw_bytes: u32,
}

impl Head {
    /// The first 16 bytes of a block.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = Vec::with_capacity(16);
        bytes.put_u32(self.number);
        bytes.push(if self.last { LAST } else { 0 });
        bytes.push(self.codec.number());
        bytes.put_zeros(2);
        bytes.put_u32(self.payload_bytes);
        bytes.put_u32(self.raw_bytes);
        let mut head = [0; 16];
        head.copy_from_slice(&bytes);
        head
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::new(bytes, "head of the block");
        let (number, flags, codec) = (input.u32()?, input.u8()?, input.u8()?);
        input.zeros(2)?;
        let (payload_bytes, raw_bytes) = (input.u32()?, input.u32()?);
        input.end()?;
        if flags > LAST {
            return Err(Malformed::unsupported(format!("block flags {flags:#x}")));
        }
        if to_len(raw_bytes) > MAX_RAW_BYTES || to_len(payload_bytes) > MAX_BLOCK_BYTES - HEAD_BYTES {
            return Err(Malformed::damaged(format!("it claims {payload_bytes} stored and {raw_bytes} raw bytes")));
        }
        Ok(Self { number, last: flags == LAST, codec: BodyCodec::from_number(codec)?, payload_bytes, raw_bytes })
    }

    /// The digest of a block of the object with that identity.
    pub fn digest(head: &[u8], payload: &[u8], identity: &[u8; 16]) -> Digest {
        let mut place = [0; 32];
        for (to, from) in place.iter_mut().zip(identity.iter().chain(head)) {
            *to = *from;
        }
        Digest::placed(payload, &place)
    }
}

/// A block as the directory knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes, head included.
    pub length: u32,
    /// Its digest.
    pub digest: Digest,
    /// What it holds: as the kind of object has it.
    pub key: [u8; 16],
}

/// The directory's meta and body.
pub fn encode_directory(entries: &[Entry]) -> (Vec<u8>, Vec<u8>) {
    let mut body = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        body.put_u64(entry.offset);
        body.put_u32(entry.length);
        body.extend_from_slice(&entry.digest.to_bytes());
        body.extend_from_slice(&entry.key);
    }
    (to_u32(entries.len()).to_be_bytes().to_vec(), body)
}

/// Reads a directory of `blocks` entries that ends at `end`.
pub fn decode_directory(meta: &[u8], body: &[u8], blocks: u32, end: u64) -> Result<Vec<Entry>, Malformed> {
    let mut meta = Input::new(meta, "directory");
    let count = meta.u32()?;
    meta.end()?;
    if count != blocks || Some(body.len()) != to_len(count).checked_mul(ENTRY_BYTES) {
        return Err(Malformed::damaged("the directory has another number of blocks than the footer"));
    }
    let mut input = Input::new(body, "directory");
    let mut entries = Vec::with_capacity(to_len(count));
    let mut at = 80;
    for number in 0..count {
        let (offset, length) = (input.u64()?, input.u32()?);
        let (digest, key) = (Digest(input.u128()?), input.array()?);
        if offset != at || to_len(length) > MAX_BLOCK_BYTES || to_len(length) < HEAD_BYTES {
            return Err(Malformed::damaged(format!("block {number} is at {offset} with {length} bytes, not at {at}")));
        }
        at += u64::from(length);
        entries.push(Entry { offset, length, digest, key });
    }
    if at != end {
        return Err(Malformed::damaged(format!("its blocks end at {at}, not at {end}")));
    }
    Ok(entries)
}

/// Cuts a payload in clear into meta and body.
pub fn split_payload(clear: &[u8]) -> Result<(&[u8], usize), Malformed> {
    let mut input = Input::new(clear, "block");
    let meta_bytes = usize::from(input.u16()?);
    if meta_bytes > MAX_META_BYTES {
        return Err(Malformed::damaged(format!("its meta has {meta_bytes} bytes")));
    }
    Ok((input.take(meta_bytes)?, 2 + meta_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_place<T>(name: &str, kind: Kind, use_it: impl FnOnce(&Place<'_>) -> T) -> T {
        let backup = "a-20260314T150926Z-1a2b3c4d".parse().unwrap();
        let attempt = "0123456789abcdef".parse().unwrap();
        use_it(&Place { backup: &backup, attempt: &attempt, name, kind })
    }

    #[test]
    fn every_bit_of_header_and_footer_counts() {
        with_place("pack-000001", Kind::Pack, |place| {
            let identity = Identity { kind: Kind::Pack, sealed: true, salt: [7; 32], place: place.identity() };
            let header = identity.encode_header();
            assert_eq!(header.len(), HEADER_BYTES);
            identity.check_header(&header).unwrap();
            let footer =
                Footer { identity, directory_offset: 1000, directory_bytes: 200, blocks: 3, object_bytes: 1296 };
            let bytes = footer.encode();
            assert_eq!(bytes.len(), FOOTER_BYTES);
            assert_eq!(Footer::decode(&bytes, place, true, 1296), Ok(footer));
            assert!(Footer::decode(&bytes, place, false, 1296).is_err());
            assert!(Footer::decode(&bytes, place, true, 1297).is_err());
            for bit in 0..HEADER_BYTES * 8 {
                let mut bad = header.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(identity.check_header(&bad).is_err(), "header bit {bit}");
            }
            for bit in 0..FOOTER_BYTES * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Footer::decode(&bad, place, true, 1296).is_err(), "footer bit {bit}");
            }
            with_place("pack-000002", Kind::Pack, |other| {
                let error = Footer::decode(&bytes, other, true, 1296).unwrap_err();
                assert!(error.what.contains("another object"), "{error:?}");
            });
        });
    }

    #[test]
    fn a_later_format_is_unsupported_not_damaged() {
        with_place("files", Kind::Files, |place| {
            let identity = Identity { kind: Kind::Files, sealed: false, salt: [0; 32], place: place.identity() };
            let mut header = identity.encode_header();
            header[9] = 2;
            assert!(identity.check_header(&header).unwrap_err().unsupported);
        });
    }

    #[test]
    fn heads_come_back_and_large_ones_are_refused() {
        let head = Head { number: 5, last: false, codec: BodyCodec::Zstd, payload_bytes: 900, raw_bytes: 4 << 20 };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        let large = Head { raw_bytes: (4 << 20) + 1, ..head };
        assert!(Head::decode(&large.encode()).is_err());
        let large = Head { payload_bytes: u32::MAX, ..head };
        assert!(Head::decode(&large.encode()).is_err());
    }

    #[test]
    fn a_directory_has_no_gaps() {
        let entry = |offset, length| Entry { offset, length, digest: Digest(9), key: [1; 16] };
        let entries = vec![entry(80, 100), entry(180, 50)];
        let (meta, body) = encode_directory(&entries);
        assert_eq!(decode_directory(&meta, &body, 2, 230), Ok(entries));
        for (blocks, end) in [(1, 230), (3, 230), (2, 229), (2, 231)] {
            assert!(decode_directory(&meta, &body, blocks, end).is_err());
        }
        let (meta, body) = encode_directory(&[entry(80, 100), entry(181, 50)]);
        assert!(decode_directory(&meta, &body, 2, 231).is_err());
        assert!(decode_directory(&u32::MAX.to_be_bytes(), &[], u32::MAX, 80).is_err(), "nothing is allocated");
    }
}
