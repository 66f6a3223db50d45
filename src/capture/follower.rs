//! The redo follower: a thread of its own that captures log blocks as the server writes them.
//!
//! ```text
//!   #ib_redo7  ▓▓▓▓▓▓▓▓▓▓▓▓│▓░       full blocks are taken; the partial one at the end is read again
//!   #ib_redo8                        opened by LSN, never by number alone
//!        every read: header again ─ recycled? ─► RedoOverwritten
//!
//!   segment 1 │ segment 2 │ …        closed ones wait in a queue for whoever stores them, the most of them in the spool
//!   finish_at(L):   the block of L is cut to end exactly at L; nothing after it is kept
//! ```
//! It never waits for anything but the server: not for the store, not for a lock. (MySQL 9.7; redo-log reference,
//! sections 5, 6 and 12; hot-backup-protocol reference, trap T1.)

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::CaptureError;
use super::redo_dir::{Discovered, RedoFile, discover, find_encryption_block, find_file, refuse_disabled};
use super::segment::{Closed, Filling, Queue, RedoSegment, SegmentBlocks};
use super::spool::Spool;
use crate::innodb::FormatError;
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
use crate::innodb::redo::block::{BLOCK_LEN, BlockRead, cut_block, decode_block};
use crate::innodb::redo::file::encryption_info;
use crate::innodb::space::TablespaceKey;

/// Bytes of one read at most.
const READ_BYTES: usize = 512 << 10;
/// Bytes of the first read after a wait.
const LEAST_READ_BYTES: usize = 32 << 10;
/// Wait between reads when there is nothing new.
const POLL: Duration = Duration::from_millis(10);
/// How long a bad block may stay bad before it is no torn read any more.
const TORN_PATIENCE: Duration = Duration::from_secs(10);

/// How to follow.
#[derive(Debug)]
pub struct FollowOptions {
    /// The server's `#innodb_redo`.
    pub redo_dir: PathBuf,
    /// Where blocks are kept that wait for long.
    pub spool: Arc<Spool>,
    /// Bytes of segments that may wait in memory; [`MEMORY_BYTES`](super::segment::MEMORY_BYTES).
    pub memory_bytes: usize,
    /// Keys, where the log may be encrypted.
    pub keyring: Option<Arc<Keyring>>,
}

/// What was captured, but for the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedRedo {
    /// Where recovery starts.
    pub checkpoint: Lsn,
    /// Where the log was cut.
    pub end: Lsn,
    /// Uuid of the log.
    pub log_uuid: u32,
    /// Who wrote it.
    pub creator: String,
    /// The encryption block of its files' headers, where the log is encrypted.
    pub encryption_block: Option<Vec<u8>>,
}

/// No block's LSN: the end is being asked for.
const HOLD: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    /// Everything before this LSN is captured.
    position: AtomicU64,
    /// The longest piece of the log that was read in one go since somebody asked.
    behind: AtomicU64,
    /// Where to end; 0 while that is not known, `HOLD` when it is about to be.
    target: AtomicU64,
    queue: Mutex<Queue>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    key: Option<TablespaceKey>,
    outcome: Option<Result<CapturedRedo, CaptureError>>,
    ended: bool,
}

impl Shared {
    fn new(position: Lsn, memory_bytes: usize) -> Self {
        Self {
            position: AtomicU64::new(position.get()),
            behind: AtomicU64::new(0),
            target: AtomicU64::new(0),
            queue: Mutex::new(Queue::new(memory_bytes)),
            state: Mutex::new(State { key: None, outcome: None, ended: false }),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue, unless somebody is at it: that may be a thread of the idle class, which the follower never waits for.
    fn queue_if_free(&self) -> Option<MutexGuard<'_, Queue>> {
        match self.queue.try_lock() {
            Ok(queue) => Some(queue),
            Err(TryLockError::Poisoned(queue)) => Some(queue.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running follower. Dropping it ends its thread.
#[derive(Debug)]
pub struct RedoFollower {
    shared: Arc<Shared>,
    checkpoint: Lsn,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl RedoFollower {
    /// Finds the newest checkpoint and follows the log from there.
    pub fn start(options: FollowOptions, cancel: &CancellationToken) -> Result<Self, CaptureError> {
        let found = discover(&options.redo_dir)?;
        let checkpoint = found.checkpoint;
        let shared = Arc::new(Shared::new(checkpoint.block_start(), options.memory_bytes));
        let stop = cancel.child_token();
        let follow = Follow::new(options, found, Arc::clone(&shared), stop.clone())?;
        let thread = std::thread::Builder::new()
            .name("redo-follower".into())
            .spawn(move || follow.run())
            .map_err(CaptureError::io("start the thread of", std::path::Path::new("redo-follower")))?;
        Ok(Self { shared, checkpoint, stop, thread: Some(thread) })
    }

    /// The checkpoint that the capture started from.
    pub fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// The key of the log, once a part of it that is encrypted was met and the keyring opened it.
    pub fn key(&self) -> Option<TablespaceKey> {
        self.shared.state().key.clone()
    }

    /// Everything before this LSN is captured.
    pub fn position(&self) -> Lsn {
        Lsn::new(self.shared.position.load(Ordering::Acquire))
    }

    /// How far it had fallen behind the server at most since this was last asked: the longest piece of the log that it
    /// read in one go, without once coming to the end. Whoever only looks now and then sees by this a pause that is
    /// made up for already. The way from the checkpoint to the log's end is no such pause.
    pub fn take_behind(&self) -> u64 {
        self.shared.behind.swap(0, Ordering::AcqRel)
    }

    /// The oldest closed segment that nobody has taken.
    pub fn take_segment(&self) -> Option<RedoSegment> {
        self.shared.queue().pop()
    }

    /// Bytes of segments that nobody has taken.
    pub fn waiting_bytes(&self) -> u64 {
        self.shared.queue().bytes()
    }

    /// Takes the memory of a segment that is stored.
    pub fn give_back(&self, blocks: SegmentBlocks) {
        self.shared.queue().give_back(blocks);
    }

    /// True when the follower has ended and every segment was taken.
    pub fn is_drained(&self) -> bool {
        // In this order: nothing is added once it has ended.
        self.has_ended() && self.shared.queue().is_empty()
    }

    /// True when the follower has ended, well or not.
    pub fn has_ended(&self) -> bool {
        self.shared.state().ended
    }

    /// Captures nothing more until [`Self::finish_at`] says where to end. Called just before the server is asked for that
    /// LSN: without it a busy server's log may be captured past the answer by the time it is here. What was captured
    /// so far was in the log before, so it ends at or before any LSN that the server names from now on.
    pub fn hold(&self) {
        self.shared.target.store(HOLD, Ordering::Release);
    }

    /// Ends the capture exactly at `lsn`, which must be flushed or about to be; waits at most `patience` for it.
    pub fn finish_at(&self, lsn: Lsn, patience: Duration) -> Result<CapturedRedo, CaptureError> {
        self.shared.target.store(lsn.get(), Ordering::Release);
        let start = Instant::now();
        loop {
            if let Some(outcome) = self.take_outcome() {
                return outcome;
            }
            if self.stop.is_cancelled() {
                return Err(CaptureError::Cancelled);
            }
            if start.elapsed() > patience {
                let (position, seconds) = (self.position(), patience.as_secs());
                return Err(CaptureError::RedoStalled { wanted: lsn, position, seconds });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How it ended, once.
    pub fn take_outcome(&self) -> Option<Result<CapturedRedo, CaptureError>> {
        self.shared.state().outcome.take()
    }
}

impl Drop for RedoFollower {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Follow {
    options: FollowOptions,
    shared: Arc<Shared>,
    stop: CancellationToken,
    checkpoint: Lsn,
    log_uuid: u32,
    creator: String,
    encryption_block: Option<Vec<u8>>,
    key: Option<TablespaceKey>,
    file: RedoFile,
    /// The next block.
    at: Lsn,
    filling: Option<Filling>,
    /// Closed, and not in the queue yet.
    closed: VecDeque<Closed>,
    /// Memory for the next segment.
    spare: Option<Vec<u8>>,
    torn_since: Option<Instant>,
    read_bytes: usize,
    /// Where it last came to the log's end.
    caught_up: Option<Lsn>,
}

/// What a look at the log gave.
enum Progress {
    Moved,
    Waiting,
    Done(Lsn),
}

impl Follow {
    fn new(
        options: FollowOptions,
        found: Discovered,
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> Result<Self, CaptureError> {
        let Discovered { checkpoint, file } = found;
        let mut follow = Self {
            options,
            shared,
            stop,
            checkpoint,
            log_uuid: file.header.log_uuid,
            creator: file.header.creator.clone(),
            encryption_block: None,
            key: None,
            at: checkpoint.block_start(),
            file,
            filling: None,
            closed: VecDeque::new(),
            spare: None,
            torn_since: None,
            read_bytes: LEAST_READ_BYTES,
            caught_up: None,
        };
        follow.load_key()?;
        Ok(follow)
    }

    fn run(mut self) {
        let outcome = self.follow();
        let mut state = self.shared.state();
        state.outcome = Some(outcome);
        state.ended = true;
    }

    fn follow(&mut self) -> Result<CapturedRedo, CaptureError> {
        loop {
            if self.stop.is_cancelled() {
                return Err(CaptureError::Cancelled);
            }
            match self.step()? {
                Progress::Moved => {}
                Progress::Waiting => {
                    let go = self.caught_up.replace(self.at).map_or(0, |from| self.at.saturating_since(from));
                    self.shared.behind.fetch_max(go, Ordering::AcqRel);
                    std::thread::sleep(POLL);
                }
                Progress::Done(end) => {
                    self.close_segment(end)?;
                    self.closed.drain(..).for_each(|closed| self.shared.queue().push(closed));
                    return Ok(CapturedRedo {
                        checkpoint: self.checkpoint,
                        end,
                        log_uuid: self.log_uuid,
                        creator: self.creator.clone(),
                        encryption_block: self.encryption_block.clone(),
                    });
                }
            }
        }
    }

    /// Reads what there is at the present place.
    fn step(&mut self) -> Result<Progress, CaptureError> {
        self.hand_over();
        let end_of_file = self.file.end_lsn()?;
        if self.at >= end_of_file {
            return self.next_file();
        }
        let mut filling = if let Some(filling) = self.filling.take() {
            filling
        } else {
            let spare = self.spare.take();
            let spare = spare.or_else(|| self.shared.queue_if_free().and_then(|mut queue| queue.take_spare()));
            Filling::new(self.at, spare)
        };
        let left = usize::try_from(end_of_file.saturating_since(self.at)).unwrap_or(usize::MAX);
        let target = filling.room(self.read_bytes.min(left));
        let wanted = target.len();
        let count = self.file.read_blocks(self.at, target)?;
        // Whether these bytes are this file's can only be said after they were read: it may have been recycled.
        self.check_header()?;
        let (taken, done) = self.take_blocks(target.get_mut(..count).unwrap_or_default())?;
        filling.take(taken);
        let full = filling.is_full();
        self.filling = Some(filling);
        self.shared.position.store(self.at.get(), Ordering::Release);
        if let Some(end) = done {
            return Ok(Progress::Done(end));
        }
        if full {
            self.close_segment(self.at)?;
        }
        // More and more while all of it is new: what is read behind the log's end is read for nothing.
        let all_new = taken > 0 && taken == wanted;
        self.read_bytes = if all_new { (self.read_bytes * 2).min(READ_BYTES) } else { LEAST_READ_BYTES };
        // Where the end was seen, the server gets time to write what is worth a read.
        Ok(if all_new { Progress::Moved } else { Progress::Waiting })
    }

    /// Takes what there is to take of some blocks: says how many bytes, and where the capture ends if it does.
    fn take_blocks(&mut self, blocks: &mut [u8]) -> Result<(usize, Option<Lsn>), CaptureError> {
        let mut taken = 0;
        for raw in blocks.chunks_exact_mut(BLOCK_LEN) {
            match self.take_block(raw)? {
                Progress::Moved => taken += BLOCK_LEN,
                Progress::Waiting => break,
                Progress::Done(end) => return Ok((taken + BLOCK_LEN, Some(end))),
            }
        }
        Ok((taken, None))
    }

    /// Looks at the block at the present place, and goes on behind it where it is to be taken.
    fn take_block(&mut self, raw: &mut [u8]) -> Result<Progress, CaptureError> {
        let target = match self.shared.target.load(Ordering::Acquire) {
            HOLD => return Ok(Progress::Waiting),
            lsn => Lsn::new(lsn),
        };
        let block = match decode_block(raw, self.at, self.key.as_ref()) {
            Ok(BlockRead::Valid(block)) => block,
            Ok(BlockRead::NotWritten) => return Ok(Progress::Waiting),
            Ok(BlockRead::Overwritten { found }) => {
                return Err(CaptureError::RedoOverwritten { wanted: self.at, found });
            }
            Err(error) => return self.torn(error),
        };
        if !block.checked {
            return self.find_key();
        }
        self.torn_since = None;
        if target != Lsn::ZERO && target.block_start() == self.at {
            if block.end() < target {
                return Ok(Progress::Waiting);
            }
            cut_block(raw, target, self.key.as_ref()).map_err(CaptureError::format(&self.file.path))?;
            self.at = self.at.checked_add(LOG_BLOCK_SIZE).unwrap_or(self.at);
            return Ok(Progress::Done(target));
        }
        if !block.is_full() {
            return Ok(Progress::Waiting);
        }
        self.at = self.at.checked_add(LOG_BLOCK_SIZE).unwrap_or(self.at);
        Ok(Progress::Moved)
    }

    fn torn(&mut self, error: FormatError) -> Result<Progress, CaptureError> {
        let since = *self.torn_since.get_or_insert_with(Instant::now);
        if since.elapsed() > TORN_PATIENCE {
            return Err(CaptureError::format(&self.file.path)(error));
        }
        Ok(Progress::Waiting)
    }

    fn close_segment(&mut self, end: Lsn) -> Result<(), CaptureError> {
        let Some(filling) = self.filling.take().filter(|filling| !filling.is_empty()) else { return Ok(()) };
        // Only others take from the queue meanwhile: what has room now has room then.
        let has_room = self.closed.is_empty() && self.shared.queue_if_free().is_some_and(|queue| queue.has_room());
        let mut closed = filling.close(end, has_room, &self.options.spool)?;
        // Not kept with what waits to be handed over: however long that is, it is one segment's memory.
        self.spare = closed.take_spare().or_else(|| self.spare.take());
        self.closed.push_back(closed);
        self.hand_over();
        Ok(())
    }

    /// Puts closed segments into the queue, now or at a later step.
    fn hand_over(&mut self) {
        if self.closed.is_empty() {
            return;
        }
        if let Some(mut queue) = self.shared.queue_if_free() {
            self.closed.drain(..).for_each(|closed| queue.push(closed));
        }
    }

    /// The present file ends here: goes on in the one that holds the next LSN, if it is there already.
    fn next_file(&mut self) -> Result<Progress, CaptureError> {
        let Some(file) = find_file(&self.options.redo_dir, self.at)? else { return Ok(Progress::Waiting) };
        self.file = file;
        self.check_header()?;
        self.load_key()?;
        Ok(Progress::Moved)
    }

    /// The open file must still be the one it was, of the same log, with logging on.
    fn check_header(&mut self) -> Result<(), CaptureError> {
        let header = match self.file.current_header() {
            Ok(header) => header,
            // Being rewritten at this moment: the next look decides.
            Err(CaptureError::Format { source: FormatError::Checksum { .. }, .. }) => self.file.header.clone(),
            Err(error) => return Err(error),
        };
        if header.log_uuid != self.log_uuid {
            return Err(CaptureError::RedoReplaced { expected: self.log_uuid, found: header.log_uuid });
        }
        if header.start_lsn != self.file.header.start_lsn {
            return Err(CaptureError::RedoOverwritten { wanted: self.at, found: header.start_lsn });
        }
        self.file.header = header;
        refuse_disabled(&self.file)
    }

    /// Takes the log's key from the present file, where it has one and the keyring opens it.
    fn load_key(&mut self) -> Result<(), CaptureError> {
        match self.file.encryption_block()? {
            Some(block) => self.take_key(block),
            None => Ok(()),
        }
    }

    /// Looks for the key of a block that cannot be checked without. The log may be encrypted since a moment ago, and
    /// only the files that a checkpoint was in hold its key: any file of the log may. What cannot be checked is never
    /// captured: one torn block would end recovery there, silently.
    fn find_key(&mut self) -> Result<Progress, CaptureError> {
        let missing = FormatError::KeyMissing { key_id: "of the redo log".into() };
        if self.options.keyring.is_none() {
            return Err(CaptureError::format(&self.file.path)(missing));
        }
        let taken = match find_encryption_block(&self.options.redo_dir)? {
            Some(block) => self.take_key(block),
            None => Ok(()),
        };
        match taken {
            Ok(()) if self.key.is_some() => Ok(Progress::Waiting),
            Ok(()) => self.torn(missing),
            Err(CaptureError::Format { source, .. }) => self.torn(source),
            Err(error) => Err(error),
        }
    }

    fn take_key(&mut self, block: Vec<u8>) -> Result<(), CaptureError> {
        let info = encryption_info(&block).map_err(CaptureError::format(&self.file.path))?;
        if let (Some(info), Some(keyring)) = (info, &self.options.keyring) {
            let key = info.unwrap_key(keyring).map_err(CaptureError::format(&self.file.path))?;
            self.shared.state().key = Some(key.clone());
            self.key = Some(key);
        }
        self.encryption_block = Some(block);
        Ok(())
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
