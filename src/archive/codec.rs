//! Compression of blocks: which, how it is written on a command line, and contexts that are used again and again.
//!
//! Contexts are costly to make and cheap to use again, so each thread keeps one. A body that does not shrink is stored
//! as it is.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use super::wire::Malformed;

/// The most raw bytes that a block may hold.
pub const MAX_RAW_BYTES: usize = 4 << 20;

const LEVELS: std::ops::RangeInclusive<i32> = -7..=22;

/// How blocks are compressed. As text: `zstd`, `zstd:3`, `lz4`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Codec {
    /// Zstandard.
    Zstd {
        /// -7 (fast) to 22 (small), not 0.
        level: i32,
    },
    /// LZ4: fastest.
    Lz4,
    /// Not at all.
    None,
}

/// Returned for text that is no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no compression: use zstd, zstd:LEVEL with a level from -7 to 22 but 0, lz4 or none")]
pub struct BadCodec(String);

impl Codec {
    /// What `zstd` without a level means.
    pub const DEFAULT_LEVEL: i32 = 1;
    /// Of redo it saves half as much as level 1, in less than a third of the time.
    const QUICK_LEVEL: i32 = -5;

    /// The same, but as quick as is still of use: for who has little time, not for who chose none.
    #[must_use]
    pub fn quick(self) -> Self {
        match self {
            Self::Zstd { level } => Self::Zstd { level: level.min(Self::QUICK_LEVEL) },
            Self::Lz4 | Self::None => self,
        }
    }
}

impl FromStr for Codec {
    type Err = BadCodec;

    fn from_str(text: &str) -> Result<Self, BadCodec> {
        let level = match text {
            "lz4" => return Ok(Self::Lz4),
            "none" => return Ok(Self::None),
            "zstd" => return Ok(Self::Zstd { level: Self::DEFAULT_LEVEL }),
            _ => text.strip_prefix("zstd:").and_then(|level| level.parse().ok()),
        };
        match level {
            Some(level) if LEVELS.contains(&level) && level != 0 => Ok(Self::Zstd { level }),
            _ => Err(BadCodec(text.to_owned())),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd { level } => f.pad(&format!("zstd:{level}")),
            Self::Lz4 => f.pad("lz4"),
            Self::None => f.pad("none"),
        }
    }
}

impl TryFrom<String> for Codec {
    type Error = BadCodec;

    fn try_from(text: String) -> Result<Self, BadCodec> {
        text.parse()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.to_string()
    }
}

/// How one body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCodec {
    /// As it is.
    Raw,
    /// A zstd frame.
    Zstd,
    /// An LZ4 block.
    Lz4,
}

impl BodyCodec {
    /// Its number in a block's head.
    pub fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    /// The one with that number.
    pub fn from_number(number: u8) -> Result<Self, Malformed> {
        match number {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Lz4),
            other => Err(Malformed::unsupported(format!("codec {other}"))),
        }
    }
}

/// Compresses bodies, one after another.
pub struct Compressor {
    kind: Kind,
    /// Room for the worst case, made once.
    scratch: Vec<u8>,
}

enum Kind {
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Lz4,
    None,
}

impl Compressor {
    /// A new context.
    pub fn new(codec: Codec) -> Result<Self, ArchiveError> {
        let kind = match codec {
            Codec::Zstd { level } => Kind::Zstd(Box::new(
                zstd::bulk::Compressor::new(level).map_err(|_| ArchiveError::Machine { act: "set up zstd" })?,
            )),
            Codec::Lz4 => Kind::Lz4,
            Codec::None => Kind::None,
        };
        Ok(Self { kind, scratch: Vec::new() })
    }

    /// Compresses `body`; gives it back as it is where that saves nearly nothing.
    pub fn compress<'a>(&'a mut self, body: &'a [u8]) -> Result<(BodyCodec, &'a [u8]), ArchiveError> {
        let (codec, len) = match &mut self.kind {
            Kind::None => return Ok((BodyCodec::Raw, body)),
            _ if body.is_empty() => return Ok((BodyCodec::Raw, body)),
            Kind::Zstd(context) => {
                self.scratch.clear();
                self.scratch.reserve(zstd::zstd_safe::compress_bound(body.len()));
                let len = context
                    .compress_to_buffer(body, &mut self.scratch)
                    .map_err(|_| ArchiveError::Machine { act: "compress with zstd" })?;
                (BodyCodec::Zstd, len)
            }
            Kind::Lz4 => {
                let bound = lz4_flex::block::get_maximum_output_size(body.len());
                if self.scratch.len() < bound {
                    self.scratch.resize(bound, 0);
                }
                let len = lz4_flex::block::compress_into(body, &mut self.scratch)
                    .map_err(|_| ArchiveError::Machine { act: "compress with lz4" })?;
                (BodyCodec::Lz4, len)
            }
        };
        match self.scratch.get(..len) {
            // A few saved bytes are not worth a decompression at every restore.
            Some(small) if len < body.len() - body.len() / 32 => Ok((codec, small)),
            _ => Ok((BodyCodec::Raw, body)),
        }
    }
}

/// Brings bodies back.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// A new context.
    pub fn new() -> Result<Self, ArchiveError> {
        zstd::bulk::Decompressor::new().map(Self).map_err(|_| ArchiveError::Machine { act: "set up zstd" })
    }

    /// Brings `stored` back to exactly `raw_len` bytes, which must be within [`MAX_RAW_BYTES`].
    pub fn decompress(&mut self, codec: BodyCodec, stored: &[u8], raw_len: usize) -> Result<Vec<u8>, Malformed> {
        check_raw_len(raw_len)?;
        let mut raw = Vec::new();
        let got = match codec {
            BodyCodec::Raw => {
                raw.extend_from_slice(stored);
                stored.len()
            }
            BodyCodec::Zstd => {
                raw.reserve_exact(raw_len);
                self.0
                    .decompress_to_buffer(stored, &mut raw)
                    .map_err(|_| Malformed::damaged("the zstd frame is bad"))?
            }
            BodyCodec::Lz4 => {
                raw.resize(raw_len, 0);
                lz4_flex::block::decompress_into(stored, &mut raw)
                    .map_err(|_| Malformed::damaged("the lz4 block is bad"))?
            }
        };
        if got == raw_len && raw.len() == raw_len {
            return Ok(raw);
        }
        Err(Malformed::damaged(format!("{raw_len} raw bytes were stored, {got} come out")))
    }

    /// As [`Self::decompress`], but without a copy where there is nothing to decompress.
    pub fn decompress_shared(&mut self, codec: BodyCodec, stored: &Bytes, raw_len: usize) -> Result<Bytes, Malformed> {
        if codec == BodyCodec::Raw && stored.len() == raw_len {
            check_raw_len(raw_len)?;
            return Ok(stored.clone());
        }
        self.decompress(codec, stored, raw_len).map(Bytes::from)
    }
}

fn check_raw_len(raw_len: usize) -> Result<(), Malformed> {
    if raw_len <= MAX_RAW_BYTES {
        return Ok(());
    }
    Err(Malformed::damaged(format!("it claims {raw_len} raw bytes, at most {MAX_RAW_BYTES} are allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        for (text, codec) in [
            ("zstd", Codec::Zstd { level: 1 }),
            ("zstd:19", Codec::Zstd { level: 19 }),
            ("zstd:-3", Codec::Zstd { level: -3 }),
            ("lz4", Codec::Lz4),
            ("none", Codec::None),
        ] {
            assert_eq!(text.parse(), Ok(codec), "{text}");
            assert_eq!(codec.to_string().parse(), Ok(codec), "{text}");
        }
        for bad in ["", "zstd:", "zstd:0", "zstd:23", "zstd:x", "lz4:1", "gzip", "ZSTD"] {
            assert!(bad.parse::<Codec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_quick_codec_is_never_a_slower_one() {
        for (text, quick) in [("zstd:3", "zstd:-5"), ("zstd:-7", "zstd:-7"), ("lz4", "lz4"), ("none", "none")] {
            assert_eq!(text.parse::<Codec>().unwrap().quick().to_string(), quick);
        }
    }

    #[test]
    fn bodies_come_back() {
        let noise: Vec<u8> = (0_u64..5000).flat_map(|i| Digest::of(&i.to_be_bytes()).to_bytes()).collect();
        for codec in [Codec::Zstd { level: 1 }, Codec::Lz4, Codec::None] {
            let mut compressor = Compressor::new(codec).unwrap();
            let mut decompressor = Decompressor::new().unwrap();
            for body in [&b""[..], b"a", &vec![7; 100_000], &noise, &[0; 5]] {
                let (used, stored) = compressor.compress(body).unwrap();
                assert!(stored.len() <= body.len(), "never larger");
                assert_eq!(decompressor.decompress(used, stored, body.len()).unwrap(), body);
                if !body.is_empty() {
                    assert!(decompressor.decompress(used, stored, body.len() - 1).is_err());
                }
                assert!(decompressor.decompress(used, stored, body.len() + 1).is_err());
            }
        }
    }

    #[test]
    fn a_claimed_size_is_checked_before_memory_is_taken() {
        let mut decompressor = Decompressor::new().unwrap();
        for codec in [BodyCodec::Raw, BodyCodec::Zstd, BodyCodec::Lz4] {
            assert!(decompressor.decompress(codec, &[], usize::MAX).is_err());
            assert!(decompressor.decompress(codec, &[], MAX_RAW_BYTES + 1).is_err());
        }
    }

    use super::super::digest::Digest;
}
