//! Fetches a schedule's backups, and what needs them. The only step that reads from the cluster.

use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::api::{CronBackup, MySQLBackup, MySQLRestore};
use crate::operator::Context;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::{SCHEDULE, schedule_label};
use crate::operator::retention::Needs;

use super::build::is_own;

/// All backups of a schedule.
pub(super) async fn children(client: &Client, cron: &CronBackup) -> Result<Vec<MySQLBackup>, OperatorError> {
    let namespace = cron.namespace().unwrap_or_default();
    let backups: Api<MySQLBackup> = Api::namespaced(client.clone(), &namespace);
    let own = ListParams::default().labels(&format!("{SCHEDULE}={}", schedule_label(&cron.name_any())));
    let found = backups.list(&own).await.during(|| format!("list backups of {namespace}/{}", cron.name_any()))?;
    Ok(found.items)
}

/// What is needed of a namespace's backups, besides what the given ones need among themselves.
pub(super) async fn needs(context: &Context, cron: &CronBackup) -> Result<Needs, OperatorError> {
    let namespace = cron.namespace().unwrap_or_default();
    let backups: Api<MySQLBackup> = Api::namespaced(context.client.clone(), &namespace);
    let backups = backups.list(&ListParams::default()).await.during(|| format!("list backups of {namespace}"))?;
    let restores = restores(context).await?;
    // A schedule's own increments stay or go with the rules; those that have not ended are nobody's candidates.
    let others = backups.iter().filter(|backup| !is_own(cron, backup) || !ended(backup));
    Ok(Needs::gather(&namespace, others, &restores))
}

/// All restores that this operator sees: they may read a storage from another namespace.
pub(crate) async fn restores(context: &Context) -> Result<Vec<MySQLRestore>, OperatorError> {
    let found = context.api::<MySQLRestore>().list(&ListParams::default()).await;
    Ok(found.during(|| "list restores".to_owned())?.items)
}

fn ended(backup: &MySQLBackup) -> bool {
    backup.status.as_ref().is_some_and(crate::api::MySQLBackupStatus::has_ended)
}
