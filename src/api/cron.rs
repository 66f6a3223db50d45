//! `CronBackup`: backups by the clock, and how long they stay.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup::{DeletionPolicy, MySQLBackupSpec};
use super::backup_status::Moment;
use super::common::ObjectRef;
use super::conditions::{self, Said, status, types};
use super::schema;

/// Takes backups by a schedule and removes them again by rules. Deleting it deletes no backup.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "stillframe.dev",
    version = "v1alpha1",
    kind = "CronBackup",
    namespaced,
    status = "CronBackupStatus",
    shortname = "sfc",
    category = "stillframe",
    derive = "PartialEq",
    doc = "Takes backups by a schedule and removes them again by rules. Deleting it deletes no backup.",
    printcolumn(
        name = "Schedule",
        type_ = "string",
        json_path = ".spec.schedule",
        description = "When backups are taken"
    ),
    printcolumn(
        name = "Suspend",
        type_ = "boolean",
        json_path = ".spec.suspend",
        description = "Whether it is held back"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the schedule works"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessfulTime",
        description = "How old the newest good backup is"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextScheduleTime",
        description = "When the next backup is due"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Time Zone",
        type_ = "string",
        json_path = ".spec.timeZone",
        priority = 1,
        description = "The time zone of the schedule"
    ),
    printcolumn(
        name = "Last Backup",
        type_ = "string",
        json_path = ".status.lastSuccessfulBackupName",
        priority = 1,
        description = "The newest good backup"
    ),
    printcolumn(
        name = "Storage",
        type_ = "string",
        json_path = ".spec.backupTemplate.spec.storageRef.name",
        priority = 1,
        description = "Where backups go"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct CronBackupSpec {
    /// When backups are taken: minute, hour, day of the month, month, day of the week, as in "30 2 * * 1-5"; or
    /// @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually.
    #[schemars(schema_with = "schedule")]
    pub schedule: String,
    /// The time zone that the schedule is meant in, for example Europe/Vienna. A time of day that the change to summer
    /// time skips comes at the first moment after it; one that comes twice is taken the first time. Schedules of every
    /// hour (hour * or */n) go by the clock instead: what is skipped is left out, what comes twice is taken twice.
    #[serde(default = "CronBackupSpec::default_time_zone")]
    #[schemars(schema_with = "time_zone")]
    pub time_zone: String,
    /// Takes no new backups; running ones run on, and retention goes on.
    #[serde(default)]
    pub suspend: bool,
    /// Takes the first backup at once when this object is created.
    #[serde(default)]
    pub immediate: bool,
    /// What to do when a backup is due while one is running: Forbid leaves the new one out, Allow runs both, Replace
    /// cancels the old one.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How late a backup may start that was missed (the operator was down, another backup was running). Of several
    /// missed ones only the last is made up for. Unset: however late. What was left out by suspend, or was due before a
    /// change of the schedule, is not made up for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,
    /// Spreads schedules that are due at the same moment: each starts by a delay of its own, up to so many seconds,
    /// always the same for the same object.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub jitter_seconds: i64,
    /// The backups to create.
    pub backup_template: BackupTemplate,
    /// Which backups of this schedule stay: those that any rule wants. The last good one, pinned ones and those that
    /// an incremental backup or a restore needs stay in any case. Unset: all stay. Backups of a former CronBackup of
    /// the same name count, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// How many failed backups are kept to be looked at.
    #[serde(default = "CronBackupSpec::default_failed_history")]
    #[schemars(range(min = 0, max = 100))]
    pub failed_backups_history_limit: i32,
}

impl CronBackupSpec {
    fn default_time_zone() -> String {
        "Etc/UTC".to_owned()
    }

    const fn default_failed_history() -> i32 {
        3
    }
}

/// What to do when a backup is due while one is running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Run both.
    Allow,
    /// Leave the new one out.
    #[default]
    Forbid,
    /// Cancel the old one.
    Replace,
}

/// The backups to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.spec.existing)", "leave out backupTemplate.spec.existing: a schedule takes backups, it shows none"),
    ("!has(self.spec.baseRef)", "leave out backupTemplate.spec.baseRef: each incremental builds on the newest backup"),
    (
        "!has(self.spec.expirationTime)",
        "leave out backupTemplate.spec.expirationTime: say how long backups stay under spec.retention",
    ),
])))]
pub struct BackupTemplate {
    /// Labels and annotations of the backups. Those of the CronBackup itself are not copied, so that a GitOps tool
    /// never takes a backup for an object of its own.
    #[serde(default, skip_serializing_if = "super::backup::is_default")]
    pub metadata: TemplateMetadata,
    /// As spec of a MySQLBackup. May be changed: the next backup is taken by it.
    pub spec: MySQLBackupSpec,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMetadata {
    /// Labels of the backups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::label_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the backups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::label_map")]
    pub annotations: BTreeMap<String, String>,
}

/// Which backups stay: those that any rule wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "has(self.keepLast) || has(self.keepDaily) || has(self.keepWeekly) || has(self.keepMonthly) || has(self.keepWithinSeconds)",
    "set at least one rule under spec.retention, or leave it out to keep all backups",
)])))]
pub struct RetentionSpec {
    /// Keeps the newest so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: Option<i32>,
    /// Keeps the newest of each of so many days that have one, in the schedule's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_daily: Option<i32>,
    /// Keeps the newest of each of so many weeks that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_weekly: Option<i32>,
    /// Keeps the newest of each of so many months that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_monthly: Option<i32>,
    /// Keeps every backup that is not older.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 3_153_600_000_i64))]
    pub keep_within_seconds: Option<i64>,
    /// What becomes of the stored data of backups that no rule wants: Delete removes it with the object, Retain removes
    /// the object only and leaves the data in the storage, for good. The backups' own deletionPolicy is about deletions
    /// by others.
    #[serde(default = "RetentionSpec::default_deletion_policy")]
    pub deletion_policy: DeletionPolicy,
}

impl RetentionSpec {
    /// Rules of how long backups stay are of little use if their data stays.
    const fn default_deletion_policy() -> DeletionPolicy {
        DeletionPolicy::Delete
    }
}

/// How a schedule stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronBackupStatus {
    /// The generation of the object that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready sums up: True while backups are taken as scheduled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Backups of this schedule that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub active: Vec<ObjectRef>,
    /// When a backup was last due and created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next one is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// When the newest good backup was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The newest good backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_backup_name: Option<String>,
    /// Times of the schedule up to this one are done with, taken or left out: nothing is made up for before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_from_time: Option<Time>,
    /// The schedule and time zone that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub observed_schedule: Option<String>,
}

impl CronBackupStatus {
    /// Backups are taken as scheduled.
    pub fn set_ready(&mut self, message: &str, at: Moment) {
        self.say(status::TRUE, conditions::reasons::SCHEDULED, message, at);
    }

    /// They are not, and this is why.
    pub fn set_not_ready(&mut self, reason: &str, message: &str, at: Moment) {
        self.next_schedule_time = None;
        self.say(status::FALSE, reason, message, at);
    }

    fn say(&mut self, status: &'static str, reason: &str, message: &str, at: Moment) {
        let said = Said { status, reason, message };
        conditions::set(&mut self.conditions, types::READY, &said, at.generation, at.now);
        self.observed_generation = Some(at.generation);
    }
}

/// One field of a schedule: values, ranges, steps and lists of them. `value` is a pattern without a group of its own.
fn field(value: &str) -> String {
    let item = format!(r"(\*|({value})(-({value}))?)(/[1-9][0-9]?)?");
    format!("{item}(,{item})*")
}

fn schedule_pattern() -> String {
    let minute = field("[0-5]?[0-9]");
    let hour = field("[01]?[0-9]|2[0-3]");
    let day = field("0?[1-9]|[12][0-9]|3[01]");
    let month = field(
        "0?[1-9]|1[0-2]|[jJ][aA][nN]|[fF][eE][bB]|[mM][aA][rR]|[aA][pP][rR]|[mM][aA][yY]|[jJ][uU][nN]|[jJ][uU][lL]|[aA][uU][gG]|[sS][eE][pP]|[oO][cC][tT]|[nN][oO][vV]|[dD][eE][cC]",
    );
    let weekday =
        field("[0-7]|[sS][uU][nN]|[mM][oO][nN]|[tT][uU][eE]|[wW][eE][dD]|[tT][hH][uU]|[fF][rR][iI]|[sS][aA][tT]");
    format!("^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|{minute} {hour} {day} {month} {weekday})$")
}

fn schedule(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let rule = format!("self.matches({})", serde_json::Value::String(schedule_pattern()));
    schemars::json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "x-kubernetes-validations": schema::rules(&[(
            rule.as_str(),
            "is no schedule: write five fields (minute hour day month weekday) parted by single spaces, as in \
             '30 2 * * 1-5', or @daily and the like",
        )]),
    })
}

/// The API server itself knows the time zones: asking it for an hour there fails for one that does not exist.
fn time_zone(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
        "x-kubernetes-validations": schema::rules(&[
            (
                "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$') && self != 'Local'",
                "is no time zone: write a name of the IANA database, as in Europe/Vienna or Etc/UTC",
            ),
            (
                "timestamp('2000-01-01T00:00:00Z').getHours(self) >= 0",
                "is not a known time zone: write a name of the IANA database, as in Europe/Vienna or Etc/UTC",
            ),
        ]),
    })
}
