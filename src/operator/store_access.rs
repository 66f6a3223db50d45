//! A way into a storage, whoever can go it: the operator itself where a key opens it, a pod where only a volume or a
//! ServiceAccount does.
//!
//! ```text
//!   BackupStorage ─► StorePlan ──┬─ a key            ─► Here: a repository in this process
//!                                └─ volume, identity ─► Pod:  one question, one pod, one answer
//! ```
//! Both say the same and fail with the same errors, so that nobody who asks need know which it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::BackupStorage;
use crate::archive::id::BackupId;
use crate::store::{
    Answer, BackupState, Look, Marks, Question, Removal, Repository, StoreError, Told, ToldKind, explain,
};

use super::Context;
use super::runners::Identity;
use super::storage::{StoreRefusal, plan_store};
use super::store_pod::StorePod;

/// How often a change is tried that others change, too.
const SWAP_TRIES: u32 = 3;
/// How long a manifest that a pod told is remembered.
const REMEMBERED: Duration = Duration::from_mins(1);
/// So many are.
const MOST_REMEMBERED: usize = 16;

/// Manifests that pods told lately. A manifest never changes, and a restore looks at its own every few moments.
#[derive(Default)]
pub(crate) struct Manifests(Mutex<HashMap<String, (Instant, Vec<u8>)>>);

impl Manifests {
    fn find(&self, key: &str, now: Instant) -> Option<Vec<u8>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, bytes) = known.get(key)?;
        (now.saturating_duration_since(*told) < REMEMBERED).then(|| bytes.clone())
    }

    fn remember(&self, key: String, bytes: Vec<u8>, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (told, _)| now.saturating_duration_since(*told) < REMEMBERED);
        if known.len() < MOST_REMEMBERED {
            let _ = known.insert(key, (now, bytes));
        }
    }
}

/// A way into a storage.
pub(crate) struct Access {
    way: Way,
    shown: String,
    /// The storage as it was when this was opened.
    of: String,
}

enum Way {
    Here(Repository),
    Pod(Box<StorePod>),
}

impl Access {
    /// Opens it. `who` is the object on whose behalf it is asked: pods that are made for it belong to it.
    pub(crate) async fn open(
        context: &Context,
        who: &Identity,
        storage: &BackupStorage,
        secrets: &BTreeMap<String, Secret>,
    ) -> Result<Self, StoreRefusal> {
        let plan = plan_store(&storage.spec)?;
        let shown = plan.shown();
        let of = format!("{}/{}", storage.uid().unwrap_or_default(), storage.metadata.generation.unwrap_or(0));
        if plan.is_for_pods_only() {
            let account = storage.spec.service_account_name.clone();
            let way = Way::Pod(Box::new(StorePod::new(context, who, plan, account)));
            return Ok(Self { way, shown, of });
        }
        let (url, settings) = plan.connection(secrets)?;
        let opened = Repository::open_with(&url, settings, false).await;
        let way = Way::Here(opened.map_err(|error| StoreRefusal::BadUrl(explain(&error)))?);
        Ok(Self { way, shown, of })
    }

    /// Its address as people know it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Looks whether backups can go there and what is there.
    pub(crate) async fn look(&self, write: bool) -> Result<Look, StoreError> {
        match self.ask(Question::Look { write }).await? {
            Answer::Look(look) => Ok(look),
            other => Err(mistaken(&other)),
        }
    }

    /// The manifest of a complete backup.
    pub(crate) async fn read_manifest(&self, id: &BackupId) -> Result<Vec<u8>, StoreError> {
        match self.ask(Question::Manifest { id: id.clone() }).await? {
            Answer::Manifest(text) => Ok(text.into_bytes()),
            other => Err(mistaken(&other)),
        }
    }

    /// The same as it was within the last minute, for whoever would otherwise ask a pod again and again.
    pub(crate) async fn read_manifest_lately(&self, known: &Manifests, id: &BackupId) -> Result<Vec<u8>, StoreError> {
        if let Way::Here(_) = self.way {
            return self.read_manifest(id).await;
        }
        let key = format!("{}/{id}", self.of);
        if let Some(bytes) = known.find(&key, Instant::now()) {
            return Ok(bytes);
        }
        let bytes = self.read_manifest(id).await?;
        known.remember(key, bytes.clone(), Instant::now());
        Ok(bytes)
    }

    /// What is there of a backup.
    pub(crate) async fn state(&self, id: &BackupId) -> Result<Option<BackupState>, StoreError> {
        match self.ask(Question::State { id: id.clone() }).await? {
            Answer::State(seen) => Ok(seen),
            other => Err(mistaken(&other)),
        }
    }

    /// Deletes a backup.
    pub(crate) async fn delete(&self, id: &BackupId) -> Result<Removal, StoreError> {
        match self.ask(Question::Delete { id: id.clone() }).await? {
            Answer::Deleted { retained } => Ok(if retained { Removal::Retained } else { Removal::Removed }),
            other => Err(mistaken(&other)),
        }
    }

    /// Makes a run at work give up. `false`: its backup is complete.
    pub(crate) async fn call_off(&self, id: &BackupId) -> Result<bool, StoreError> {
        match self.ask(Question::CallOff { id: id.clone() }).await? {
            Answer::CalledOff { in_time } => Ok(in_time),
            other => Err(mistaken(&other)),
        }
    }

    /// What is said of a backup.
    pub(crate) async fn read_marks(&self, id: &BackupId) -> Result<Marks, StoreError> {
        match self.ask(Question::ReadMarks { id: id.clone() }).await? {
            Answer::Marks(marks) => Ok(marks),
            other => Err(mistaken(&other)),
        }
    }

    /// Changes what is said of a backup, and tells what is said then. `change` may be asked several times.
    pub(crate) async fn update_marks(
        &self,
        id: &BackupId,
        change: impl Fn(&Marks) -> Marks,
    ) -> Result<Marks, StoreError> {
        if let Way::Here(repository) = &self.way {
            return repository.update_marks(id, change).await;
        }
        for _ in 0..SWAP_TRIES {
            let before = self.read_marks(id).await?;
            let after = change(&before);
            let swap = Question::SwapMarks { id: id.clone(), before, after: after.clone() };
            match self.ask(swap).await? {
                Answer::Marks(now) if now == after => return Ok(now),
                // Somebody else was faster.
                Answer::Marks(_) => {}
                other => return Err(mistaken(&other)),
            }
        }
        let text = format!("what is said of {id} was changed by others again and again");
        Err(StoreError::Elsewhere(Told { kind: ToldKind::Other, text }))
    }

    async fn ask(&self, question: Question) -> Result<Answer, StoreError> {
        let answer = match &self.way {
            Way::Here(repository) => return repository.try_answer(question).await,
            Way::Pod(pod) => pod.ask(&question).await,
        };
        match answer {
            Answer::Failed(told) => Err(told.into()),
            answer => Ok(answer),
        }
    }
}

/// Whoever answered was asked something else: he is not who he should be.
fn mistaken(answer: &Answer) -> StoreError {
    let text = format!("the pod that was asked about the storage answered another question: {answer:.100?}");
    StoreError::Elsewhere(Told { kind: ToldKind::Other, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_remembered_for_a_minute() {
        let known = Manifests::default();
        let now = Instant::now();
        known.remember("s/1/a".to_owned(), vec![1], now);
        assert_eq!(known.find("s/1/a", now + Duration::from_secs(59)), Some(vec![1]));
        assert_eq!(known.find("s/1/a", now + REMEMBERED), None);
        assert_eq!(known.find("s/2/a", now), None, "of another spec of the storage");
        for number in 0..2 * MOST_REMEMBERED {
            known.remember(format!("s/1/{number}"), vec![0], now);
        }
        assert_eq!(known.0.lock().unwrap().len(), MOST_REMEMBERED, "and no more");
    }
}
