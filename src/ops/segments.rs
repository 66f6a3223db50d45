//! Stored redo, segment by segment in the order of the log, fetched ahead by some threads.
//!
//! ```text
//!   thread 1   segment 1 ──fetch, decrypt, decompress──► │ segment 4 …
//!   thread 2   segment 2 ──────────────────────────────► │ segment 5 …     each hands over one and begins the next
//!   thread 3   segment 3 ──────────────────────────────► │ segment 6 …
//!                                                        └─► each(1), each(2), each(3), each(4), …
//! ```
//! So a store that takes its time to answer is waited for once, not once for each segment. Whether the segments join, and
//! what is in them, is the caller's to look at.

use std::num::NonZeroUsize;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::archive::{ArchiveError, ArchiveReader, RedoRef};

use super::error::Error;

/// Segments that are fetched at a time for each thread that pages are given elsewhere: they take no more memory than that
/// thread does.
const AHEAD: usize = 2;

/// The log blocks of a segment, or why there are none.
pub type Blocks = Result<Bytes, ArchiveError>;

/// Hands out the log blocks of every segment, or why there are none. An error of `each` ends it and comes back.
pub fn each_segment(
    reader: &ArchiveReader,
    threads: NonZeroUsize,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(&RedoRef, Blocks) -> Result<(), Error>,
) -> Result<(), Error> {
    let segments = reader.redo_segments();
    let lanes = threads.get().saturating_mul(AHEAD).min(segments.len());
    std::thread::scope(|scope| {
        // A thread ends when it has no more segments, or when its receiver is dropped, as they all are at the end of this.
        let lanes: Vec<_> = (0..lanes)
            .map(|lane| {
                let (hand_over, fetched) = sync_channel(0);
                let _ = scope.spawn(move || {
                    for segment in segments.iter().skip(lane).step_by(lanes) {
                        if hand_over.send(reader.read_redo(segment)).is_err() {
                            break;
                        }
                    }
                });
                fetched
            })
            .collect();
        for (segment, lane) in segments.iter().zip(lanes.iter().cycle()) {
            if cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            // A thread that panicked makes the scope panic.
            let Ok(blocks) = lane.recv() else { break };
            each(segment, blocks)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
    use crate::ops::error::ErrorKind;
    use crate::ops::handmade::{REDO, archive, block, page};

    /// Eight segments.
    fn blocks() -> Vec<Vec<u8>> {
        (0..14).map(|index| block(index, 496)).chain([block(14, 100)]).collect()
    }

    #[test]
    fn segments_come_in_order_by_any_number_of_threads() {
        let (stored, _) = archive(&[page(0)], &blocks());
        let reader = stored.open(&[]).unwrap();
        for threads in 1..6 {
            let (mut all, mut starts) = (Vec::new(), Vec::new());
            let threads = NonZeroUsize::new(threads).unwrap();
            each_segment(&reader, threads, &CancellationToken::new(), &mut |segment, blocks| {
                starts.push(segment.start);
                all.extend_from_slice(&blocks?);
                Ok(())
            })
            .unwrap();
            assert_eq!(starts, (0..8).map(|number| Lsn::new(REDO + number * 2 * LOG_BLOCK_SIZE)).collect::<Vec<_>>());
            assert!(all == blocks().concat());
        }
    }

    #[test]
    fn an_error_ends_it_and_so_does_whoever_cancels() {
        let (stored, _) = archive(&[page(0)], &blocks());
        let reader = stored.open(&[]).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let cancel = CancellationToken::new();
        let mut seen = 0;
        let error = each_segment(&reader, threads, &cancel, &mut |_, _| {
            seen += 1;
            if seen == 3 { Err(Error::new(ErrorKind::DamagedBackup, "the third")) } else { Ok(()) }
        })
        .unwrap_err();
        assert_eq!((seen, error.message.as_str()), (3, "the third"));

        let mut seen = 0;
        let error = each_segment(&reader, threads, &cancel, &mut |_, _| {
            seen += 1;
            cancel.cancel();
            Ok(())
        })
        .unwrap_err();
        assert_eq!((seen, error.kind), (1, ErrorKind::Cancelled));
    }
}
