//! `stillframe backup`: the order of things, top to bottom in `copy_instance`.
//!
//! ```text
//!   preflight ─ lease ─ LOCK INSTANCE FOR BACKUP ─ follower (redo, own thread) ───────────────┐
//!                          │                                                                  │
//!                          ├─ copy tablespaces (parallel, verified) ──► packs ──► store       │
//!                          ├─ FTWRL only if there are non-InnoDB user tables ─ copy to spool  │
//!                          ├─ rotate binlog ─ log_status = THE CUT ─ flush redo               │
//!                          │                                      redo up to the cut ◄────────┘
//!                        unlock ─ upload spool, binlog tail ─ prove complete ─ commit manifest
//! ```
//! Owns the order and the promise that every way out releases locks and lease. The steps themselves are elsewhere:
//! files and redo in `capture`, SQL in `mysql`, the stored form in `archive`, objects in `store`.

mod commit;
mod cut;
mod destination;
mod files;
mod guards;
mod layout;
mod redo;
mod source;
mod spaces;
mod uploader;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::capture::{
    Activity, CopyOptions, LEAST_PACE, Politeness, Throttle, plan_copy, redo_master_key, space_master_keys, spool_files,
};
use crate::mysql::{BackupLock, ConnectOptions, DdlWatch, Session};
use crate::ops::blocking;
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::{BackupOptions, EncryptedPages};
use crate::ops::report::BackupReport;
use crate::util::clock;

use commit::Copied;
use destination::{Attempt, Destination};
use guards::Guards;
use redo::RedoCapture;
use source::Source;

/// Takes one backup. However it ends, the server's locks are released and nothing is left that could be taken for a
/// backup, but for a success.
pub async fn run(ctx: &Context, options: BackupOptions) -> Result<BackupReport, Error> {
    options.check()?;
    let begun = (clock::now(), Instant::now());
    ctx.progress.step("preflight");
    let source = unless_cancelled(ctx, Source::connect(&options)).await?;
    let destination = unless_cancelled(ctx, Destination::open(&options, &source, begun.0)).await?;
    for warning in source.warnings().iter().chain(&destination.warning(&options)) {
        ctx.progress.message(warning);
    }

    let guards = Guards::new(&ctx.cancel);
    let attempt = unless_cancelled(ctx, destination.begin(guards.token())).await?;
    guards.watch(attempt.lease_lost());
    let parts = Parts {
        ctx,
        options: &options,
        source: &source,
        destination: &destination,
        attempt: &attempt,
        guards: &guards,
    };
    let copied = copy_instance(&parts).await;
    let outcome = match guards.judge(copied) {
        Ok(copied) => commit::commit(ctx, &options, &source, &attempt, copied, begun).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(report) => {
            attempt.finish().await;
            guards.release().await;
            Ok(report)
        }
        Err(error) => {
            // Whatever still uploads must have stopped before its objects are removed.
            guards.release().await;
            attempt.abandon().await;
            Err(error)
        }
    }
}

/// What a copy is made of, from its beginning to its end.
#[derive(Clone, Copy)]
struct Parts<'a> {
    ctx: &'a Context,
    options: &'a BackupOptions,
    source: &'a Source,
    destination: &'a Destination,
    attempt: &'a Attempt,
    guards: &'a Guards,
}

/// Copies the instance up to one consistent point; on return no lock is held, and all but the manifest is stored.
async fn copy_instance(parts: &Parts<'_>) -> Result<Copied, Error> {
    let Parts { ctx, options, source, destination, attempt, guards } = *parts;
    let stop = guards.token();
    let throttle = Arc::new(Throttle::new(options.throttle));
    let activity = Arc::new(Activity::default());

    ctx.progress.step("lock");
    let unlocked = CancellationToken::new();
    // Made before the lock, so that it goes after it.
    let _unlocked = unlocked.clone().drop_guard();
    let lock = BackupLock::acquire(&options.server, options.lock_timeout, stop).await?;
    guards.watch(lock_lost(&lock));
    guards.accompany(unlock_at_once(options.server.clone(), lock.connection_id(), stop.clone(), unlocked.clone()));
    let ddl = DdlWatch::start(&options.server, options.ddl_wait_budget).await?;
    guards.watch(ddl_budget(&ddl));

    // Not before: who waits for a lock takes no redo, and a consumer that takes none would stall the server.
    let consumer = redo::register_consumer(options, ctx).await?;
    let redo = RedoCapture::start(parts, consumer, &throttle, &activity).await?;
    let registered = source.registered_files(options).await?;
    let layout = source.layout.clone();
    let plan = Arc::new(blocking(move || Ok(plan_copy(&layout, &registered)?)).await?);
    source.check_plan(options, &plan)?;
    let selected = files::select(&plan, options.non_transactional);

    ctx.progress.step("copy");
    let copy_options = CopyOptions {
        parallel: options.parallel,
        throttle: Arc::clone(&throttle),
        keyring: source.keyring.clone(),
        copy_unverified: options.encrypted_pages == EncryptedPages::CopyUnverified,
        polite: options.polite.then(|| politeness(source, &redo, activity)),
    };
    let pages = {
        let (plan, writer, progress) = (Arc::clone(&plan), attempt.writer(), Arc::clone(&ctx.progress));
        let stop = stop.clone();
        blocking(move || spaces::copy(&plan, &copy_options, &writer, progress, &stop)).await?
    };
    guards.check()?;

    // Still under the backup lock, and before anything is asked to wait for the cut: DDL that queues for the lock runs
    // the moment it goes.
    let (dictionary, mut master_keys) = {
        let (plan, files, spool) = (Arc::clone(&plan), selected.dictionary.clone(), destination.spool());
        let stop = stop.clone();
        blocking(move || Ok((spool_files(&files, &spool, &stop)?, space_master_keys(&plan)?))).await?
    };

    ctx.progress.step("cut");
    let cut = cut::take(parts, &lock, &redo, &plan, &selected).await?;
    let captured = redo.finish_at(cut.status.lsn).await?;
    source.check_continuation(&cut.status, &pages)?;
    lock.check_held().await?;
    let ddl_wait = ddl.stop().await;
    let times = lock.release().await?;
    unlocked.cancel();
    let global_read_lock = cut.global_read_lock;

    ctx.progress.step("upload");
    let redo_bytes = redo.upload_rest().await?;
    master_keys.extend(captured.encryption_block.as_deref().map(redo_master_key).transpose()?.flatten());
    let master_keys = master_keys.into_iter().collect();
    let stored = files::store(parts, &plan, selected, dictionary, cut).await?;
    let backup_lock = times.backup_lock;
    Ok(Copied { pages, captured, redo_bytes, stored, master_keys, backup_lock, global_read_lock, ddl_wait })
}

/// What a polite copy listens to.
fn politeness(source: &Source, redo: &RedoCapture, activity: Arc<Activity>) -> Politeness {
    let layout = &source.layout;
    let data_file =
        layout.system_files.first().map_or_else(|| layout.datadir.join("mysql.ibd"), |file| file.path.clone());
    Politeness { data_file, redo_end: redo.position(), activity, least_pace: LEAST_PACE }
}

async fn unless_cancelled<T>(ctx: &Context, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        outcome = work => outcome,
        () = ctx.cancel.cancelled() => Err(Error::cancelled()),
    }
}

/// Frees the locks within a second of a stop, whatever the work is waiting for at that moment.
async fn unlock_at_once(server: ConnectOptions, connection: u32, stop: CancellationToken, unlocked: CancellationToken) {
    tokio::select! {
        () = unlocked.cancelled() => {}
        () = stop.cancelled() => {
            // The work gives the locks up, too, when it notices the stop; whoever comes first.
            if let Err(error) = Session::kill(&server, connection).await {
                tracing::debug!(%error, connection, "the locking connection was not there to be killed");
            }
        }
    }
}

fn lock_lost(lock: &BackupLock) -> impl Future<Output = Error> + Send + 'static {
    let lost = lock.lost();
    async move { lost.await.into() }
}

fn ddl_budget(watch: &DdlWatch) -> impl Future<Output = Error> + Send + 'static {
    let exceeded = watch.exceeded();
    async move { exceeded.await.into() }
}
