//! Whose zlib made a page's stream: a page that the redo log has compressed anew can be recovered here only where the
//! server's zlib gives the bytes that ours gives. The stream that the page has already tells.
//!
//! ```text
//!   stream ─► description, rows ─► compressed again at each level ─► the same bytes at one of them?
//! ```
//! How the server cut its input makes no difference to zlib, but for level 0, which is not compressed.

use super::decompress::window_bits;
use super::{BODY, ZipPage, invalid};
use crate::innodb::FormatError;
use crate::innodb::apply::frame::Frame;
use crate::util::zlib::{Deflater, Flush, Inflater, Progress, ZlibError};

const LEVELS: std::ops::RangeInclusive<u8> = 1..=9;
/// Bytes of a stream's header.
const STREAM_HEADER: usize = 2;
/// Bits of a block's first byte that tell how it is compressed; 0: not at all.
const BLOCK_KIND: u8 = 6;

impl ZipPage {
    /// Checks, once, that the page was compressed by a zlib that gives the bytes that ours gives. `level` is tried first.
    pub fn check_origin(&mut self, frame: &Frame, level: u8) -> Result<(), FormatError> {
        if !self.trusted && self.is_ours(frame, level)? == Some(false) {
            return Err(FormatError::Unsupported {
                what: "native recovery of",
                found: "pages that another zlib compressed, and that the redo log has compressed anew: use --recovery server"
                    .into(),
            });
        }
        self.trusted = true;
        Ok(())
    }

    /// True when our zlib gives the page's stream; none where there is no telling.
    pub fn is_ours(&self, frame: &Frame, level: u8) -> Result<Option<bool>, FormatError> {
        let Some(stream) = self.stream_end.checked_sub(BODY).filter(|len| *len > STREAM_HEADER) else {
            return Ok(None);
        };
        let stream = self.data.slice(BODY, stream)?;
        if stream.get(STREAM_HEADER).is_none_or(|block| block & BLOCK_KIND == 0) {
            return Ok(None);
        }
        let bits = window_bits(frame);
        let (description, rows) = inflate(stream, frame.size(), bits)?;
        for level in std::iter::once(level).chain(LEVELS).filter(|level| LEVELS.contains(level)) {
            if deflate(&description, &rows, stream.len(), level, bits).as_deref() == Ok(stream) {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }
}

fn inflate(stream: &[u8], most: usize, bits: u8) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
    let fault = |error: ZlibError| invalid(error.to_string());
    let mut inflater = Inflater::new(bits).map_err(fault)?;
    let (mut out, mut consumed, mut made) = (vec![0; most], 0_usize, 0_usize);
    let mut note = |progress: Progress| {
        consumed = consumed.saturating_add(progress.consumed);
        made = made.saturating_add(progress.produced);
        (stream.get(consumed..).unwrap_or_default(), made)
    };
    let (rest, _) = note(inflater.pull_block(stream, &mut []).map_err(fault)?);
    let (rest, described) = note(inflater.pull_block(rest, &mut out).map_err(fault)?);
    let last = inflater.pull(rest, out.get_mut(described..).unwrap_or_default()).map_err(fault)?;
    let (_, made) = note(last);
    if !last.ended {
        return Err(invalid("its stream does not end".into()));
    }
    out.truncate(made);
    let rows = out.split_off(described.min(made));
    Ok((out, rows))
}

fn deflate(description: &[u8], rows: &[u8], most: usize, level: u8, bits: u8) -> Result<Vec<u8>, ZlibError> {
    let mut deflater = Deflater::new(level, bits)?;
    // One more than there is, so that what is too long is seen.
    let mut out = vec![0; most.saturating_add(1)];
    let front = deflater.push(description, &mut out, Flush::Full)?;
    let back = deflater.push(rows, out.get_mut(front..).unwrap_or_default(), Flush::Finish)?;
    out.truncate(front.saturating_add(back));
    Ok(out)
}
