//! An object of a file store on its way there: a file beside, written past the page cache, synced once, then renamed. And
//! back: a range of it.
//!
//! ```text
//!   write_part ─► <object>#1, at the part's offset      (several at a time, each with a buffer of its own)
//!   complete ───► sync ─► rename to <object> ─► sync folder
//!   dropped ────► <object>#1 is removed
//! ```
//! The name beside is one that `object_store` leaves out of listings. `object_store` could do this too, but only
//! through the page cache, which belongs to the server.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::{GetResult, GetResultPayload, PutPayload};
use tokio::task::JoinError;

use crate::util::direct::{AlignedBuffer, DirectFile, WRITE_BYTES};
use crate::util::fs::{FsError, create_dir_all, durable_rename, parent};

/// Mode of folders in a store, less what the user's mask takes away.
const FOLDER_MODE: u32 = 0o777;

/// A file that is being written. Dropped before it is complete, it is given up.
pub(super) struct FileUpload {
    path: PathBuf,
    beside: PathBuf,
    open: Arc<Open>,
    is_complete: bool,
}

/// The file, and memory to write it: as much as the most parts at a time needed.
struct Open {
    file: DirectFile,
    buffers: Mutex<Vec<AlignedBuffer>>,
}

impl Open {
    fn write(&self, part: &PutPayload, offset: u64) -> io::Result<()> {
        let buffers = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = buffers().pop();
        let mut buffer = spare.unwrap_or_else(|| AlignedBuffer::new(WRITE_BYTES));
        let written = self.file.write_at(&mut buffer, part.iter().map(AsRef::as_ref), offset);
        buffers().push(buffer);
        written
    }
}

impl FileUpload {
    /// Makes the file beside `path`, and the folders above.
    pub(super) async fn begin(path: PathBuf) -> object_store::Result<Self> {
        on_disk(move || {
            create_dir_all(parent(&path), FOLDER_MODE)?;
            let mut number = 1_u32;
            loop {
                let beside = beside(&path, number);
                match DirectFile::create_new(&beside) {
                    Ok(file) => {
                        let open = Arc::new(Open { file, buffers: Mutex::default() });
                        return Ok(Self { path, beside, open, is_complete: false });
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
                    Err(error) => return Err(FsError::of("create", &beside)(error)),
                }
            }
        })
        .await
    }

    /// Writes a part at its place.
    pub(super) fn write_part(
        &self,
        part: PutPayload,
        offset: u64,
    ) -> impl Future<Output = object_store::Result<()>> + use<> {
        let (open, beside) = (self.open.clone(), self.beside.clone());
        on_disk(move || open.write(&part, offset).map_err(FsError::of("write", &beside)))
    }

    /// Makes it durable and gives it its name. All parts must have been written.
    pub(super) async fn complete(&mut self) -> object_store::Result<()> {
        let (open, path, beside) = (self.open.clone(), self.path.clone(), self.beside.clone());
        on_disk(move || {
            open.file.sync().map_err(FsError::of("sync", &beside))?;
            durable_rename(&beside, &path)
        })
        .await?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if !self.is_complete {
            // What cannot be removed now goes with the attempt's folder.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

fn beside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{number}"));
    name.into()
}

/// The bytes that were asked for. `object_store` reads files itself, too, but fills the memory with zeros before.
pub(super) async fn bytes_of(got: GetResult) -> object_store::Result<Bytes> {
    match got {
        GetResult { payload: GetResultPayload::File(mut file, path), range, .. } => {
            on_disk(move || {
                let length = range.end.saturating_sub(range.start);
                let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
                file.seek(SeekFrom::Start(range.start)).map_err(FsError::of("read", &path))?;
                file.take(length).read_to_end(&mut bytes).map_err(FsError::of("read", &path))?;
                Ok(bytes.into())
            })
            .await
        }
        other => other.bytes().await,
    }
}

/// Runs on a thread that may block. Failures look as those of `object_store`'s own file store.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FsError> + Send + 'static,
) -> object_store::Result<T> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
        store: "LocalFileSystem",
        source,
    };
    let done: Result<_, JoinError> = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed(Box::new(error)))?.map_err(|error| failed(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_in_any_order_become_a_file_and_what_is_given_up_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b/pack");
        let mut upload = FileUpload::begin(path.clone()).await.unwrap();
        let given_up = FileUpload::begin(path.clone()).await.unwrap();
        let (first, second) = (vec![1_u8; 8192], vec![2_u8; 5000]);
        let late = upload.write_part(first.clone().into(), 0);
        upload.write_part(second.clone().into(), 8192).await.unwrap();
        late.await.unwrap();
        assert!(!path.exists());
        upload.complete().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), [first, second].concat());
        given_up.write_part(vec![3].into(), 0).await.unwrap();
        drop(given_up);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [path]);
    }

    #[tokio::test]
    async fn a_failure_names_the_file_and_is_sorted_by_its_kind() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), b"").unwrap();
        let error = FileUpload::begin(base.path().join("file/pack")).await.err().unwrap();
        assert!(format!("{error:?}").contains("file"), "{error:?}");
        assert!(matches!(super::super::explain::classify(&error), super::super::explain::Class::Final));
    }
}
