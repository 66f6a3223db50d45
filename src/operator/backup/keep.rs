//! After the end: the storage is told of pin and expiry, and what has expired goes. What must stay stays.
//!
//! ```text
//!   spec.pinned, expirationTime ─► differ from status.recorded? ─► marks beside the manifest ─► condition Recorded
//!
//!   expirationTime passed ─┬─ pinned, needed by an increment or a restore ─► stays; condition Expired says why
//!                          ├─ the storage says otherwise (another cluster) ─► the object follows the storage
//!                          └─ else ─► removed with its data
//! ```
//! Several clusters may show the same backup. What this object says anew since it last told the storage, counts; of all
//! else the storage's word, and the object follows: a pin or a later expiry that another cluster set is not overrun.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::api::backup::DeletionPolicy;
use crate::api::backup_status::RecordedMarks;
use crate::api::conditions::{Said, events, reasons, status, types};
use crate::api::storage::AccessMode;
use crate::api::{MySQLBackup, MySQLBackupSpec};
use crate::archive::id::BackupId;
use crate::operator::cron::gather::restores;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::{MANAGER, REMOVAL};
use crate::operator::retention::{Need, Needs};
use crate::operator::store_access::Access;
use crate::store::{Marks, StoreError, ToldKind, explain, tell};

use super::confirm::Connected;
use super::validate::Gathered;
use super::{LOOK_AGAIN, Reconciliation, apply, until};

/// How soon after a storage could not be told.
const TELL_AGAIN: Duration = Duration::from_mins(2);
/// How soon something that is needed is looked at again: nothing tells when a restore ends.
const NEEDED_AGAIN: Duration = Duration::from_mins(5);
/// Nobody waits longer, however far away an expiry is.
const LONGEST_WAIT: Duration = Duration::from_hours(12);
/// A removal that was marked so long ago did not come to pass.
const REMOVAL_HOLDS: SignedDuration = SignedDuration::from_secs(60);

/// The operator's own decision to remove a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkedRemoval {
    /// What becomes of the data.
    pub(super) data: DeletionPolicy,
    /// When it was decided.
    decided: Timestamp,
}

impl MarkedRemoval {
    /// The same, decided when another clock says.
    pub(super) fn noted_at(self, decided: Timestamp) -> Self {
        Self { decided, ..self }
    }

    /// True if it no longer says anything at this time.
    pub(super) fn is_old(self, now: Timestamp) -> bool {
        now.duration_since(self.decided) > REMOVAL_HOLDS
    }
}

/// The text of the mark.
pub(super) fn removal_mark(data: DeletionPolicy, now: Timestamp) -> String {
    let data = match data {
        DeletionPolicy::Delete => "Delete",
        DeletionPolicy::Retain => "Retain",
    };
    format!("{data}/{now}")
}

/// The mark on a backup. What cannot be read is none: the deletion policy decides.
pub(super) fn removal(backup: &MySQLBackup) -> Option<MarkedRemoval> {
    let (data, decided) = backup.annotations().get(REMOVAL)?.split_once('/')?;
    let data = match data {
        "Delete" => DeletionPolicy::Delete,
        "Retain" => DeletionPolicy::Retain,
        _ => return None,
    };
    Some(MarkedRemoval { data, decided: decided.parse().ok()? })
}

/// When the API server took the mark, by its own clock, which also says when the object was deleted.
pub(super) fn marked_at(backup: &MySQLBackup) -> Option<Timestamp> {
    let fields = backup.metadata.managed_fields.iter().flatten();
    let own = fields.filter(|one| one.manager.as_deref() == Some(MANAGER) && one.subresource.is_none());
    own.filter_map(|one| one.time.as_ref().map(|time| time.0)).max()
}

/// The change that takes the mark away.
pub(super) fn withdrawn() -> Value {
    json!({"metadata": {"annotations": {(REMOVAL): null}}})
}

/// True if a backup's time has passed.
pub(super) fn is_over(spec: &MySQLBackupSpec, now: Timestamp) -> bool {
    spec.expiration_time.as_ref().is_some_and(|time| time.0 <= now)
}

/// What a spec says of pin and expiry, in whole seconds as the API has them.
fn marks_of(spec: &MySQLBackupSpec) -> RecordedMarks {
    recorded(&Marks { pinned: spec.pinned, expiration_time: spec.expiration_time.as_ref().map(|time| time.0) })
}

fn recorded(marks: &Marks) -> RecordedMarks {
    let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
    RecordedMarks { pinned: marks.pinned, expiration_time: marks.expiration_time.map(|time| Time(whole(time))) }
}

fn to_store(marks: &RecordedMarks) -> Marks {
    Marks { pinned: marks.pinned, expiration_time: marks.expiration_time.as_ref().map(|time| time.0) }
}

/// Pin and expiry after a change on each side of what was known before: each follows whoever changed it, and this side
/// if both did.
fn merge(known: &RecordedMarks, ours: &RecordedMarks, theirs: &RecordedMarks) -> RecordedMarks {
    let expires = if ours.expiration_time == known.expiration_time { theirs } else { ours };
    RecordedMarks {
        pinned: if ours.pinned == known.pinned { theirs.pinned } else { ours.pinned },
        expiration_time: expires.expiration_time.clone(),
    }
}

/// The change that makes a spec say what the storage says.
fn follow(marks: &RecordedMarks) -> Value {
    json!({"spec": {"pinned": marks.pinned, "expirationTime": marks.expiration_time}})
}

impl Reconciliation<'_> {
    /// Looks after a backup that has ended.
    pub(super) async fn keep(&mut self) -> Result<Action, OperatorError> {
        let tell = if self.status.has_succeeded() { self.record().await? } else { Next::Look(None) };
        let Next::Look(tell) = tell else { return Ok(Action::await_change()) };
        let Next::Look(expire) = self.expire().await? else { return Ok(Action::await_change()) };
        let again = tell.into_iter().chain(expire).min().map(|again| again.min(LONGEST_WAIT));
        self.write(again).await
    }

    /// Tells the storage of pin and expiry, if it does not know yet.
    async fn record(&mut self) -> Result<Next, OperatorError> {
        let ours = marks_of(&self.backup.spec);
        let known = self.status.recorded.clone().unwrap_or_default();
        if known == ours {
            return Ok(Next::Look(None));
        }
        let Connected { access, id, mode } = match self.connect(&Gathered::default()).await? {
            Ok(connected) => connected,
            Err(why) => {
                self.say_recorded(reasons::STORAGE_NOT_READY, &why);
                return Ok(Next::Look(Some(TELL_AGAIN)));
            }
        };
        if mode == AccessMode::ReadOnly {
            let message = "the BackupStorage is ReadOnly: only this object knows of pin and expiry";
            self.say_recorded(reasons::READ_ONLY, message);
            return Ok(Next::Look(None));
        }
        let told = access.update_marks(&id, |theirs| to_store(&merge(&known, &ours, &recorded(theirs)))).await;
        match told.map(|marks| recorded(&marks)) {
            Ok(marks) if marks != ours => {
                tracing::info!(%id, "pin or expiry was set in the storage meanwhile; the object follows");
                apply::change(&self.context.client, self.backup, follow(&marks)).await?;
                Ok(Next::ComesAgain)
            }
            Ok(marks) => {
                tracing::info!(%id, pinned = marks.pinned, "the storage knows of pin and expiry");
                self.status.recorded = Some(marks);
                let message = "the storage knows of pin and expiry";
                let said = Said { status: status::TRUE, reason: reasons::RECORDED, message };
                self.status.set_aside(types::RECORDED, Some(&said), self.at);
                Ok(Next::Look(None))
            }
            Err(error)
                if matches!(tell(&error).kind, ToldKind::NotFound | ToldKind::Deleted | ToldKind::Incomplete) =>
            {
                self.status.set_restorable(false, reasons::GONE_FROM_STORAGE, &error.to_string(), self.at);
                self.say_recorded(reasons::GONE_FROM_STORAGE, &error.to_string());
                Ok(Next::Look(None))
            }
            Err(error) => {
                self.say_recorded("Store", &explain(&error));
                Ok(Next::Look(Some(TELL_AGAIN)))
            }
        }
    }

    /// Tells the storage that the pin is gone, where it does not know yet: a removal would meet with the old one.
    pub(super) async fn unpin(&self, access: &Access, id: &BackupId) -> Result<(), StoreError> {
        let (ours, known) = (marks_of(&self.backup.spec), self.status.recorded.clone().unwrap_or_default());
        if ours.pinned || !known.pinned {
            return Ok(());
        }
        access.update_marks(id, |theirs| to_store(&merge(&known, &ours, &recorded(theirs)))).await.map(drop)
    }

    fn say_recorded(&mut self, reason: &str, message: &str) {
        let said = Said { status: status::FALSE, reason, message };
        self.status.set_aside(types::RECORDED, Some(&said), self.at);
    }

    /// Removes the backup if its time has passed and nothing speaks against it.
    async fn expire(&mut self) -> Result<Next, OperatorError> {
        let Some(expires) = self.backup.spec.expiration_time.as_ref().map(|time| time.0) else {
            self.status.set_aside(types::EXPIRED, None, self.at);
            return Ok(Next::Look(None));
        };
        if expires > self.at.now {
            self.status.set_aside(types::EXPIRED, None, self.at);
            return Ok(Next::Look(Some(until(expires, self.at.now) + Duration::from_millis(20))));
        }
        if !self.status.has_succeeded() {
            // One that was never started says so for as long as its manifest is applied.
            if self.status.reason() == reasons::EXPIRED {
                return Ok(Next::Look(None));
            }
            return self.remove_expired(DeletionPolicy::Retain).await;
        }
        if self.backup.spec.pinned {
            self.say_expired(reasons::PINNED, "spec.expirationTime has passed; it stays as long as it is pinned").await;
            return Ok(Next::Look(None));
        }
        if let Some(need) = self.need().await? {
            let message = format!("spec.expirationTime has passed; it stays because {need}");
            self.say_expired(need.reason(), &message).await;
            return Ok(Next::Look(Some(NEEDED_AGAIN)));
        }
        match self.does_storage_agree().await? {
            Agreement::Yes => self.remove_expired(DeletionPolicy::Delete).await,
            Agreement::Followed => Ok(Next::ComesAgain),
            Agreement::Unclear(reason, why) => {
                self.say_expired(reason, &format!("spec.expirationTime has passed; it stays for now: {why}")).await;
                Ok(Next::Look(Some(TELL_AGAIN)))
            }
        }
    }

    async fn remove_expired(&mut self, data: DeletionPolicy) -> Result<Next, OperatorError> {
        if apply::remove(self.context, self.backup, data, self.at.now).await? == apply::Removal::Changed {
            return Ok(Next::Look(Some(LOOK_AGAIN / 10)));
        }
        tracing::info!("the backup has expired and is removed");
        let note = "removed: its spec.expirationTime has passed".to_owned();
        apply::event(self.context, self.backup, EventType::Normal, events::BACKUP_EXPIRED, note).await;
        Ok(Next::ComesAgain)
    }

    async fn say_expired(&mut self, reason: &str, message: &str) {
        let said = Said { status: status::TRUE, reason, message };
        let find = |conditions| crate::api::conditions::find(conditions, types::EXPIRED).map(|one| one.reason.clone());
        let before = find(&self.status.conditions);
        self.status.set_aside(types::EXPIRED, Some(&said), self.at);
        if before.as_deref() != Some(reason) {
            apply::event(self.context, self.backup, EventType::Normal, events::BACKUP_KEPT, message.to_owned()).await;
        }
    }

    async fn need(&self) -> Result<Option<Need>, OperatorError> {
        let namespace = &self.who.namespace;
        let backups: Api<MySQLBackup> = Api::namespaced(self.context.client.clone(), namespace);
        let backups = backups.list(&ListParams::default()).await.during(|| format!("list backups of {namespace}"))?;
        let restores = restores(self.context).await?;
        let others = backups.iter().filter(|other| other.metadata.deletion_timestamp.is_none());
        let needs = Needs::gather(namespace, others, &restores);
        let id = self.status.backup_id.as_deref().unwrap_or_default();
        Ok(needs.of(&self.backup.name_any(), id).cloned())
    }

    /// Whether the storage knows the same of pin and expiry. If another cluster set them anew, this object follows.
    async fn does_storage_agree(&self) -> Result<Agreement, OperatorError> {
        let Connected { access, id, mode } = match self.connect(&Gathered::default()).await? {
            Ok(connected) => connected,
            Err(why) => return Ok(Agreement::Unclear(reasons::STORAGE_NOT_READY, why)),
        };
        let wanted = marks_of(&self.backup.spec);
        match access.read_marks(&id).await.map(|marks| recorded(&marks)) {
            // There the object alone goes.
            Ok(_) if mode == AccessMode::ReadOnly => Ok(Agreement::Yes),
            Ok(marks) if marks == wanted => Ok(Agreement::Yes),
            Ok(_) if self.status.recorded.as_ref() != Some(&wanted) => {
                Ok(Agreement::Unclear(reasons::STORAGE_NOT_READY, "the storage does not know of it yet".to_owned()))
            }
            Ok(marks) => {
                tracing::info!(%id, "pin or expiry was set anew in the storage; the object follows");
                apply::change(&self.context.client, self.backup, follow(&marks)).await?;
                Ok(Agreement::Followed)
            }
            Err(error) if matches!(tell(&error).kind, ToldKind::NotFound | ToldKind::Deleted) => Ok(Agreement::Yes),
            Err(error) => Ok(Agreement::Unclear("Store", explain(&error))),
        }
    }

    /// `spec.existing`, before it is shown: what the storage says of pin and expiry holds for an object that says
    /// nothing. Some: the object was changed and comes again.
    pub(super) async fn take_marks_from_storage(&mut self) -> Result<Option<Action>, OperatorError> {
        let marks = match self.connect(&Gathered::default()).await? {
            Ok(Connected { access, id, .. }) => access.read_marks(&id).await.map_err(|error| explain(&error)),
            Err(why) => Err(why),
        };
        let marks = match marks {
            Ok(marks) => recorded(&marks),
            Err(why) => {
                self.pending(reasons::STORAGE_NOT_READY, &why);
                return self.write(Some(LOOK_AGAIN)).await.map(Some);
            }
        };
        let usual = RecordedMarks::default();
        if marks != usual && marks_of(&self.backup.spec) == usual {
            apply::change(&self.context.client, self.backup, follow(&marks)).await?;
            return Ok(Some(Action::await_change()));
        }
        self.status.recorded = Some(marks).filter(|marks| *marks != usual);
        Ok(None)
    }
}

/// How it goes on.
enum Next {
    /// The object was changed or deleted, and comes again.
    ComesAgain,
    /// When to look again, if nothing changes until then.
    Look(Option<Duration>),
}

/// What the storage says to an expiry.
enum Agreement {
    Yes,
    Followed,
    Unclear(&'static str, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(annotation: &str) -> MySQLBackup {
        serde_json::from_value(json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
            "metadata": {"name": "b", "annotations": {"stillframe.dev/removal": annotation}},
            "spec": {"pinned": true, "expirationTime": "2026-03-14T15:09:26Z"},
        }))
        .unwrap()
    }

    #[test]
    fn a_decision_to_remove_holds_for_a_moment() {
        let now = Timestamp::from_second(1000).unwrap();
        for data in [DeletionPolicy::Delete, DeletionPolicy::Retain] {
            let found = removal(&backup(&removal_mark(data, now))).unwrap();
            assert_eq!((found.data, found.decided), (data, now));
            assert!(!found.is_old(Timestamp::from_second(1060).unwrap()));
            assert!(found.is_old(Timestamp::from_second(1061).unwrap()), "a deletion later on is somebody else's");
        }
        // Where the API server's clock goes a quarter of an hour ahead, it says when the mark was made, too.
        let mut marked = backup(&removal_mark(DeletionPolicy::Delete, now));
        assert_eq!(marked_at(&marked), None);
        let noted = json!([{"manager": MANAGER, "operation": "Update", "time": "1970-01-01T00:31:40Z"},
            {"manager": MANAGER, "operation": "Update", "subresource": "status", "time": "1970-01-01T01:00:00Z"}]);
        marked.metadata.managed_fields = serde_json::from_value(noted).unwrap();
        let noted = marked_at(&marked).unwrap();
        assert_eq!(noted, Timestamp::from_second(1900).unwrap());
        let found = removal(&marked).unwrap().noted_at(noted);
        assert!(!found.is_old(Timestamp::from_second(1901).unwrap()));
        for bad in ["", "Delete", "Delete/", "Delete/yesterday", "Burn/1970-01-01T00:16:40Z"] {
            assert_eq!(removal(&backup(bad)), None, "{bad}");
        }
    }

    #[test]
    fn marks_have_whole_seconds() {
        let marks = Marks { pinned: false, expiration_time: Some("2026-03-14T15:09:26.5Z".parse().unwrap()) };
        assert_eq!(recorded(&marks).expiration_time, Some(Time("2026-03-14T15:09:26Z".parse().unwrap())));
        let spec = backup("").spec;
        assert_eq!(recorded(&to_store(&marks_of(&spec))), marks_of(&spec));
        assert_eq!(
            follow(&marks_of(&spec)),
            json!({"spec": {"pinned": true, "expirationTime": "2026-03-14T15:09:26Z"}})
        );
        assert_eq!(follow(&RecordedMarks::default()), json!({"spec": {"pinned": false, "expirationTime": null}}));
    }

    #[test]
    fn each_side_keeps_what_it_changed() {
        let marks = |pinned, second: Option<i64>| RecordedMarks {
            pinned,
            expiration_time: second.map(|second| Time(Timestamp::from_second(second).unwrap())),
        };
        let known = marks(false, None);
        let pinned_there = marks(true, None);
        assert_eq!(merge(&known, &marks(false, Some(5)), &pinned_there), marks(true, Some(5)), "both changes");
        assert_eq!(merge(&known, &known, &pinned_there), pinned_there);
        assert_eq!(merge(&pinned_there, &known, &pinned_there), known, "the pin is taken away here");
        assert_eq!(merge(&known, &marks(false, Some(5)), &marks(false, Some(9))), marks(false, Some(5)), "ours");
        assert_eq!(merge(&marks(false, Some(5)), &marks(false, None), &marks(true, Some(5))), marks(true, None));
    }

    #[test]
    fn a_backup_is_over_at_its_time() {
        let spec = backup("").spec;
        assert!(!is_over(&spec, "2026-03-14T15:09:25Z".parse().unwrap()));
        assert!(is_over(&spec, "2026-03-14T15:09:26Z".parse().unwrap()));
    }
}
