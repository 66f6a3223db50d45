//! The uploader: stores captured redo, segment by segment, and decodes all of it on the way.
//!
//! ```text
//!   segments ─► every record decoded: one of an unknown kind ends the backup ─► archive ─► store
//!
//!   polite, little waits    on a thread of the idle class
//!   polite, much waits      on one of normal priority, until nothing waits any more
//! ```
//! Decoding and compressing is nearly all of what the capture costs, and can wait as long as there is room. That it is
//! never put off until there is none, is this module's business.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::archive::ArchiveWriter;
use crate::capture::RedoFollower;
use crate::innodb::redo::SpacesNamed;
use crate::ops::error::{Error, ErrorKind};
use crate::util::priority::{give_way, step_back};

/// How often it asks for a closed segment.
const SEGMENT_POLL: Duration = Duration::from_millis(20);
/// The most that waits before the uploader stops to give way; an eighth of a small spool.
const MUCH_BYTES: u64 = 64 << 20;

/// Room in the spool for all that may pile up while a thread of the idle class gets no time to end one segment.
const ROOMY_BYTES: u64 = 1 << 30;

/// What it works with.
pub struct Uploader {
    /// Where segments come from.
    pub follower: Arc<RedoFollower>,
    /// Where they go.
    pub writer: Arc<ArchiveWriter>,
    /// Bytes that there is room for in the spool.
    pub spool_bytes: u64,
    /// Give way to the server while little waits.
    pub polite: bool,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Uploader {
    /// Stores closed segments in order until the follower has ended; returns their bytes.
    pub fn run(&self) -> Result<u64, Error> {
        // Every record is decoded, so that one of an unknown kind ends the backup and not, one day, its restore.
        let mut work = Work { names: SpacesNamed::new(self.follower.checkpoint(), None), bytes: 0 };
        let mut gives_way = self.polite;
        loop {
            // A thread that gave way cannot take that back: each turn has its own.
            let turn = || {
                if gives_way {
                    let lower = if self.spool_bytes >= ROOMY_BYTES { step_back } else { give_way };
                    lower();
                }
                self.turn(&mut work, gives_way)
            };
            let ended = std::thread::scope(|scope| scope.spawn(turn).join());
            match ended.map_err(|_| Error::new(ErrorKind::Failed, "the redo upload panicked"))?? {
                Turn::Drained => return Ok(work.bytes),
                Turn::Over => gives_way = !gives_way,
            }
        }
    }

    /// Stores until all is stored, or until it is time to change the priority.
    fn turn(&self, work: &mut Work, gives_way: bool) -> Result<Turn, Error> {
        loop {
            if self.stop.is_cancelled() {
                return Err(Error::cancelled());
            }
            if gives_way && self.waits_much() {
                return Ok(Turn::Over);
            }
            // Asked in this order: a segment closed between the two questions is found in the next round.
            let drained = self.follower.is_drained();
            let Some(segment) = self.follower.take_segment() else {
                if drained {
                    return Ok(Turn::Drained);
                }
                if self.polite && !gives_way {
                    return Ok(Turn::Over);
                }
                std::thread::sleep(SEGMENT_POLL);
                continue;
            };
            let (start, end) = (segment.start, segment.end);
            let blocks = segment.into_blocks()?;
            // The follower has the key of every encrypted block that it took.
            work.names.set_key(self.follower.key());
            work.names.feed(blocks.bytes())?;
            self.writer.redo_segment(start, end, Some(&work.names.take()), blocks.bytes())?;
            work.bytes = work.bytes.saturating_add(u64::try_from(blocks.bytes().len()).unwrap_or(0));
            self.follower.give_back(blocks);
        }
    }

    /// Whether there is more to do than may be put off. Once the capture has ended, somebody waits for all of it.
    fn waits_much(&self) -> bool {
        self.follower.has_ended() || self.follower.waiting_bytes() > MUCH_BYTES.min(self.spool_bytes / 8)
    }
}

/// What is carried from segment to segment.
struct Work {
    names: SpacesNamed,
    bytes: u64,
}

/// Why a turn ended.
enum Turn {
    Drained,
    Over,
}

/// Why the uploader ended, for whoever asks first: the guard, at once, or the run that waits for it.
#[derive(Debug, Default)]
pub struct UploadFailure {
    error: Mutex<Option<Error>>,
    failed: CancellationToken,
}

impl UploadFailure {
    /// Notes a failure; gives the bytes of a success.
    pub fn note(&self, outcome: Result<u64, Error>) -> Option<u64> {
        match outcome {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                self.failed.cancel();
                None
            }
        }
    }

    /// The failure, unless somebody has it already.
    pub fn take(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Resolves when redo cannot be stored: a copy that goes on would be for nothing, with the locks held.
pub async fn upload_failed(failure: Arc<UploadFailure>) -> Error {
    failure.failed.cancelled().await;
    match failure.take() {
        Some(error) => error,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::archive::Codec;
    use crate::archive::memory::MemoryStore;
    use crate::archive::tests::sample::options;
    use crate::capture::{FollowOptions, MEMORY_BYTES, Spool};
    use crate::innodb::lsn::Lsn;
    use crate::innodb::redo::block::encode_block;
    use crate::innodb::redo::file::{RedoFileHeader, RedoFlags, encode_checkpoint, file_name};
    use crate::ops::error::ErrorKind;

    const START: u64 = 8192;

    /// A redo log of one file whose first block begins with `payload`, and then has zeros.
    fn write_log(dir: &Path, payload: &[u8]) {
        let creator = "MySQL 9.7.4".to_owned();
        let header = RedoFileHeader { log_uuid: 7, start_lsn: Lsn::new(START), creator, flags: RedoFlags(0) };
        let mut bytes = header.encode().to_vec();
        bytes.extend(encode_checkpoint(Lsn::new(START + 12)));
        bytes.extend([0; 512]);
        bytes.extend(encode_checkpoint(Lsn::ZERO));
        bytes.extend(encode_block(Lsn::new(START), payload, Some(0)).unwrap());
        bytes.resize(bytes.len() + (64 << 10), 0);
        std::fs::write(dir.join(file_name(0)), bytes).unwrap();
    }

    /// Captures a log that holds just `payload`, and stores it.
    fn stored(payload: &[u8]) -> Result<u64, Error> {
        let (redo, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_log(redo.path(), payload);
        let stop = CancellationToken::new();
        let spool = Spool::create(parent.path(), 1 << 30, "t").unwrap();
        let follow =
            FollowOptions { redo_dir: redo.path().to_path_buf(), spool, memory_bytes: MEMORY_BYTES, keyring: None };
        let follower = Arc::new(RedoFollower::start(follow, &stop).unwrap());
        let end = START + 12 + u64::try_from(payload.len()).unwrap();
        follower.finish_at(Lsn::new(end), Duration::from_mins(1)).unwrap();
        let writer = ArchiveWriter::new(Arc::new(MemoryStore::default()), options(Codec::None, 1 << 20, Vec::new()));
        let writer = Arc::new(writer.unwrap());
        Uploader { follower, writer, spool_bytes: 1 << 30, polite: false, stop }.run()
    }

    #[test]
    fn a_record_of_an_unknown_kind_ends_the_backup() {
        // A byte is written to page 1 of tablespace 5, at 100: a group of one record (MLOG_1BYTE with the flag).
        const GOOD: [u8; 5] = [0x81, 5, 1, 0, 100];
        let good = [&GOOD[..], &[7], &GOOD, &[7]].concat();
        assert_eq!(stored(&good).unwrap(), 512);
        let error = stored(&[&good[..], &[0xFA, 1, 2, 3, 4]].concat()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::UnsupportedFormat, "{error}");
        let at = (START + 12 + 12).to_string();
        assert!(error.message.contains("type 122") && error.message.contains(&at), "{error}");
    }
}
