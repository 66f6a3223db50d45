//! Reading a live file without disturbing the server's page cache.
//!
//! ```text
//!   O_DIRECT                  the usual way: nothing enters the page cache, and what is read is what the disk has
//!   buffered + DONTNEED       where the file system refuses O_DIRECT: what was read is dropped again
//! ```
//! Direct reads need an aligned buffer, which [`AlignedBuffer`](crate::util::direct::AlignedBuffer) is, and aligned
//! offsets, which windows have.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

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
        let buffered = if direct.is_none() { Some(File::open(path)?) } else { None };
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
            None => self.buffered.insert(File::open(&self.path)?),
        };
        let count = read_full(file, buffer, offset)?;
        let length = u64::try_from(count).ok().and_then(std::num::NonZeroU64::new);
        // Advice is all it is: where it is refused, the cache stays as it became.
        let _ = fadvise(file, offset, length, Advice::DontNeed);
        Ok(count)
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset + u64::try_from(filled).unwrap_or(0);
        match file.read_at(rest, at) {
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
}
