//! Reading and writing past the page cache.
//!
//! ```text
//!   pieces ─copy─► aligned buffer ─full─► O_DIRECT          whole blocks at block boundaries
//!                                  └────► plain write       the crumbs at the ends, or all of it where
//!                                                           the file system knows no direct I/O
//! ```
//! What a backup moves is moved once: in the cache it would only drive out what the server needs. And a large file
//! written through the cache is written out at its sync, all at once, with every other file's sync waiting behind it
//! (ext4's journal), the server's commits included; direct writes reach the disk while the next bytes are made.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Alignment of direct I/O: that of the strictest disks in use.
pub const ALIGNMENT: usize = 4096;

/// Bytes of one direct write: large enough for any disk to reach its full speed.
const WRITE_BYTES: usize = 2 << 20;

/// Opens a file for direct I/O; `None` where its file system does not offer that.
pub fn open_direct(options: &OpenOptions, path: &Path) -> io::Result<Option<File>> {
    let flag = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
    match options.clone().custom_flags(flag).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether direct I/O was refused for what it is. Some file systems say so only at the first read or write.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Memory whose start is aligned for direct I/O.
#[derive(Debug)]
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// A buffer of `len` bytes.
    pub fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, len }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// A new file that is written in large pieces, past the page cache where that can be.
#[derive(Debug)]
pub struct DirectFile {
    direct: Option<File>,
    plain: File,
    buffer: AlignedBuffer,
}

impl DirectFile {
    /// Creates the file. It must not exist yet.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        let plain = OpenOptions::new().write(true).create_new(true).open(path)?;
        let direct = open_direct(OpenOptions::new().write(true), path)?;
        Ok(Self { direct, plain, buffer: AlignedBuffer::new(WRITE_BYTES) })
    }

    /// Writes these pieces, one behind the other, from `offset` on.
    pub fn write_at<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, offset: u64) -> io::Result<()> {
        let (mut at, mut filled) = (offset, 0);
        for mut piece in pieces {
            while !piece.is_empty() {
                let room = self.buffer.bytes_mut().get_mut(filled..).unwrap_or_default();
                let (now, later) = piece.split_at(piece.len().min(room.len()));
                room.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
                filled += now.len();
                piece = later;
                if filled == WRITE_BYTES {
                    self.flush(filled, at)?;
                    at += u64::try_from(filled).unwrap_or(0);
                    filled = 0;
                }
            }
        }
        self.flush(filled, at)
    }

    /// Writes what the buffer holds.
    fn flush(&mut self, filled: usize, at: u64) -> io::Result<()> {
        let bytes = self.buffer.bytes().get(..filled).unwrap_or_default();
        let is_aligned = at.is_multiple_of(u64::try_from(ALIGNMENT).unwrap_or(1));
        let blocks = if is_aligned { filled - filled % ALIGNMENT } else { 0 };
        let (whole, mut rest) = bytes.split_at(blocks);
        let mut rest_at = at + u64::try_from(blocks).unwrap_or(0);
        match self.direct.as_ref().filter(|_| !whole.is_empty()).map(|file| file.write_all_at(whole, at)) {
            Some(Ok(())) => {}
            Some(Err(error)) if !is_unsupported(&error) => return Err(error),
            refused => {
                if refused.is_some() {
                    self.direct = None;
                }
                (rest, rest_at) = (bytes, at);
            }
        }
        if rest.is_empty() { Ok(()) } else { self.plain.write_all_at(rest, rest_at) }
    }

    /// Makes all that was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.plain.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn a_buffer_is_aligned() {
        let buffer = AlignedBuffer::new(100);
        assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(buffer.bytes().len(), 100);
    }

    #[test]
    fn pieces_of_any_size_arrive_at_any_offset_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let content = pattern(3 * WRITE_BYTES + 5000);
        for (name, cuts) in [("aligned", [0, WRITE_BYTES, 2 * WRITE_BYTES + 4096]), ("odd", [0, 777, WRITE_BYTES + 1])]
        {
            for direct in [true, false] {
                let path = dir.path().join(format!("{name}-{direct}"));
                let mut file = DirectFile::create_new(&path).unwrap();
                if !direct {
                    file.direct = None;
                }
                for (index, from) in cuts.into_iter().enumerate().rev() {
                    let to = cuts.get(index + 1).copied().unwrap_or(content.len());
                    file.write_at(content[from..to].chunks(100_001), u64::try_from(from).unwrap()).unwrap();
                }
                file.sync().unwrap();
                assert!(std::fs::read(&path).unwrap() == content, "{name}, direct: {direct}");
            }
        }
    }

    #[test]
    fn a_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"first").unwrap();
        assert_eq!(DirectFile::create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
