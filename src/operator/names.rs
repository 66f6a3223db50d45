//! Names and labels of what the operator makes: the same for the same object, always, so that two operators that are
//! alive for a moment make one thing and not two.
//!
//! ```text
//!   run    <object's name, cut>-<8 hex digits of a hash of uid>     ConfigMap, Role, RoleBinding
//!   pod    <run>-<work>-<attempt>
//!   backup of a schedule   <schedule, cut>-<minute that it was due, UTC>
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use xxhash_rust::xxh3::xxh3_64;

use crate::archive::id::BackupId;
use crate::util::clock::format_compact;

/// Marks what belongs to this project.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "stillframe");
/// Carries the uid of the object that something was made for: a name may be too long for a label.
pub(crate) const OWNER_UID: &str = "stillframe.dev/owner-uid";
/// Carries the kind of that object.
pub(crate) const OWNER_KIND: &str = "stillframe.dev/owner-kind";
/// Names the schedule that created a backup; see [`schedule_label`].
pub(crate) const SCHEDULE: &str = "stillframe.dev/schedule";
/// Says for which time of its schedule a backup was created. An annotation.
pub(crate) const SCHEDULED_TIME: &str = "stillframe.dev/scheduled-time";
/// Says that the operator itself removes a backup, what becomes of its data, and when that was decided. An annotation.
pub(crate) const REMOVAL: &str = "stillframe.dev/removal";
/// Who wrote a field, for server-side apply.
pub(crate) const MANAGER: &str = "stillframe-operator";
/// The ServiceAccount of runners whose storage names none.
pub(crate) const RUNNER_ACCOUNT: &str = "stillframe-runner";
/// The ServiceAccount of pods that answer for a storage which names none: what they say is not a runner's to write.
pub(crate) const STORE_ACCOUNT: &str = "stillframe-store";
/// Tells what a pod of ours does.
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";

/// Longest base of a name: what is made of it must stay below 63 letters, as hostnames of pods do.
const BASE: usize = 34;

/// An object as logs name it.
pub(crate) fn key(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// The name of a run's objects.
pub(crate) fn run_name(object: &str, uid: &str) -> String {
    let mut base: String = object.chars().map(|letter| if letter == '.' { '-' } else { letter }).take(BASE).collect();
    base.truncate(base.trim_end_matches('-').len());
    format!("{base}-{:08x}", xxh3_64(uid.as_bytes()) >> 32)
}

/// The name of a runner's pod, and the key of its report.
pub(crate) fn pod_name(run: &str, work: &str, attempt: i32) -> String {
    format!("{run}-{}", report_key(work, attempt))
}

/// The key of a runner's report.
pub(crate) fn report_key(work: &str, attempt: i32) -> String {
    format!("{work}-{attempt}")
}

/// Labels of everything made for an object. Never the object's own: a GitOps tool would take it for its own.
pub(crate) fn labels(kind: &str, uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "stillframe".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "runner".to_owned()),
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (OWNER_KIND.to_owned(), kind.to_owned()),
        (OWNER_UID.to_owned(), uid.to_owned()),
    ])
}

/// Cuts a text to what fits, with a hash of the whole in place of what was cut off.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let hash = format!("{:08x}", xxh3_64(text.as_bytes()) >> 32);
    let cut = text.get(..most.saturating_sub(hash.len() + 1)).unwrap_or_default();
    format!("{}-{hash}", cut.trim_end_matches(['-', '.']))
}

/// What the label [`SCHEDULE`] says for a schedule of this name: a name may be longer than a label.
pub(crate) fn schedule_label(schedule: &str) -> String {
    shortened(schedule, 63)
}

/// The name of the backup that a schedule takes for this time.
pub(crate) fn scheduled_backup_name(schedule: &str, due: Timestamp) -> String {
    const MINUTE: &str = "%Y%m%d%H%M";
    format!("{}-{}", shortened(schedule, 240), due.strftime(MINUTE))
}

/// The name that a backup gets in its id: the schedule's, so that all of a schedule have one; or else the object's, cut
/// where an id could not hold it.
fn backup_name(object: &ObjectMeta) -> String {
    const MOST: usize = 200;
    let name = object.name.as_deref().unwrap_or_default();
    let schedule = object.labels.as_ref().and_then(|labels| labels.get(SCHEDULE));
    let name = match schedule {
        Some(schedule) if name.strip_prefix(schedule.as_str()).is_some_and(|rest| rest.starts_with('-')) => schedule,
        _ => name,
    };
    if name.len() <= MOST && !name.contains("..") {
        return name.to_owned();
    }
    let hash = format!("{:08x}", xxh3_64(name.as_bytes()) >> 32);
    let cut: String = name.replace("..", ".").chars().take(MOST - hash.len() - 1).collect();
    format!("{}-{hash}", cut.trim_end_matches(['-', '.']))
}

/// The id of an object's backup: made of what never changes about the object, so that no lost status and no second
/// operator can make another one. `turn` is 0, and more once an id was given up for good.
pub(crate) fn backup_id(object: &ObjectMeta, turn: u32) -> Option<BackupId> {
    let created = object.creation_timestamp.as_ref()?.0;
    let uid = object.uid.as_deref()?;
    let hash = xxh3_64(format!("{uid}/{turn}").as_bytes()) >> 32;
    format!("{}-{}-{hash:08x}", backup_name(object), format_compact(created)).parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::archive::id::check_name;

    #[test]
    fn an_object_has_one_id() {
        let object = ObjectMeta {
            name: Some("shop".into()),
            uid: Some("2f1c".into()),
            creation_timestamp: Some(Time(jiff::Timestamp::from_second(1_773_500_966).unwrap())),
            ..ObjectMeta::default()
        };
        let id = backup_id(&object, 0).unwrap();
        assert!(id.as_str().starts_with("shop-20260314T150926Z-"), "{id}");
        assert_eq!(backup_id(&object, 0).unwrap(), id);
        assert_ne!(backup_id(&object, 1).unwrap(), id);
        let again = ObjectMeta { uid: Some("other".into()), ..object };
        assert_ne!(backup_id(&again, 0).unwrap(), id, "created anew in the same second");
    }

    #[test]
    fn names_stay_within_what_kubernetes_takes() {
        let long = "a".repeat(253);
        let run = run_name(&long, "uid-1");
        assert_eq!(run, run_name(&long, "uid-1"), "always the same");
        assert_ne!(run, run_name(&long, "uid-2"), "another object of the same name");
        assert!(pod_name(&run, "backup", 21).len() < 63);
        assert_eq!(run_name("shop.example.com", "u").split('-').next(), Some("shop"));
        assert!(!run_name(&format!("{}-x", "a".repeat(33)), "u").contains("--"));
    }

    #[test]
    fn a_schedule_has_one_backup_for_each_time() {
        let at = |second: i64| Timestamp::from_second(1_773_500_966 + second).unwrap();
        assert_eq!(scheduled_backup_name("nightly", at(0)), "nightly-202603141509");
        assert_eq!(scheduled_backup_name("nightly", at(30)), "nightly-202603141509", "within the minute");
        assert_ne!(scheduled_backup_name("nightly", at(60)), "nightly-202603141509");
        let long = "a".repeat(253);
        assert!(scheduled_backup_name(&long, at(0)).len() <= 253);
        assert_ne!(scheduled_backup_name(&long, at(0)), scheduled_backup_name(&format!("{long}b")[1..], at(0)));
        assert_eq!(schedule_label("nightly"), "nightly");
        assert_eq!(schedule_label(&long).len(), 63);
    }

    #[test]
    fn backups_of_a_schedule_share_its_name() {
        let mut object = ObjectMeta { name: Some("nightly-202603141509".into()), ..ObjectMeta::default() };
        assert_eq!(backup_name(&object), "nightly-202603141509");
        object.labels = Some(BTreeMap::from([(SCHEDULE.to_owned(), "nightly".to_owned())]));
        assert_eq!(backup_name(&object), "nightly");
        object.labels = Some(BTreeMap::from([(SCHEDULE.to_owned(), "other".to_owned())]));
        assert_eq!(backup_name(&object), "nightly-202603141509", "a label that does not belong to it");
    }

    #[test]
    fn every_objects_name_makes_a_backups_name() {
        for name in ["shop", "a.b-c", &"a".repeat(253), &format!("{}.b", "a".repeat(199))] {
            let object = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            check_name(&backup_name(&object)).unwrap();
        }
    }
}
