//! The Kubernetes API `stillframe.dev/v1alpha1`: what people write, and what the operator answers.
//!
//! ```text
//!   MySQLBackup   (sfb)  one backup: to take, or found in a bucket      Succeeded
//!   MySQLRestore  (sfr)  a backup brought back into claims              Succeeded, or Ready for a data source
//!   CronBackup    (sfc)  backups by the clock, and their retention      Ready
//!   BackupStorage (sfs)  a bucket or a volume                           Ready
//! ```
//!
//! Owns the types, their schemas with all validation that an API server can do, and the named transitions of every
//! status. Talks to nobody: no client, no clock.
//!
//! Doc comments of fields are the users' documentation (`kubectl explain`, `docs/api.md`): they say what a value does,
//! not how.

#![allow(rustdoc::bare_urls, reason = "the descriptions are read as plain text, by kubectl explain")]
#![allow(clippy::duplicated_attributes, reason = "printer columns are one attribute each, and share words")]

pub mod backup;
pub mod backup_status;
pub mod common;
pub mod conditions;
pub mod cron;
pub mod reference;
pub mod restore;
pub mod restore_status;
pub mod runner;
mod schema;
pub mod source;
pub mod storage;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use backup::{MySQLBackup, MySQLBackupSpec};
pub use backup_status::{Moment, MySQLBackupStatus};
pub use cron::{CronBackup, CronBackupSpec, CronBackupStatus};
pub use restore::{MySQLRestore, MySQLRestoreSpec};
pub use restore_status::MySQLRestoreStatus;
pub use storage::{BackupStorage, BackupStorageSpec, BackupStorageStatus};

/// The API group.
pub const GROUP: &str = "stillframe.dev";
/// The version of the API that this code speaks.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all kinds, as the API server is to have them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut backup = MySQLBackup::crd();
    schema::freeze(&mut backup, backup::MUTABLE, "delete this MySQLBackup and create another one");
    let mut restore = MySQLRestore::crd();
    schema::freeze(&mut restore, restore::MUTABLE, "delete this MySQLRestore and create another one");
    let mut all = vec![backup, restore, CronBackup::crd(), BackupStorage::crd()];
    all.iter_mut().for_each(schema::finish);
    all
}

/// The definitions as one YAML stream, ready for `kubectl apply --server-side -f -`.
pub fn crds_yaml() -> Result<String, serde_yaml::Error> {
    crds().iter().map(crd_yaml).collect()
}

/// One definition as a YAML document, with its separator.
pub fn crd_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    Ok(format!("---\n{}", serde_yaml::to_string(definition)?))
}
