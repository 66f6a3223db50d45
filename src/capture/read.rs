//! Reading a live file without disturbing the server's page cache.
//!
//! ```text
//!   O_DIRECT                  the usual way: nothing enters the page cache, and what is read is what the disk has
//!   buffered, uncached        where the file system refuses O_DIRECT, and files of other engines, which the server itself
//!                             has in the page cache: what it has is read from there and stays, the rest is dropped again
//! ```
//! The kernel itself does the latter from Linux 6.14 on (`RWF_DONTCACHE`). An older one is asked what it has, and told to
//! forget what it brought. On a fast disk that may be there before the answer is given, and stays.
//!
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

/// `RWF_DONTCACHE` of Linux 6.14 (include/uapi/linux/fs.h): a read that leaves nothing in the page cache that was not there.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Reads what is in the page cache from there; what is not comes from the disk and is dropped again. Says how many bytes
/// that were: fewer than asked for, mostly.
fn read_passing(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, DONTCACHE).map_err(io::Error::from) {
        Err(error) if is_unsupported(&error) => read_and_drop(file, buffer, offset),
        outcome => outcome,
    }
}

/// [`read_passing`] where kernel or file system know no such read.
fn read_and_drop(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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

    const BYTES: usize = 4 << 20;

    /// A file on a real disk, since what has no other place than memory is always cached; and its content.
    fn on_disk() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let built = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(built.parent().unwrap()).unwrap();
        let path = dir.path().join("t.MYD");
        let content: Vec<u8> = (0..BYTES).map(|i| u8::try_from(i % 249).unwrap()).collect();
        std::fs::write(&path, &content).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        (dir, path, content)
    }

    /// Leaves half of the file in the page cache, its middle.
    fn warm_the_middle(path: &Path) {
        let look = without_read_ahead(File::open(path).unwrap());
        fadvise(&look, 0, None, Advice::DontNeed).unwrap();
        look.read_exact_at(&mut vec![0; BYTES / 2], 1 << 20).unwrap();
        assert_eq!(cached(path), BYTES / 2);
    }

    /// Reads the file many times, since a disk is fast now and slow then. Says how many bytes of it were in the page cache
    /// after each: never fewer than before.
    fn left_by(ways: &[&dyn Fn() -> Vec<u8>], path: &Path, content: &[u8]) -> Vec<usize> {
        let tries = ways.iter().cycle().take(20).map(|read| {
            warm_the_middle(path);
            assert!(read() == content);
            let left = cached(path);
            assert!(left >= BYTES / 2, "only {left} bytes are left");
            left
        });
        tries.collect()
    }

    /// Without uncached reads it depends on the disk how much stays: of many tries one leaves nothing. The first block
    /// may stay, which was asked for in two pieces.
    fn assert_one_left_nothing(left: &[usize]) {
        assert!(left.iter().any(|left| *left <= BYTES / 2 + ALIGNMENT), "{left:?} of {BYTES} are in the cache");
    }

    #[test]
    fn the_page_cache_keeps_what_it_had_and_gets_nothing_more() {
        let (_dir, path, content) = on_disk();
        let passing = || {
            let mut read = Vec::new();
            PassingFile::new(File::open(&path).unwrap()).read_to_end(&mut read).unwrap();
            read
        };
        let buffered = || {
            let mut buffer = AlignedBuffer::new(content.len());
            let mut file = LiveFile { direct: None, buffered: None, path: path.clone() };
            let count = file.read(buffer.bytes_mut(), 0).unwrap();
            buffer.bytes()[..count].to_vec()
        };
        let left = left_by(&[&passing, &buffered], &path, &content);
        match preadv2(File::open(&path).unwrap(), &mut [IoSliceMut::new(&mut [0; 1])], 0, DONTCACHE) {
            Ok(_) => assert_eq!(left, [BYTES / 2; 20]),
            Err(_) => assert_one_left_nothing(&left),
        }
    }

    #[test]
    fn without_uncached_reads_it_is_dropped_after_reading() {
        let (_dir, path, content) = on_disk();
        let older = || {
            let file = without_read_ahead(File::open(&path).unwrap());
            let mut read = vec![0; BYTES];
            let count = read_to_end(&mut read, 0, |rest, at| read_and_drop(&file, rest, at)).unwrap();
            read.truncate(count);
            read
        };
        assert_one_left_nothing(&left_by(&[&older], &path, &content));
    }
}
