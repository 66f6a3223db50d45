//! A stream of zlib in C: where it lives, and the calls into it.
//!
//! ```text
//!   Box<z_stream> ── state ──► zlib's own memory, which points back: so the box never moves
//!        └─ in/out pointers: set at the start of each call, cleared at its end
//! ```

use std::ffi::{CStr, c_int, c_uint};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;

use libz_sys as z;

use super::{Flush, Progress, ZlibError};

/// What calls return that did something.
pub(super) const OK: c_int = z::Z_OK;
/// The largest memory level.
const MEMORY: c_int = 9;

/// Of the stream, which zlib compares with what it was built with.
fn struct_size() -> c_int {
    c_int::try_from(size_of::<z::z_stream>()).unwrap_or_default()
}

enum Kind {
    Deflate,
    Inflate,
}

/// An open stream.
pub(super) struct Stream {
    inner: Box<z::z_stream>,
    kind: Kind,
    ended: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

// SAFETY: zlib keeps no thread's own data: a stream is plain memory that one owner uses at a time (`&mut self`).
unsafe impl Send for Stream {}

impl Stream {
    pub(super) fn deflate(level: u8, bits: u8) -> Result<Self, ZlibError> {
        let (level, bits) = (c_int::from(level), c_int::from(bits));
        Self::begin(Kind::Deflate, |stream| {
            let (method, strategy) = (z::Z_DEFLATED, z::Z_DEFAULT_STRATEGY);
            // SAFETY: `begin` gives a stream of zeros, as zlib wants it; the version is the library's own.
            unsafe { z::deflateInit2_(stream, level, method, bits, MEMORY, strategy, z::zlibVersion(), struct_size()) }
        })
    }

    pub(super) fn inflate(bits: u8) -> Result<Self, ZlibError> {
        Self::begin(Kind::Inflate, |stream| {
            // SAFETY: `begin` gives a stream of zeros, as zlib wants it; the version is the library's own.
            unsafe { z::inflateInit2_(stream, c_int::from(bits), z::zlibVersion(), struct_size()) }
        })
    }

    fn begin(kind: Kind, run: impl FnOnce(*mut z::z_stream) -> c_int) -> Result<Self, ZlibError> {
        let mut zeros: Box<MaybeUninit<z::z_stream>> = Box::new(MaybeUninit::zeroed());
        let code = run(zeros.as_mut_ptr());
        if code != z::Z_OK {
            return Err(ZlibError::Begin { code });
        }
        // SAFETY: all its fields may be zero but the two functions of the allocator, and those zlib has just set.
        let inner = unsafe { zeros.assume_init() };
        Ok(Self { inner, kind, ended: false })
    }

    pub(super) fn call_deflate(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        flush: Flush,
    ) -> Result<(c_int, Progress), ZlibError> {
        let mode = match flush {
            Flush::Gather => z::Z_NO_FLUSH,
            Flush::Full => z::Z_FULL_FLUSH,
            Flush::Finish => z::Z_FINISH,
        };
        self.call(input, output, |stream| {
            // SAFETY: `stream` was begun for compression, and `call` gave it buffers that live until it returns.
            unsafe { z::deflate(stream, mode) }
        })
    }

    pub(super) fn call_inflate(&mut self, input: &[u8], output: &mut [u8], block: bool) -> Result<Progress, ZlibError> {
        let mode = if block { z::Z_BLOCK } else { z::Z_SYNC_FLUSH };
        let (code, progress) = self.call(input, output, |stream| {
            // SAFETY: `stream` was begun for decompression, and `call` gave it buffers that live until it returns.
            unsafe { z::inflate(stream, mode) }
        })?;
        // Without room or bytes zlib can do nothing, which is no damage.
        if matches!(code, z::Z_OK | z::Z_STREAM_END | z::Z_BUF_ERROR) {
            Ok(progress)
        } else {
            Err(ZlibError::Damaged { code })
        }
    }

    /// Runs one call with these buffers. zlib forgets them afterwards.
    fn call(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        run: impl FnOnce(*mut z::z_stream) -> c_int,
    ) -> Result<(c_int, Progress), ZlibError> {
        let (avail_in, avail_out) = (count(input.len())?, count(output.len())?);
        // zlib reads from `next_in` only, though its type says otherwise.
        self.inner.next_in = input.as_ptr().cast_mut();
        self.inner.avail_in = avail_in;
        self.inner.next_out = output.as_mut_ptr();
        self.inner.avail_out = avail_out;
        let code = run(&raw mut *self.inner);
        self.ended |= code == z::Z_STREAM_END;
        let left = |before: usize, left: c_uint| usize::try_from(left).map_or(0, |left| before.saturating_sub(left));
        let progress = Progress {
            consumed: left(input.len(), self.inner.avail_in),
            produced: left(output.len(), self.inner.avail_out),
            ended: self.ended,
        };
        self.inner.next_in = ptr::null_mut();
        self.inner.next_out = ptr::null_mut();
        (self.inner.avail_in, self.inner.avail_out) = (0, 0);
        Ok((code, progress))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let stream = &raw mut *self.inner;
        // SAFETY: the stream was begun with this kind, and nobody uses it any more.
        unsafe {
            match self.kind {
                Kind::Deflate => z::deflateEnd(stream),
                Kind::Inflate => z::inflateEnd(stream),
            };
        }
    }
}

fn count(len: usize) -> Result<c_uint, ZlibError> {
    c_uint::try_from(len).map_err(|_| ZlibError::TooLong { len })
}

pub(super) fn version() -> &'static str {
    // SAFETY: zlib gives a constant text that ends with zero and lives as long as the program.
    unsafe { CStr::from_ptr(z::zlibVersion()) }.to_str().unwrap_or_default()
}
