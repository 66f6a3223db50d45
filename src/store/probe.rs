//! What is asked of a store before each backup.
//!
//! ```text
//!   list        ► may we? what is here?               a prefix with things of others is refused
//!   record      ► create it, or read whose it is
//!   record      ► create it again, with other bytes   must be refused: commits rest on it
//!   record      ► read it back                        must be the first
//!   probe       ► write, delete                       may we?
//! ```
//!
//! All at fixed keys, so that a store which keeps everything does not fill up with probes.

use bytes::Bytes;
use object_store::PutPayload;
use object_store::path::Path;

use crate::util::clock;

use super::client::Folder;
use super::connect::Parts;
use super::error::StoreError;
use super::explain::Class;
use super::record::{Capabilities, FORMAT, RepositoryRecord, encode};
use super::repository::Repository;

impl Repository {
    /// Proves that the store can hold backups safely, claims its prefix if it is empty, and finds out what is allowed.
    pub async fn probe(&self) -> Result<Capabilities, StoreError> {
        let patience = self.client.first();
        let (list, found) = match self.find_something().await {
            Ok(found) => (true, found),
            Err(StoreError::Denied { .. }) => (false, None),
            Err(error) => return Err(error),
        };
        let record = self.claim(found).await?;
        self.prove_create_only(&record).await?;

        let (probe, bytes) = (self.layout.probe(), PutPayload::from_static(b"written and deleted by each probe\n"));
        let wrote = self.client.put(&probe, bytes, &patience).await;
        let delete = match self.client.delete(&probe, &patience).await {
            Ok(()) => wrote.is_ok(),
            Err(failed) if failed.is(Class::Denied) || failed.is(Class::Unsupported) => false,
            Err(failed) => return Err(failed.into()),
        };
        let capabilities = Capabilities { list, delete };
        self.note(capabilities).await;
        Ok(capabilities)
    }

    /// Whatever lies in the prefix and is not one of our fixed keys.
    async fn find_something(&self) -> Result<Option<String>, StoreError> {
        let (base, patience) = (self.layout.base(), self.client.first());
        let first = match self.client.parts() {
            Parts::Cloud(_) => self.client.anything(base, &patience).await?,
            // A file system of its own comes with a folder that nobody may read.
            Parts::Files(_) => {
                let Folder { folders, objects } = self.client.folder(base, &patience).await?;
                let mut keys = folders.into_iter().chain(objects.into_iter().map(|stat| stat.key));
                keys.find(|key| key.filename() != Some("lost+found"))
            }
        };
        Ok(first.map(|key| self.url().of(&key)))
    }

    /// The prefix's record: read, or created if the prefix is empty.
    async fn claim(&self, found: Option<String>) -> Result<Bytes, StoreError> {
        let (key, patience) = (self.layout.repository(), self.client.first());
        match self.client.get(&key, &patience).await {
            Ok(record) => return self.check_record(record.bytes),
            // A store that may not be listed says "denied" of what is missing. Creating will tell.
            Err(failed) if failed.is(Class::Missing) || failed.is(Class::Denied) => {}
            Err(failed) => return Err(failed.into()),
        }
        if let Some(found) = found {
            return Err(StoreError::Foreign { url: self.url().to_string(), found });
        }
        let record = Bytes::from(encode(&RepositoryRecord::new(clock::now())));
        match self.client.create(&key, record.clone().into(), &patience).await {
            Ok(_) => tracing::info!(store = %self.url(), "made a new repository"),
            // Another backup's probe was faster, or this one's answer was lost.
            Err(failed) if failed.is(Class::Exists) => {}
            Err(failed) if failed.is(Class::Unsupported) => return Err(self.no_create_only(failed.cause().to_string())),
            Err(failed) => return Err(failed.into()),
        }
        self.read_record(&key).await
    }

    async fn read_record(&self, key: &Path) -> Result<Bytes, StoreError> {
        let record = self.client.get(key, &self.client.first()).await?;
        self.check_record(record.bytes)
    }

    fn check_record(&self, bytes: Bytes) -> Result<Bytes, StoreError> {
        let url = self.url().to_string();
        match RepositoryRecord::decode(&bytes) {
            None => Err(StoreError::Foreign { url, found: self.url().of(&self.layout.repository()) }),
            Some(record) if record.format != FORMAT => Err(StoreError::UnknownFormat { url, format: record.format }),
            Some(_) => Ok(bytes),
        }
    }

    /// Fails unless the store refuses to create what exists, and leaves it as it was.
    async fn prove_create_only(&self, first: &Bytes) -> Result<(), StoreError> {
        let key = self.layout.repository();
        let second = Bytes::from(encode(&RepositoryRecord::new(clock::now())));
        match self.client.create(&key, second.into(), &self.client.first()).await {
            Ok(_) => return Err(self.no_create_only("it replaced one".to_owned())),
            Err(failed) if failed.is(Class::Exists) => {}
            Err(failed) if failed.is(Class::Unsupported) => return Err(self.no_create_only(failed.cause().to_string())),
            Err(failed) => return Err(failed.into()),
        }
        let after = self.read_record(&key).await?;
        if after != *first {
            return Err(self.no_create_only("it said that it refused, but replaced one".to_owned()));
        }
        Ok(())
    }

    fn no_create_only(&self, why: String) -> StoreError {
        StoreError::NoCreateOnly { url: self.url().to_string(), why }
    }

    /// Writes down what is allowed, for whoever reads the repository without the right to try it.
    async fn note(&self, capabilities: Capabilities) {
        let (key, patience) = (self.layout.capabilities(), self.client.first().once());
        let bytes = Bytes::from(encode(&capabilities));
        match self.client.get(&key, &patience).await {
            Ok(record) if record.bytes == bytes => return,
            _ => {}
        }
        if let Err(failed) = self.client.put(&key, bytes.into(), &patience).await {
            tracing::debug!(cause = %failed.cause(), "the store's capabilities cannot be written down");
        }
    }
}
