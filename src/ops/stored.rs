//! A backup that lies in a store, opened: what `restore`, `verify`, `show` and `inspect` begin with.
//!
//! ```text
//!   URL ─► repository ─► name or id ─► manifest ─► keys ─► ArchiveReader
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::archive::ArchiveReader;
use crate::archive::id::BackupId;
use crate::archive::keys::{RecipientKey, WrappedKey};
use crate::archive::manifest::Manifest;
use crate::ops::blocking;
use crate::ops::error::{Error, ErrorKind};
use crate::store::{Repository, StoreSettings, StoreUrl};

/// A manifest and where it was found.
pub struct Found {
    /// The store.
    pub repository: Repository,
    /// The backup.
    pub manifest: Manifest,
}

/// Opens a store to read in it: one whose directory is missing is not made.
pub async fn open_existing(store: &StoreUrl) -> Result<Repository, Error> {
    Ok(Repository::open_with(store, StoreSettings::from_env(), false).await?)
}

/// Finds the backup that `backup` (a name: the newest of it; or an id) means.
pub async fn find(store: &StoreUrl, backup: &str) -> Result<Found, Error> {
    let repository = open_existing(store).await?;
    let id = repository.resolve(backup).await?;
    let bytes = repository.read_manifest(&id).await?;
    let manifest = Manifest::decode(&bytes).map_err(Error::from)?;
    check_id(&manifest, &id)?;
    Ok(Found { repository, manifest })
}

/// A manifest under another id's key was put there by somebody.
fn check_id(manifest: &Manifest, id: &BackupId) -> Result<(), Error> {
    if manifest.id == *id {
        return Ok(());
    }
    let message = format!("the manifest of {id} says that it is of {}", manifest.id);
    Err(Error::new(ErrorKind::DamagedBackup, message))
}

impl Found {
    /// Opens the archive with the keys in `key_files`. That the key of another recipient is lost is no hindrance.
    pub async fn open(&self, key_files: &[PathBuf], cancel: &CancellationToken) -> Result<ArchiveReader, Error> {
        let keys = read_key_files(key_files)?;
        let (wrapped, lost) = self.wrapped_keys().await;
        if let Some(lost) = lost.into_iter().find(|lost| keys.iter().any(|key| key.id() == lost.key_id)) {
            return Err(lost.error);
        }
        let source = self.repository.objects(&self.manifest.id, &self.manifest.attempt, cancel);
        let manifest = self.manifest.clone();
        blocking(move || Ok(ArchiveReader::open(&manifest, Arc::clone(&source), &wrapped, &keys)?)).await
    }

    /// The data key as it is wrapped for each recipient, and for whom it cannot be read.
    pub async fn wrapped_keys(&self) -> (Vec<WrappedKey>, Vec<LostKey>) {
        let key_ids = self.manifest.cipher.as_ref().map(|cipher| cipher.key_ids.clone()).unwrap_or_default();
        let (mut wrapped, mut lost) = (Vec::new(), Vec::new());
        for key_id in key_ids {
            match self.wrapped_key(&key_id).await {
                Ok(found) => wrapped.extend(found),
                Err(error) => lost.push(LostKey { key_id, error }),
            }
        }
        (wrapped, lost)
    }

    async fn wrapped_key(&self, key_id: &String) -> Result<Vec<WrappedKey>, Error> {
        let found =
            self.repository.read_keys(&self.manifest.id, &self.manifest.attempt, std::slice::from_ref(key_id)).await?;
        found.iter().map(|bytes| Ok(WrappedKey::decode(bytes)?)).collect()
    }
}

/// A recipient's wrapped key that cannot be read.
pub struct LostKey {
    /// Whose it is.
    pub key_id: String,
    /// Why.
    pub error: Error,
}

/// Reads the keys in these files.
pub fn read_key_files(paths: &[PathBuf]) -> Result<Vec<RecipientKey>, Error> {
    paths
        .iter()
        .map(|path| {
            let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|error| {
                Error::new(ErrorKind::LocalIo, format!("cannot read key file {}", path.display())).caused_by(error)
            })?);
            RecipientKey::parse(&bytes).map_err(|error| {
                Error::new(ErrorKind::Usage, format!("{} is no key file", path.display())).caused_by(error)
            })
        })
        .collect()
}
