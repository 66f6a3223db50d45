//! Writes one object: compresses nothing, decides nothing; puts blocks behind each other, sealed and hashed.
//!
//! ```text
//!   block(meta, body) ─► head · [meta bytes · meta · body] ─► seal ─► digest ─► ObjectWriter
//!   finish ────────────► directory block · footer
//! ```
//! Small blocks are put together before they are handed on; large ones go as they are, with one copy.

use bytes::Bytes;

use super::ArchiveError;
use super::cipher::{ObjectSeal, TAG_BYTES};
use super::codec::{BodyCodec, MAX_RAW_BYTES};
use super::container::{
    Entry, FOOTER_BYTES, Footer, HEAD_BYTES, HEADER_BYTES, Head, Identity, MAX_BLOCKS, MAX_META_BYTES, Place,
    encode_directory,
};
use super::digest::Digest;
use super::keys::{ArchiveKeys, Salt, random_salt};
use super::object::{ObjectSink, ObjectWriter};
use super::wire::{Output, to_u32, to_u64};

/// Blocks are put together up to so many bytes.
const GATHER_BYTES: usize = 256 << 10;

/// A body, compressed or not.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a> {
    /// How.
    pub codec: BodyCodec,
    /// As it is stored, before it is sealed.
    pub stored: &'a [u8],
    /// Its bytes, once decompressed.
    pub raw_bytes: usize,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its bytes.
    pub bytes: u64,
    /// Its blocks, without the directory.
    pub blocks: u32,
    /// Digest of its directory.
    pub root: Digest,
    /// Its key's salt.
    pub salt: Salt,
}

/// An object that is being written. Dropped unfinished, it is given up.
pub struct ObjectBuilder {
    name: String,
    writer: Box<dyn ObjectWriter>,
    seal: Option<ObjectSeal>,
    identity: Identity,
    entries: Vec<Entry>,
    pending: Vec<u8>,
    offset: u64,
}

impl ObjectBuilder {
    /// Begins the object.
    pub fn create(sink: &dyn ObjectSink, place: &Place<'_>, keys: Option<&ArchiveKeys>) -> Result<Self, ArchiveError> {
        let (salt, seal) = match keys {
            Some(keys) => {
                let salt = random_salt()?;
                (salt, Some(keys.object_seal(&salt, place)?))
            }
            None => ([0; 32], None),
        };
        let identity = Identity { kind: place.kind, sealed: seal.is_some(), salt, place: place.identity() };
        Ok(Self {
            name: place.name.to_owned(),
            writer: sink.create(place.name)?,
            seal,
            identity,
            entries: Vec::new(),
            pending: identity.encode_header(),
            offset: to_u64(HEADER_BYTES),
        })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Blocks so far.
    pub fn blocks(&self) -> u32 {
        to_u32(self.entries.len())
    }

    /// Bytes that a block with that much meta and stored body takes.
    pub fn block_bytes(&self, meta: &[u8], body: &Body<'_>) -> u64 {
        let tag = if self.seal.is_some() { TAG_BYTES } else { 0 };
        to_u64(HEAD_BYTES + 2 + meta.len() + body.stored.len() + tag)
    }

    /// Puts a block at the end.
    pub fn block(&mut self, key: [u8; 16], meta: &[u8], body: &Body<'_>) -> Result<Entry, ArchiveError> {
        if self.blocks() >= MAX_BLOCKS {
            let why = format!("it would have more than {MAX_BLOCKS} blocks");
            return Err(ArchiveError::BadInput { what: format!("object {}", self.name), why });
        }
        let entry = self.put(key, meta, body, false)?;
        self.entries.push(entry);
        Ok(entry)
    }

    fn put(&mut self, key: [u8; 16], meta: &[u8], body: &Body<'_>, last: bool) -> Result<Entry, ArchiveError> {
        let total = self.block_bytes(meta, body);
        let (Ok(length), Ok(meta_bytes)) = (u32::try_from(total), u16::try_from(meta.len())) else {
            return Err(self.too_large());
        };
        if meta.len() > MAX_META_BYTES || body.raw_bytes > MAX_RAW_BYTES || body.stored.len() > body.raw_bytes {
            return Err(self.too_large());
        }
        let head = Head {
            number: self.blocks(),
            last,
            codec: body.codec,
            payload_bytes: length.saturating_sub(to_u32(HEAD_BYTES)),
            raw_bytes: to_u32(body.raw_bytes),
        }
        .encode();
        let mut block = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
        block.extend_from_slice(&head);
        block.put_zeros(HEAD_BYTES - head.len());
        block.put_u16(meta_bytes);
        block.extend_from_slice(meta);
        block.extend_from_slice(body.stored);
        if let (Some(seal), Some(clear)) = (&self.seal, block.get_mut(HEAD_BYTES..)) {
            let tag = seal.seal(self.blocks(), &head, clear)?;
            block.extend_from_slice(&tag);
        }
        let digest = Head::digest(&head, block.get(HEAD_BYTES..).unwrap_or_default(), &self.identity.place);
        for (to, from) in block.iter_mut().skip(head.len()).zip(digest.to_bytes()) {
            *to = from;
        }
        let entry = Entry { offset: self.offset, length, digest, key };
        self.offset += total;
        self.write(block)?;
        Ok(entry)
    }

    fn write(&mut self, block: Vec<u8>) -> Result<(), ArchiveError> {
        if self.pending.len() + block.len() > GATHER_BYTES {
            self.flush()?;
        }
        if block.len() > GATHER_BYTES / 2 {
            self.flush()?;
            return Ok(self.writer.write(Bytes::from(block))?);
        }
        self.pending.extend_from_slice(&block);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ArchiveError> {
        if !self.pending.is_empty() {
            self.writer.write(Bytes::from(std::mem::take(&mut self.pending)))?;
        }
        Ok(())
    }

    fn too_large(&self) -> ArchiveError {
        ArchiveError::BadInput { what: format!("a block of object {}", self.name), why: "it is too large".to_owned() }
    }

    /// Writes directory and footer and completes the object in the store.
    pub fn finish(mut self) -> Result<Finished, ArchiveError> {
        let blocks = self.blocks();
        let (meta, body) = encode_directory(&self.entries);
        let body = Body { codec: BodyCodec::Raw, stored: &body, raw_bytes: body.len() };
        let directory = self.put([0; 16], &meta, &body, true)?;
        let bytes = self.offset + to_u64(FOOTER_BYTES);
        let footer = Footer {
            identity: self.identity,
            directory_offset: directory.offset,
            directory_bytes: directory.length,
            blocks,
            object_bytes: bytes,
        };
        self.pending.extend_from_slice(&footer.encode());
        self.flush()?;
        self.writer.finish()?;
        Ok(Finished { bytes, blocks, root: directory.digest, salt: self.identity.salt })
    }
}
