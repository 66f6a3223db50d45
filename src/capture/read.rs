//! Reading a live file without disturbing the server's page cache.
//!
//! ```text
//!   O_DIRECT                  the usual way: nothing enters the page cache, and what is read is what the disk has
//!   buffered + DONTNEED       where the file system refuses O_DIRECT, and files of other engines, which the server itself
//!                             has in the page cache: what it has is read from there and stays, the rest is dropped again
//! ```
//! Direct reads need an aligned buffer, which [`AlignedBuffer`](crate::util::direct::AlignedBuffer) is, and aligned
//! offsets, which windows have.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::util::direct::{ALIGNMENT, is_unsupported, open_direct};

/// A file that is read in large, aligned pieces.
#[derive(Debug)]
pub struct LiveFile {
    direct: Option<File>,
    buffered: Option<File>,
    path: std::path::PathBuf,
}

impl LiveFile {
    /// Opens `path`, directly where that is possible.
    pub fn open(path: &Path) -> io::Result<Self> {
        let direct = open_direct(File::options().read(true), path)?;
        let buffered = if direct.is_none() { Some(without_read_ahead(File::open(path)?)) } else { None };
        Ok(Self { direct, buffered, path: path.to_path_buf() })
    }

    /// Fills `buffer` from `offset` on; returns how many bytes there were before the file's end. Offset and buffer
    /// must be aligned.
    pub fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(direct) = &self.direct {
            match read_full(direct, buffer, offset) {
                Err(error) if is_unsupported(&error) => self.direct = None,
                outcome => return outcome,
            }
        }
        let file = match &self.buffered {
            Some(file) => file,
            None => self.buffered.insert(without_read_ahead(File::open(&self.path)?)),
        };
        read_to_end(buffer, offset, |rest, at| read_passing(file, rest, at))
    }
}

/// A file that is read from its beginning to its end, and leaves the page cache as it was.
#[derive(Debug)]
pub struct PassingFile {
    file: File,
    at: u64,
}

impl PassingFile {
    /// Reads an open file from its beginning.
    pub fn new(file: File) -> Self {
        Self { file: without_read_ahead(file), at: 0 }
    }
}

impl Read for PassingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = read_passing(&self.file, buffer, self.at)?;
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }
}

/// What the kernel reads ahead is in the cache before it is asked for, and would look like the server's.
fn without_read_ahead(file: File) -> File {
    let _ = fadvise(&file, 0, None, Advice::Random);
    file
}

/// Bytes that are read at a time where it is asked what the cache has.
const PASSING_BYTES: usize = 256 << 10;

/// Reads what is in the page cache from there; what is not comes from the disk and is dropped again. Says how many bytes
/// that were: fewer than asked for, mostly.
fn read_passing(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    // Pieces end where blocks do: a block that is read by halves would stay.
    let skip = usize::try_from(offset % (ALIGNMENT as u64)).unwrap_or(0);
    let piece = buffer.len().min(PASSING_BYTES - skip);
    let piece = match (skip + piece) / ALIGNMENT {
        0 => piece,
        blocks => blocks * ALIGNMENT - skip,
    };
    let buffer = buffer.get_mut(..piece).unwrap_or_default();
    // Where this cannot be asked, nothing counts as cached.
    let cached = preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT).unwrap_or(0);
    let Some(rest) = buffer.get_mut(cached..).filter(|rest| !rest.is_empty()) else { return Ok(cached) };
    // To ask was enough for the kernel to begin with the rest: it must not be asked for again, but dropped.
    let from = offset.saturating_add(u64::try_from(cached).unwrap_or(0));
    let count = file.read_at(rest, from)?;
    let block = from - from % (ALIGNMENT as u64);
    let length = (from - block).saturating_add(u64::try_from(count).unwrap_or(0));
    if let Some(length) = std::num::NonZeroU64::new(length).filter(|_| count > 0) {
        // Advice is all it is: where it is refused, the cache stays as it became.
        let _ = fadvise(file, block, Some(length), Advice::DontNeed);
    }
    Ok(cached.saturating_add(count))
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    read_to_end(buffer, offset, |rest, at| file.read_at(rest, at))
}

/// Fills a buffer by as many reads as it takes; says how many bytes there were before the file's end.
fn read_to_end(
    buffer: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset + u64::try_from(filled).unwrap_or(0);
        match read(rest, at) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                // A direct read that stops off a boundary has met the end of the file.
                if !filled.is_multiple_of(ALIGNMENT) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::direct::AlignedBuffer;

    #[test]
    fn files_are_read_to_their_end_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0_usize, 100, 4096, 10_000, 3 << 20] {
            let path = dir.path().join(len.to_string());
            let content: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            std::fs::write(&path, &content).unwrap();
            let mut buffer = AlignedBuffer::new(4 << 20);
            assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNMENT), 0);
            let count = LiveFile::open(&path).unwrap().read(buffer.bytes_mut(), 0).unwrap();
            assert_eq!(&buffer.bytes()[..count], content, "{len}");
        }
    }

    /// Bytes of a file that are in the page cache. To ask by reading would bring some.
    fn cached(path: &Path) -> usize {
        let output = std::process::Command::new("fincore").args(["-b", "-n", "-o", "RES"]).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("fincore is a part of util-linux")
    }

    #[test]
    fn the_page_cache_keeps_what_it_had_and_gets_nothing_more() {
        const BYTES: usize = 4 << 20;
        // On a real disk: what has no other place than memory is always cached.
        let built = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(built.parent().unwrap()).unwrap();
        let path = dir.path().join("t.MYD");
        let content: Vec<u8> = (0..BYTES).map(|i| u8::try_from(i % 249).unwrap()).collect();
        std::fs::write(&path, &content).unwrap();
        let look = File::open(&path).unwrap();
        look.sync_all().unwrap();
        fadvise(&look, 0, None, Advice::Random).unwrap();
        let ways: [&dyn Fn() -> Vec<u8>; 2] = [
            &|| {
                let mut read = Vec::new();
                PassingFile::new(File::open(&path).unwrap()).read_to_end(&mut read).unwrap();
                read
            },
            &|| {
                let mut buffer = AlignedBuffer::new(content.len());
                let mut file = LiveFile { direct: None, buffered: None, path: path.clone() };
                let count = file.read(buffer.bytes_mut(), 0).unwrap();
                buffer.bytes()[..count].to_vec()
            },
        ];
        for read in ways {
            fadvise(&look, 0, None, Advice::DontNeed).unwrap();
            let mut middle = vec![0; BYTES / 2];
            look.read_exact_at(&mut middle, 1 << 20).unwrap();
            assert_eq!(cached(&path), BYTES / 2);
            assert!(read() == content);
            // The first block may stay: it was asked for in two pieces.
            let after = cached(&path);
            assert!((BYTES / 2..=BYTES / 2 + ALIGNMENT).contains(&after), "{after} of {BYTES} are in the cache");
        }
    }
}
