//! `stillframe verify`: reads a whole backup back and says what is wrong with it.
//!
//! ```text
//!   tables (file table, index, packs agree) ─┐
//!   packs, in parallel: digest ► decrypt ► decompress ► every page's checksum ─┼─► problems, by object
//!   redo: digest ► decrypt ► block after block from the checkpoint to the end ─┘
//!   deep: restored into a scratch directory ► recovered ► structure of every tablespace ─► problems, by file
//! ```
//! Goes on after a problem, so that one run names them all. Pages that the server encrypted cannot be looked into
//! without its keyring; they are counted as unverified.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::archive::PackRef;
use crate::archive::filetable::FileTable;
use crate::archive::frame::Frame;
use crate::archive::manifest::Manifest;
use crate::archive::{ArchiveError, ArchiveReader, StreamId};
use crate::innodb::ids::SpaceId;
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
use crate::innodb::page::{PageContext, PageScratch, UnverifiedPage, Verified, is_legacy_doublewrite};
use crate::innodb::redo::block::{BLOCK_LEN, BlockRead, decode_block};
use crate::innodb::space::TablespaceFlags;
use crate::ops::blocking;
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::{DeepVerify, ExternalFiles, Recovery, RestoreOptions, VerifyOptions};
use crate::ops::progress::Progress;
use crate::ops::report::{LsnRange, Problem, StructureReport, VerifiedPages, VerifyReport};
use crate::ops::restore::{self, page_at};
use crate::ops::segments::each_segment;
use crate::ops::stored;

/// Problems that a report lists; all are counted.
const LISTED_PROBLEMS: usize = 100;

/// Verifies one backup. What is wrong with it is in the report; an error means that it could not be looked at.
pub async fn run(ctx: &Context, options: VerifyOptions) -> Result<VerifyReport, Error> {
    let started = Instant::now();
    ctx.progress.step("open");
    let found = stored::find(&options.store, &options.backup).await?;
    let reader = Arc::new(found.open(&options.encryption_key_files, &ctx.cancel).await?);
    ctx.progress.step("verify");
    let findings = {
        let (manifest, progress, cancel) = (found.manifest.clone(), Arc::clone(&ctx.progress), ctx.cancel.clone());
        blocking(move || verify_all(&reader, &manifest, options.parallel, progress.as_ref(), &cancel)).await?
    };
    ctx.check()?;
    let mut findings = with_lost_keys(findings, &found).await?;
    let structure = match &options.deep {
        // What is damaged needs no closer look.
        Some(deep) if findings.count == 0 => Some(check_deep(ctx, &options, deep, found.manifest.id.as_str()).await?),
        _ => None,
    };
    if let Some(structure) = &structure {
        findings.count = findings.count.saturating_add(structure.problem_count);
        findings.problems.extend(structure.problems.iter().cloned());
    }
    let manifest = found.manifest;
    Ok(VerifyReport {
        name: manifest.name,
        id: manifest.id.to_string(),
        good: findings.count == 0,
        objects: findings.objects,
        bytes: findings.bytes,
        pages: findings.pages,
        redo_segments: findings.redo_segments,
        structure,
        lsn: LsnRange { checkpoint: manifest.lsn.checkpoint, end: manifest.lsn.end },
        duration_seconds: started.elapsed().as_secs(),
        problems: findings.problems,
        problem_count: findings.count,
        warnings: manifest.warnings,
    })
}

/// Restores the backup into a directory of its own, checks the structure of its tablespaces, and removes it again.
async fn check_deep(
    ctx: &Context,
    options: &VerifyOptions,
    deep: &DeepVerify,
    id: &str,
) -> Result<StructureReport, Error> {
    let datadir = deep.scratch_dir.join(format!("verify-{id}"));
    let restore = RestoreOptions {
        recovery: Recovery::Native,
        encryption_key_files: options.encryption_key_files.clone(),
        keyring_file: deep.keyring_file.clone(),
        external_files: ExternalFiles::Inside,
        // What a run that was killed has left there.
        overwrite_incomplete: true,
        check_structure: true,
        parallel: options.parallel,
        ..RestoreOptions::new(options.store.clone(), id, &datadir)
    };
    let outcome = restore::run(ctx, restore).await;
    let removed = blocking(move || match std::fs::remove_dir_all(&datadir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("cannot remove {}", datadir.display());
            Err(Error::new(ErrorKind::LocalIo, message).caused_by(error))
        }
        _ => Ok(()),
    });
    // A directory that something else holds was refused, and stays.
    match outcome {
        Err(error) if error.kind == ErrorKind::TargetNotEmpty => Err(error),
        outcome => {
            removed.await?;
            outcome.map(|report| report.structure.unwrap_or_default())
        }
    }
}

/// A recipient whose wrapped key is lost could not open the backup, though somebody else just did.
async fn with_lost_keys(mut findings: Findings, found: &stored::Found) -> Result<Findings, Error> {
    for lost in found.wrapped_keys().await.1 {
        if lost.error.kind != ErrorKind::DamagedBackup {
            return Err(lost.error);
        }
        findings.problem(&format!("keys/{}/{}.json", found.manifest.attempt, lost.key_id), lost.error.to_string());
    }
    Ok(findings)
}

#[derive(Debug, Default)]
struct Findings {
    objects: u64,
    bytes: u64,
    pages: VerifiedPages,
    redo_segments: u64,
    problems: Vec<Problem>,
    count: u64,
}

impl Findings {
    fn problem(&mut self, object: &str, what: String) {
        self.count = self.count.saturating_add(1);
        if self.problems.len() < LISTED_PROBLEMS {
            self.problems.push(Problem { object: object.to_owned(), what });
        }
    }

    fn add(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.pages.checked = self.pages.checked.saturating_add(other.pages.checked);
        self.pages.zero = self.pages.zero.saturating_add(other.pages.zero);
        self.pages.unverified = self.pages.unverified.saturating_add(other.pages.unverified);
        self.redo_segments = self.redo_segments.saturating_add(other.redo_segments);
        self.count = self.count.saturating_add(other.count);
        let room = LISTED_PROBLEMS.saturating_sub(self.problems.len());
        self.problems.extend(other.problems.into_iter().take(room));
    }
}

fn verify_all(
    reader: &ArchiveReader,
    manifest: &Manifest,
    parallel: NonZeroUsize,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let table = match reader.file_table() {
        Ok(table) => table,
        Err(error) => return only(findings, error),
    };
    let packs = reader.packs();
    progress.total(packs.iter().map(|pack| pack.bytes).sum());
    match reader.verify_tables() {
        Ok(check) => {
            for problem in check.problems {
                findings.problem(&problem.object, problem.what);
            }
        }
        Err(error) => note(&mut findings, "index", error)?,
    }
    let spaces = contexts(&table, &mut findings);
    let next = AtomicUsize::new(0);
    let (sum, failure) = (Mutex::new(findings), Mutex::new(None));
    let stop = cancel.child_token();
    std::thread::scope(|scope| {
        for _ in 0..parallel.get().min(packs.len().max(1)) {
            let _ = scope.spawn(|| {
                let mut worker =
                    Worker { spaces: &spaces, scratch: PageScratch::default(), found: Findings::default() };
                while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed))
                    && !stop.is_cancelled()
                {
                    if let Err(error) = worker.verify_pack(reader, pack) {
                        let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        let _ = first.get_or_insert(error);
                        stop.cancel();
                    }
                    progress.advance(pack.bytes);
                }
                sum.lock().unwrap_or_else(PoisonError::into_inner).add(worker.found);
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut findings = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    verify_redo(reader, manifest, &mut findings, parallel, cancel)?;
    if cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(findings) }
}

/// A problem so deep that nothing else can be looked at.
fn only(mut findings: Findings, error: ArchiveError) -> Result<Findings, Error> {
    note(&mut findings, "file table", error)?;
    Ok(findings)
}

/// Takes damage as a finding; passes on what says nothing of the backup, such as a store that does not answer.
fn note(findings: &mut Findings, object: &str, error: ArchiveError) -> Result<(), Error> {
    if !error.is_damage() {
        return Err(error.into());
    }
    let object = error.object().unwrap_or(object).to_owned();
    findings.problem(&object, error.to_string());
    Ok(())
}

fn contexts(table: &FileTable, findings: &mut Findings) -> HashMap<SpaceId, TablespaceFlags> {
    let mut contexts = HashMap::new();
    for entry in &table.spaces {
        match TablespaceFlags::decode(entry.flags) {
            Ok(flags) => {
                let _ = contexts.insert(entry.space, flags);
            }
            Err(error) => findings.problem("file table", format!("space {}: {error}", entry.space)),
        }
    }
    contexts
}

struct Worker<'a> {
    spaces: &'a HashMap<SpaceId, TablespaceFlags>,
    scratch: PageScratch,
    found: Findings,
}

impl Worker<'_> {
    fn verify_pack(&mut self, reader: &ArchiveReader, pack: &PackRef) -> Result<(), Error> {
        let outcome = reader.read_pack(pack, &mut |frame| {
            self.verify_frame(&pack.name, &frame);
            Ok(())
        });
        self.found.objects += 1;
        self.found.bytes = self.found.bytes.saturating_add(pack.bytes);
        outcome.or_else(|error| note(&mut self.found, &pack.name, error))
    }

    fn verify_frame(&mut self, object: &str, frame: &Frame) {
        let StreamId::Space(space) = frame.stream else { return };
        let Some(flags) = self.spaces.get(&space).copied() else {
            self.found.problem(object, format!("holds pages of space {space}, which the file table does not have"));
            return;
        };
        self.found.pages.zero += u64::from(frame.zero_count());
        let context = PageContext { space, flags, key: None };
        for (index, bytes) in frame.units() {
            let page = page_at(frame, index);
            if is_legacy_doublewrite(space, flags, page) {
                self.found.pages.checked += 1;
                continue;
            }
            match UnverifiedPage::new(bytes, page).verify(&context, &mut self.scratch) {
                Ok(Verified::Page(_)) => self.found.pages.checked += 1,
                Ok(Verified::Zero) => self.found.pages.zero += 1,
                Ok(Verified::Opaque(_)) => self.found.pages.unverified += 1,
                Err(fault) => self.found.problem(object, format!("space {space}, page {page}: {fault}")),
            }
        }
    }
}

/// Follows the chain of log blocks from the checkpoint's to the one that ends at the backup's LSN.
fn verify_redo(
    reader: &ArchiveReader,
    manifest: &Manifest,
    findings: &mut Findings,
    threads: NonZeroUsize,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let mut at = manifest.lsn.checkpoint.block_start();
    let mut end = Lsn::ZERO;
    each_segment(reader, threads, cancel, &mut |segment, blocks| {
        let name = format!("redo from LSN {}", segment.start);
        let blocks = match blocks {
            Ok(blocks) => blocks,
            Err(error) => {
                at = segment.end.block_start();
                end = segment.end;
                return note(findings, &name, error);
            }
        };
        findings.redo_segments += 1;
        findings.bytes = findings.bytes.saturating_add(segment.log_bytes());
        for raw in blocks.chunks(BLOCK_LEN) {
            match decode_block(raw, at, None) {
                Ok(BlockRead::Valid(block)) if !block.is_full() && block.end() != manifest.lsn.end => {
                    findings.problem(&name, format!("redo block at LSN {at} is not full: recovery would end there"));
                    end = block.end();
                }
                Ok(BlockRead::Valid(block)) => end = block.end(),
                Ok(other) => findings.problem(&name, format!("redo block at LSN {at}: {other:?}")),
                Err(error) => findings.problem(&name, format!("redo block at LSN {at}: {error}")),
            }
            at = at.checked_add(LOG_BLOCK_SIZE).unwrap_or(at);
        }
        Ok(())
    })?;
    if end != manifest.lsn.end {
        findings.problem("redo", format!("ends at LSN {end}, the backup ends at LSN {}", manifest.lsn.end));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::handmade::{PACK, archive, block, page, redo};
    use crate::ops::progress::Silent;

    /// What is wrong with an archive of these pages and log blocks: object and reason.
    fn problems(pages: &[Vec<u8>], blocks: &[Vec<u8>]) -> Vec<String> {
        let (stored, manifest) = archive(pages, blocks);
        assert_eq!(stored.problems(&[]), Vec::<String>::new(), "its digests are right");
        let reader = stored.open(&[]).unwrap();
        let one = NonZeroUsize::MIN;
        let found = verify_all(&reader, &manifest, one, &Silent, &CancellationToken::new()).unwrap();
        assert_eq!(found.count, u64::try_from(found.problems.len()).unwrap());
        let bad = found.problems.iter().filter(|problem| problem.what.contains("page")).count();
        let checked = found.pages.checked + found.pages.zero + u64::try_from(bad).unwrap();
        assert_eq!(checked, u64::try_from(pages.len()).unwrap());
        found.problems.into_iter().map(|problem| format!("{}: {}", problem.object, problem.what)).collect()
    }

    fn pages() -> Vec<Vec<u8>> {
        vec![page(0), page(1), vec![0; 16384], page(3)]
    }

    #[test]
    fn what_is_good_is_called_good() {
        assert_eq!(problems(&pages(), &redo()), Vec::<String>::new());
    }

    #[test]
    fn a_bad_page_is_found_below_digests_that_are_right() {
        for (change, why) in [
            (Box::new(|pages: &mut Vec<Vec<u8>>| pages[3][5000] ^= 1) as Box<dyn Fn(&mut Vec<Vec<u8>>)>, "checksum"),
            (Box::new(|pages| pages.swap(1, 3)), "it says that it is page 3"),
            (Box::new(|pages| pages[3][24..26].copy_from_slice(&99_u16.to_be_bytes())), "99"),
        ] {
            let mut bad = pages();
            change(&mut bad);
            let found = problems(&bad, &redo());
            assert!(found.iter().any(|one| one.starts_with(&format!("{PACK}: space 5, page "))), "{found:?}");
            assert!(found.iter().any(|one| one.contains(why)), "{why}: {found:?}");
        }
    }

    #[test]
    fn redo_is_followed_block_by_block_to_its_end() {
        let with = |index: usize, block: Vec<u8>| {
            let mut blocks = redo();
            blocks[index] = block;
            problems(&pages(), &blocks)
        };
        let mut flipped = block(1, 496);
        flipped[200] ^= 1;
        for (found, why) in [
            (with(1, flipped), "redo from LSN 8192: redo block at LSN 8704: "),
            (with(1, block(7, 496)), "redo from LSN 8192: redo block at LSN 8704: Overwritten"),
            (with(0, vec![0; 512]), "redo from LSN 8192: redo block at LSN 8192: NotWritten"),
            (with(1, block(1, 300)), "redo block at LSN 8704 is not full: recovery would end there"),
            (with(2, block(2, 90)), "redo: ends at LSN 9318, the backup ends at LSN 9328"),
        ] {
            assert!(found.iter().any(|one| one.contains(why)), "{why}: {found:?}");
        }
    }
}
