//! Reading and writing past the page cache.
//!
//! ```text
//!   pieces ─copy─► aligned buffer ─full─► O_DIRECT          whole blocks at block boundaries
//!                                  └────► plain write       the crumbs at the ends, or all of it where
//!                                                           the file system knows no direct I/O
//! ```
//! What a backup moves is moved once: in the cache it would only drive out what the server needs. And direct writes
//! reach the disk while the next bytes are made, not when the file is synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Advice, MmapMut};
use rustix::fs::OFlags;

/// Alignment of direct I/O: that of the strictest disks in use.
pub const ALIGNMENT: usize = 4096;

/// Size of a huge page on nearly all systems.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a buffer for [`DirectFile::write_at`]: large enough for any disk to reach its full speed.
pub const WRITE_BYTES: usize = 2 << 20;

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

/// Memory whose start is aligned for direct I/O. Large ones lie in huge pages where the system has some: one request to
/// a disk holds some hundred pieces of memory at most, so that it carries 4 MiB of huge pages, but 1 MiB of others.
#[derive(Debug)]
pub struct AlignedBuffer {
    memory: Memory,
    start: usize,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Huge(MmapMut),
    Heap(Vec<u8>),
}

impl AlignedBuffer {
    /// A buffer of `len` bytes, all zero.
    pub fn new(len: usize) -> Self {
        let (memory, alignment) = match huge_pages(len) {
            Some(memory) => (Memory::Huge(memory), HUGE_PAGE),
            None => (Memory::Heap(vec![0; len + ALIGNMENT]), ALIGNMENT),
        };
        let mut buffer = Self { memory, start: 0, len };
        buffer.start = buffer.memory().as_ptr().align_offset(alignment).min(alignment);
        buffer
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory().get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.start + self.len;
        let memory: &mut [u8] = match &mut self.memory {
            Memory::Huge(memory) => memory,
            Memory::Heap(memory) => memory,
        };
        memory.get_mut(range).unwrap_or_default()
    }

    fn memory(&self) -> &[u8] {
        match &self.memory {
            Memory::Huge(memory) => memory,
            Memory::Heap(memory) => memory,
        }
    }
}

/// Memory that holds `len` bytes from the start of a huge page on; what is not touched of it is never given. `None` for
/// little, and where there is no such memory: then any will do.
fn huge_pages(len: usize) -> Option<MmapMut> {
    if len < HUGE_PAGE {
        return None;
    }
    let memory = MmapMut::map_anon(len + HUGE_PAGE).ok()?;
    memory.advise(Advice::HugePage).ok()?;
    Some(memory)
}

/// A file that is written in large pieces, past the page cache where that can be.
#[derive(Debug)]
pub struct DirectFile {
    direct: Option<File>,
    /// It was told so only by the first write that its file system does not know direct I/O.
    refused: AtomicBool,
    plain: File,
}

impl DirectFile {
    /// Creates the file. It must not exist yet.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        let plain = OpenOptions::new().write(true).create_new(true).open(path)?;
        let direct = open_direct(OpenOptions::new().write(true), path)?;
        Ok(Self { direct, refused: AtomicBool::new(false), plain })
    }

    /// Opens a file that is there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().write(true).clone();
        let direct = open_direct(&options, path)?;
        Ok(Self { direct, refused: AtomicBool::new(false), plain: options.open(path)? })
    }

    /// Writes these pieces, one behind the other, from `offset` on. `buffer` is memory to work with, of whole blocks.
    pub fn write_at<'a>(
        &self,
        buffer: &mut AlignedBuffer,
        pieces: impl Iterator<Item = &'a [u8]>,
        offset: u64,
    ) -> io::Result<()> {
        let (mut at, mut filled) = (offset, 0);
        for mut piece in pieces {
            while !piece.is_empty() {
                let room = buffer.bytes_mut().get_mut(filled..).unwrap_or_default();
                if room.is_empty() {
                    self.write_out(buffer.bytes(), at)?;
                    at += u64::try_from(filled).unwrap_or(0);
                    filled = 0;
                    continue;
                }
                let (now, later) = piece.split_at(piece.len().min(room.len()));
                room.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
                filled += now.len();
                piece = later;
            }
        }
        self.write_out(buffer.bytes().get(..filled).unwrap_or_default(), at)
    }

    /// Writes aligned bytes: whole blocks directly, if they begin at a block's boundary.
    fn write_out(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let is_aligned = at.is_multiple_of(u64::try_from(ALIGNMENT).unwrap_or(1));
        let blocks = if is_aligned { bytes.len() - bytes.len() % ALIGNMENT } else { 0 };
        let (whole, rest) = bytes.split_at(blocks);
        let direct = self.direct.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed));
        if let Some(direct) = direct.filter(|_| !whole.is_empty()) {
            match direct.write_all_at(whole, at) {
                Ok(()) if rest.is_empty() => return Ok(()),
                Ok(()) => return self.plain.write_all_at(rest, at + u64::try_from(blocks).unwrap_or(0)),
                Err(error) if is_unsupported(&error) => self.refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        self.plain.write_all_at(bytes, at)
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
        for (len, alignment) in [(100, ALIGNMENT), (HUGE_PAGE - 1, ALIGNMENT), (3 * HUGE_PAGE + 1, HUGE_PAGE)] {
            let mut buffer = AlignedBuffer::new(len);
            assert_eq!(buffer.bytes().as_ptr().align_offset(alignment), 0, "{len}");
            assert_eq!(buffer.bytes().len(), len);
            assert!(buffer.bytes().iter().all(|byte| *byte == 0), "{len}");
            buffer.bytes_mut().fill(7);
            assert!(buffer.bytes().iter().all(|byte| *byte == 7), "{len}");
        }
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
                let mut buffer = AlignedBuffer::new(WRITE_BYTES);
                if !direct {
                    file.direct = None;
                }
                for (index, from) in cuts.into_iter().enumerate().rev() {
                    let to = cuts.get(index + 1).copied().unwrap_or(content.len());
                    let pieces = content[from..to].chunks(100_001);
                    file.write_at(&mut buffer, pieces, u64::try_from(from).unwrap()).unwrap();
                }
                file.sync().unwrap();
                assert!(std::fs::read(&path).unwrap() == content, "{name}, direct: {direct}");
            }
        }
    }

    #[test]
    fn a_new_file_replaces_none_and_an_old_one_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"first").unwrap();
        assert_eq!(DirectFile::create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut buffer = AlignedBuffer::new(ALIGNMENT);
        DirectFile::open(&path).unwrap().write_at(&mut buffer, [&b"FI"[..]].into_iter(), 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"FIrst");
    }
}
