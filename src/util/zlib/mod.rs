//! Classic zlib, with the parameters that the server compresses pages with and safe wrappers do not offer: the window's
//! size, the memory level, output into places that are not next to each other, and a stop at the first block.
//!
//! ```text
//!   Deflater::new(level, window bits) ─► push(input, output, flush) … finish          memory level 9
//!   Inflater::new(window bits)        ─► pull(input, output, stop at a block?) …
//! ```
//! It is built from zlib's own source (never a rewrite of it): pages that recovery compresses anew must take the bytes
//! that they took on their server. This is the crate's only module with `unsafe`: calls into C, each given buffers that
//! outlive it.

#![allow(unsafe_code, reason = "calls into zlib; see each for why it is sound")]

mod stream;
#[cfg(test)]
mod tests;

use self::stream::Stream;

/// What zlib would not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ZlibError {
    /// The parameters, or no memory.
    #[error("zlib cannot begin (code {code})")]
    Begin {
        /// zlib's.
        code: i32,
    },
    /// The output is full.
    #[error("the compressed bytes do not fit into {room} bytes")]
    Full {
        /// What was left of the output.
        room: usize,
    },
    /// The bytes are not zlib's, or damaged.
    #[error("the compressed bytes are damaged (code {code})")]
    Damaged {
        /// zlib's.
        code: i32,
    },
    /// More bytes than zlib counts at once.
    #[error("{len} bytes are too many for one call of zlib")]
    TooLong {
        /// How many.
        len: usize,
    },
}

/// What zlib is to do with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Keep it until there is enough for a block.
    Gather,
    /// Write all of it, so that what follows can be read without it.
    Full,
    /// Write all of it and end the stream.
    Finish,
}

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes written to the output.
    pub produced: usize,
    /// The stream has ended.
    pub ended: bool,
}

/// Compresses.
#[derive(Debug)]
pub struct Deflater {
    stream: Stream,
}

impl Deflater {
    /// Begins a stream. Levels are 0 to 9, a window of `bits` holds `1 << bits` bytes: 9 to 15.
    pub fn new(level: u8, bits: u8) -> Result<Self, ZlibError> {
        Ok(Self { stream: Stream::deflate(level, bits)? })
    }

    /// Compresses all of `input` to the front of `output`. Gives the number of bytes written there.
    pub fn push(&mut self, input: &[u8], output: &mut [u8], flush: Flush) -> Result<usize, ZlibError> {
        let room = output.len();
        let (code, progress) = self.stream.call_deflate(input, output, flush)?;
        let done = match flush {
            Flush::Finish => progress.ended,
            Flush::Gather => code == stream::OK && progress.consumed == input.len(),
            // A flush is complete only when it left room: else some of it may be pending.
            Flush::Full => code == stream::OK && progress.consumed == input.len() && progress.produced < room,
        };
        if done { Ok(progress.produced) } else { Err(ZlibError::Full { room }) }
    }
}

/// Decompresses.
#[derive(Debug)]
pub struct Inflater {
    stream: Stream,
}

impl Inflater {
    /// Begins a stream that was made with a window of at most `1 << bits` bytes.
    pub fn new(bits: u8) -> Result<Self, ZlibError> {
        Ok(Self { stream: Stream::inflate(bits)? })
    }

    /// Fills `output` as far as `input` and the stream reach.
    pub fn pull(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, ZlibError> {
        self.stream.call_inflate(input, output, false)
    }

    /// As [`Self::pull`], but stops behind the stream's header and behind each block.
    pub fn pull_block(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, ZlibError> {
        self.stream.call_inflate(input, output, true)
    }
}

/// The version of zlib that is built in.
pub fn version() -> &'static str {
    stream::version()
}

/// True when a server with this zlib (its `version_compile_zlib`) compresses pages to the bytes that ours does.
///
/// From 1.2.11 on only the limit on symbols of one block changed, which no page reaches, and builds of other authors
/// name themselves behind the number ("1.3.1.zlib-ng").
pub fn makes_same_bytes(server: &str) -> bool {
    let numbers: Option<Vec<u32>> = server.trim().split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1, 2, patch, rest @ ..]) => *patch >= 11 && rest.len() <= 1,
        Some([1, 3, rest @ ..]) => rest.len() <= 2,
        _ => false,
    }
}
