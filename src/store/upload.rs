//! Writing one attempt's objects from plain threads: in parts, several on their way, each sent again if need be.
//!
//! ```text
//!   write ─► part being filled ─full, and more comes─► wait for memory ─► part task ─► store
//!                  │                                                       │ persist: again, and again
//!   finish ────────┴─ never full: one create-only PUT                      ▼
//!                  └─ else: last part ─► all parts there ─► complete ─► look: size is what was written
//! ```
//!
//! An object's key holds its attempt's random id, so whatever is at the key was written by this run. A failed
//! `complete` may have worked, and so may a failed PUT: then the object is looked at before anything is called failed.
//! The stored size is compared in any case.
//!
//! Memory: see `settings`. Parts grow only past 1000 of them (8 GiB), so packs of bounded size never see it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, PutPayload, PutPayloadMut};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use crate::archive::object::{ObjectError, ObjectSink, ObjectWriter};

use super::bridge::wait;
use super::client::Client;
use super::connect::Parts;
use super::download::object_error;
use super::error::StoreError;
use super::explain::Class;
use super::file::FileUpload;
use super::retry::{Failed, Patience, once, persist};
use super::run::Shared;

/// What S3 allows, and no store allows fewer.
const MAX_PARTS: usize = 10_000;
/// Parts of one size before they double.
const PARTS_PER_SIZE: usize = 1000;
/// Smaller pieces are copied together: a request made of thousands of crumbs is slow to send.
const CRUMB_BYTES: usize = 64 << 10;

/// The size of part `index` (from 0) of an object, if its first is `first` bytes. With 8 MiB, 10 000 parts hold
/// 7.8 TiB: more than the largest object of any store (5 TiB), and no part exceeds what stores take (5 GiB).
fn part_size(first: usize, index: usize) -> usize {
    let doublings = u32::try_from(index / PARTS_PER_SIZE).unwrap_or(u32::MAX);
    first.saturating_mul(2_usize.saturating_pow(doublings))
}

/// Takes one attempt's objects.
pub(super) struct Sink {
    shared: Arc<Shared>,
}

impl Sink {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl ObjectSink for Sink {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, ObjectError> {
        let Shared { repository, id, attempt, cancel, .. } = &*self.shared;
        if cancel.is_cancelled() {
            return Err(ObjectError::Cancelled);
        }
        let key = repository.layout.object(id, attempt, name);
        self.shared.remember(key.clone());
        let runtime = repository.client.runtime().clone();
        let upload = Upload {
            client: repository.client.clone(),
            shared: self.shared.clone(),
            name: name.to_owned(),
            key,
            buffer: new_buffer(),
            sent: 0,
            parts: 0,
            open: None,
        };
        Ok(Box::new(Writer { runtime, name: name.to_owned(), upload: Some(upload) }))
    }
}

/// The blocking side of an upload.
struct Writer {
    runtime: Handle,
    name: String,
    /// Gone once it failed.
    upload: Option<Upload>,
}

impl Writer {
    fn failed(&self, error: StoreError) -> ObjectError {
        object_error(error, &self.name, "write")
    }
}

impl ObjectWriter for Writer {
    fn write(&mut self, mut bytes: Bytes) -> Result<(), ObjectError> {
        loop {
            let Some(upload) = &mut self.upload else { return Err(self.failed(StoreError::Stopped)) };
            upload.fill(&mut bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            let Some(mut upload) = self.upload.take() else { return Err(self.failed(StoreError::Stopped)) };
            let sent = wait(&self.runtime, async move {
                let sent = upload.send_part().await;
                (upload, sent)
            });
            match sent {
                Ok((upload, Ok(()))) => self.upload = Some(upload),
                Ok((_, Err(error))) | Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<(), ObjectError> {
        let Some(mut upload) = self.upload.take() else { return Err(self.failed(StoreError::Stopped)) };
        let done = wait(&self.runtime, async move { upload.finish().await });
        done.and_then(|done| done).map_err(|error| self.failed(error))
    }
}

/// One object on its way. Dropped unfinished, it is given up.
struct Upload {
    client: Client,
    shared: Arc<Shared>,
    name: String,
    key: Path,
    /// The part being filled.
    buffer: PutPayloadMut,
    /// Bytes in the parts before it.
    sent: u64,
    /// Parts before it.
    parts: usize,
    /// Once there is more than one part.
    open: Option<Open>,
}

/// An upload in parts that the store knows of.
struct Open {
    way: Way,
    tasks: JoinSet<Result<(usize, Option<PartId>), Failed>>,
    done: Vec<Option<PartId>>,
}

enum Way {
    File(FileUpload),
    Cloud { store: Arc<dyn MultipartStore>, upload: MultipartId },
}

impl Upload {
    fn patience(&self) -> Patience {
        self.client.patient(&self.shared.cancel)
    }

    fn broken(&self, why: impl Into<String>) -> StoreError {
        self.client.subject("write", &self.key).broken(why).into()
    }

    /// Moves bytes into the part being filled, as many as fit.
    fn fill(&mut self, bytes: &mut Bytes) {
        let full = part_size(self.client.settings().part_bytes, self.parts);
        let room = full.saturating_sub(self.buffer.content_length());
        let piece = bytes.split_to(room.min(bytes.len()));
        if piece.len() < CRUMB_BYTES {
            self.buffer.extend_from_slice(&piece);
        } else {
            self.buffer.push(piece);
        }
    }

    fn take_part(&mut self) -> PutPayload {
        let part = std::mem::replace(&mut self.buffer, new_buffer()).freeze();
        self.sent = self.sent.saturating_add(u64::try_from(part.content_length()).unwrap_or(u64::MAX));
        part
    }

    /// Waits until these bytes may be on their way.
    async fn reserve(&self, part: &PutPayload) -> Result<OwnedSemaphorePermit, StoreError> {
        // A part larger than all that is allowed goes alone.
        let bytes = part.content_length().min(self.client.settings().bytes_in_flight);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let memory = self.client.memory().clone();
        tokio::select! {
            () = self.shared.cancel.cancelled() => Err(StoreError::Cancelled),
            permit = memory.acquire_many_owned(permits) => permit.map_err(|_| StoreError::Stopped),
        }
    }

    async fn begin(&self) -> Result<Open, StoreError> {
        let subject = self.client.subject("begin the upload of", &self.key);
        let way = match self.client.parts() {
            Parts::Files(files) => {
                let begin = || async { FileUpload::begin(files.path_to_filesystem(&self.key)?).await };
                Way::File(persist(subject, &self.patience(), begin).await?)
            }
            Parts::Cloud(store) => {
                let upload = persist(subject, &self.patience(), || store.create_multipart(&self.key)).await?;
                self.shared.uploads.begin(&self.name, &upload);
                Way::Cloud { store: store.clone(), upload }
            }
        };
        Ok(Open { way, tasks: JoinSet::new(), done: Vec::new() })
    }

    /// Sends the part being filled, once there is room for it.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        if self.parts >= MAX_PARTS {
            return Err(self.broken("it needs more parts than a store allows"));
        }
        if self.open.is_none() {
            self.open = Some(self.begin().await?);
        }
        let offset = self.sent;
        let part = self.take_part();
        let permit = self.reserve(&part).await?;
        let (client, key, patience, index) = (self.client.clone(), self.key.clone(), self.patience(), self.parts);
        let most = self.client.settings().parts_in_flight.max(1);
        let Some(open) = &mut self.open else { return Err(StoreError::Stopped) };
        while open.tasks.len() >= most {
            open.join_one().await?;
        }
        open.done.push(None);
        match &open.way {
            Way::File(file) => {
                let write = file.write_part(part, offset);
                open.tasks.spawn(async move {
                    let _permit = permit;
                    // Never again: a file's errors are not such that pass.
                    let subject = client.subject("write a part of", &key);
                    once(subject, &patience, write).await.map(|()| (index, None))
                });
            }
            Way::Cloud { store, upload } => {
                let (store, upload) = (store.clone(), upload.clone());
                open.tasks.spawn(async move {
                    let _permit = permit;
                    let subject = client.subject("upload a part of", &key);
                    let sent = persist(subject, &patience, || store.put_part(&key, &upload, index, part.clone()));
                    sent.await.map(|id| (index, Some(id)))
                });
            }
        }
        self.parts = self.parts.saturating_add(1);
        Ok(())
    }

    /// Completes the object and looks at it.
    async fn finish(&mut self) -> Result<(), StoreError> {
        if self.open.is_none() {
            return self.finish_small().await;
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        let patience = self.patience();
        let Some(open) = &mut self.open else { return Err(StoreError::Stopped) };
        while !open.tasks.is_empty() {
            open.join_one().await?;
        }
        let subject = self.client.subject("complete the upload of", &self.key);
        let done = match &mut open.way {
            Way::File(file) => once(subject, &patience, file.complete()).await,
            Way::Cloud { store, upload } => {
                let parts: Option<Vec<PartId>> = open.done.iter().cloned().collect();
                let parts = parts.ok_or_else(|| StoreError::from(subject.broken("a part of it is missing")))?;
                persist(subject, &patience, || store.complete_multipart(&self.key, upload, parts.clone()))
                    .await
                    .map(drop)
            }
        };
        self.settle(done).await
    }

    /// After `complete`: what counts is what is there.
    async fn settle(&mut self, done: Result<(), Failed>) -> Result<(), StoreError> {
        if done.as_ref().is_err_and(Failed::is_cancelled) {
            return Err(StoreError::Cancelled);
        }
        let found = match self.client.stat(&self.key, &self.client.steady(&self.shared.cancel)).await {
            Ok(found) => found,
            // Why it is not there says more than that it is not.
            Err(failed) => return Err(done.err().unwrap_or(failed).into()),
        };
        let whole = found.size == self.sent && found.tag.as_deref().and_then(parts_of).is_none_or(|n| n == self.parts);
        match done {
            Ok(()) if found.size == self.sent => {}
            Err(failed) if whole => {
                tracing::warn!(object = %self.key, cause = %failed.cause(), "an upload was called failed, but is whole");
            }
            Err(failed) => return Err(failed.into()),
            Ok(()) => return Err(self.broken(format!("{} bytes were sent, {} are there", self.sent, found.size))),
        }
        self.shared.uploads.end(&self.name);
        self.open = None;
        Ok(())
    }

    /// An object of one part: one PUT that replaces nothing.
    async fn finish_small(&mut self) -> Result<(), StoreError> {
        let (part, patience) = (self.take_part(), self.patience());
        let _permit = self.reserve(&part).await?;
        let failed = match self.client.create(&self.key, part.clone(), &patience).await {
            Ok(_) => {
                let found = self.client.stat(&self.key, &self.client.steady(&self.shared.cancel)).await?.size;
                if found != self.sent {
                    return Err(self.broken(format!("{} bytes were sent, {found} are there", self.sent)));
                }
                return Ok(());
            }
            Err(failed) if failed.is_cancelled() => return Err(StoreError::Cancelled),
            Err(failed) => failed,
        };
        // Exists, or unclear: if it is what was to be written, an answer was lost.
        if self.client.stat(&self.key, &patience.once()).await.is_ok_and(|found| found.size == self.sent) {
            let found = self.client.get_range(&self.key, 0, self.sent, &patience).await;
            if found.is_ok_and(|found| found == Bytes::from(part)) {
                return Ok(());
            }
        }
        if failed.is(Class::Exists) {
            return Err(self.broken("another object is at its key"));
        }
        Err(failed.into())
    }
}

impl Open {
    async fn join_one(&mut self) -> Result<(), StoreError> {
        let (index, part) = match self.tasks.join_next().await {
            Some(Ok(done)) => done?,
            // A task that died, or none at all: neither happens while the runtime lives.
            Some(Err(_)) | None => return Err(StoreError::Stopped),
        };
        if let Some(slot) = self.done.get_mut(index) {
            *slot = part;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let (runtime, key) = (self.client.runtime().clone(), self.key.clone());
        let (uploads, name) = (self.shared.uploads.clone(), self.name.clone());
        drop(runtime.spawn(async move {
            let Open { way, mut tasks, .. } = open;
            // A part that arrives after the abort would stay for good.
            tasks.shutdown().await;
            match way {
                // The file beside is removed with the upload.
                Way::File(file) => drop(file),
                Way::Cloud { store, upload } => match store.abort_multipart(&key, &upload).await {
                    Ok(()) => uploads.end(&name),
                    Err(error) => tracing::debug!(object = %key, %error, "an unfinished upload could not be aborted"),
                },
            }
        }));
    }
}

fn new_buffer() -> PutPayloadMut {
    PutPayloadMut::new().with_block_size(CRUMB_BYTES)
}

/// The number of parts that an entity tag of S3 tells: `"<32 hex digits>-<parts>"`.
fn parts_of(tag: &str) -> Option<usize> {
    let (digest, parts) = tag.trim_matches('"').split_once('-')?;
    let is_digest = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| parts.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreSettings;

    #[test]
    fn ten_thousand_parts_hold_the_largest_object() {
        const TIB: u64 = 1 << 40;
        let sizes: Vec<u64> =
            (0..MAX_PARTS).map(|index| u64::try_from(part_size(StoreSettings::PART_BYTES, index)).unwrap()).collect();
        assert!(sizes.iter().sum::<u64>() > 5 * TIB);
        assert!(*sizes.last().unwrap() <= 5 << 30);
        assert!(*sizes.first().unwrap() >= 5 << 20);
        // What an archive writes in packs of 256 MiB never meets a larger part.
        assert!(sizes.iter().take(1000).all(|size| *size == sizes[0]));
        assert!(sizes.is_sorted());
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(part_size(usize::MAX, 0), usize::MAX);
        assert_eq!(part_size(8 << 20, usize::MAX), usize::MAX);
    }

    #[test]
    fn tags_tell_parts() {
        assert_eq!(parts_of("\"0123456789abcdef0123456789abcdef-12\""), Some(12));
        assert_eq!(parts_of("0123456789abcdef0123456789abcdef-1"), Some(1));
        for other in
            ["\"0123456789abcdef0123456789abcdef\"", "0x8D-1", "\"\"", "-", "0123456789abcdef0123456789abcdef-x"]
        {
            assert_eq!(parts_of(other), None, "{other}");
        }
    }
}
