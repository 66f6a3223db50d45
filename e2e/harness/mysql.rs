//! MySQL in the cluster: a StatefulSet, its SQL, its checksums, its replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::load::check_invariants;
use super::objects::restore;
use super::space::Space;
use super::{MYSQL_IMAGE, fill, until};

/// The account that backups use, and its password.
pub const BACKUP_USER: &str = "stillframe";
pub const BACKUP_PASSWORD: &str = "backup-secret";

/// A MySQL StatefulSet.
#[derive(Clone)]
pub struct Mysql {
    pub space: Space,
    pub name: String,
}

impl Mysql {
    /// Starts one of so many members, independent of each other, and waits until all are ready.
    pub async fn start(space: &Space, name: &str, replicas: u32, server_id_base: u32) -> Result<Self> {
        let mysql = Self::apply(space, name, replicas, server_id_base).await?;
        mysql.ready(replicas).await?;
        Ok(mysql)
    }

    /// Applies the StatefulSet and does not wait. Claims `data-NAME-N` that are there already are used as they are.
    pub async fn apply(space: &Space, name: &str, replicas: u32, server_id_base: u32) -> Result<Self> {
        let (replicas, base) = (replicas.to_string(), server_id_base.to_string());
        let values = [("NAME", name), ("IMAGE", MYSQL_IMAGE), ("REPLICAS", &replicas), ("SERVER_ID_BASE", &base)];
        space.apply(&fill(include_str!("../fixtures/mysql.yaml"), &values)).await?;
        Ok(Self { space: space.clone(), name: name.to_owned() })
    }

    /// Restores a backup of this server into a new claim, starts a server on it, and demands the rows of this one. Gives
    /// that server and the `MySQLRestore`, which are both called `back`.
    pub async fn brought_back(&self, backup: &str) -> Result<(Self, Value)> {
        let target = json!({ "newClaim": { "name": "data-back-0", "template": { "storage": "2Gi" } } });
        self.space.apply_object(&restore("back", backup, &target)).await?;
        let restored = self.space.succeeded("MySQLRestore", "back").await?;
        let back = Self::start(&self.space, "back", 1, 200).await?;
        check_invariants(&back, 0).await?;
        back.has_the_rows_of(0, self, 0).await?;
        Ok((back, restored))
    }

    /// Applies a StatefulSet as soon as its claims are there, all of them: one that is missing it would make itself,
    /// empty.
    pub async fn start_after_restore(space: &Space, name: &str, replicas: u32, server_id_base: u32) -> Result<Self> {
        for member in 0..replicas {
            let claim = format!("data-{name}-{member}");
            space.wait("PersistentVolumeClaim", &claim, "is there", super::objects::MINUTES, |_| true).await?;
        }
        Self::apply(space, name, replicas, server_id_base).await
    }

    /// Waits until so many members are ready.
    pub async fn ready(&self, replicas: u32) -> Result<()> {
        let wanted = Some(i64::from(replicas));
        let within = Duration::from_mins(5);
        let ready = |set: &Value| set.pointer("/status/readyReplicas").and_then(Value::as_i64) == wanted;
        self.space.wait("StatefulSet", &self.name, "is ready", within, ready).await?;
        Ok(())
    }

    /// A member's pod.
    pub fn pod(&self, member: u32) -> String {
        format!("{}-{member}", self.name)
    }

    /// A member's claim.
    pub fn claim(&self, member: u32) -> String {
        format!("data-{}-{member}", self.name)
    }

    /// A member's host name, from anywhere in the cluster.
    pub fn host(&self, member: u32) -> String {
        format!("{}-{member}.{}.{}.svc", self.name, self.name, self.space.name)
    }

    /// Runs SQL in a member as root, and returns what it prints: rows as lines, columns parted by tabs.
    pub async fn sql(&self, member: u32, sql: &str) -> Result<String> {
        let client = ["mysql", "--no-defaults", "--socket=/run/mysqld/mysqld.sock", "-uroot", "--batch", "--raw", "-N"];
        let output = self.space.exec(&self.pod(member), "mysql", &client, sql).await;
        let output = output
            .with_context(|| format!("SQL on {}: {}", self.pod(member), sql.chars().take(300).collect::<String>()))?;
        Ok(output.trim_end().to_owned())
    }

    /// Makes the account for backups by the SQL that `stillframe grants` printed, and its secret.
    pub async fn make_backup_user(&self, member: u32, grants: &str) -> Result<()> {
        self.sql(member, &format!("{grants}\nALTER USER {BACKUP_USER} IDENTIFIED BY '{BACKUP_PASSWORD}';")).await?;
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {}-backup-user}}\nstringData: {{username: {BACKUP_USER}, password: {BACKUP_PASSWORD}}}\n",
            self.name
        );
        self.space.apply(&secret).await?;
        Ok(())
    }

    /// All tables of the user's with their checksums over all rows.
    pub async fn checksums(&self, member: u32) -> Result<BTreeMap<String, String>> {
        let tables = self
            .sql(
                member,
                "SELECT CONCAT('`', TABLE_SCHEMA, '`.`', TABLE_NAME, '`') FROM information_schema.TABLES \
                 WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
            )
            .await?;
        let tables: Vec<&str> = tables.lines().collect();
        ensure!(!tables.is_empty(), "{} has no tables to compare", self.pod(member));
        let lines = self.sql(member, &format!("CHECKSUM TABLE {} EXTENDED", tables.join(", "))).await?;
        let sums: BTreeMap<String, String> = lines
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(table, sum)| (table.to_owned(), sum.to_owned()))
            .collect();
        ensure!(sums.len() == tables.len(), "checksums of {} tables are {}", tables.len(), sums.len());
        ensure!(!sums.values().any(|sum| sum == "NULL"), "a table cannot be read: {sums:?}");
        Ok(sums)
    }

    /// The GTID set of all that a member has executed.
    pub async fn gtid_executed(&self, member: u32) -> Result<String> {
        Ok(self.sql(member, "SELECT @@global.gtid_executed").await?.replace('\n', ""))
    }

    /// Whether one GTID set is a part of another.
    pub async fn is_subset(&self, member: u32, part: &str, whole: &str) -> Result<bool> {
        Ok(self.sql(member, &format!("SELECT GTID_SUBSET('{part}', '{whole}')")).await? == "1")
    }

    /// Makes a member a replica of another server's, from the GTIDs that it has on. What was restored from a replica's
    /// backup first has to forget that one's relay logs.
    pub async fn follow(&self, member: u32, source: &Self, source_member: u32) -> Result<()> {
        let sql = format!(
            "RESET REPLICA ALL; CHANGE REPLICATION SOURCE TO SOURCE_HOST='{}', SOURCE_USER='root', SOURCE_PASSWORD='secret', \
             SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1; START REPLICA;",
            source.host(source_member)
        );
        self.sql(member, &sql).await?;
        Ok(())
    }

    /// Makes member 0 of so many fresh members the primary, and the others its read-only replicas.
    pub async fn replicate(&self, members: u32) -> Result<()> {
        for member in 0..members {
            // What each did when it was made is no history to share.
            self.sql(member, "RESET BINARY LOGS AND GTIDS").await?;
        }
        for member in 1..members {
            self.follow(member, self, 0).await?;
            self.sql(member, "SET PERSIST super_read_only = ON").await?;
        }
        Ok(())
    }

    /// Whether a member keeps to itself, as restored ones do: events and replication off, no channel at work.
    pub async fn keeps_to_itself(&self, member: u32) -> Result<bool> {
        let sql = "SELECT @@global.event_scheduler, @@global.skip_replica_start, COUNT(*) \
                   FROM performance_schema.replication_connection_status WHERE SERVICE_STATE <> 'OFF'";
        Ok(self.sql(member, sql).await? == "OFF\t1\t0")
    }

    /// Waits until a replica has executed a GTID set. Fails at once when its applier stopped.
    pub async fn catch_up(&self, member: u32, gtids: &str, within: Duration) -> Result<()> {
        until(&format!("{} to catch up", self.pod(member)), within, || async {
            if self.sql(member, &format!("SELECT GTID_SUBSET('{gtids}', @@global.gtid_executed)")).await? == "1" {
                return Ok(Ok(()));
            }
            let errors = self
                .sql(
                    member,
                    "SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker WHERE LAST_ERROR_NUMBER <> 0 \
                     UNION ALL SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_connection_status WHERE LAST_ERROR_NUMBER <> 0",
                )
                .await?;
            ensure!(errors.is_empty(), "the replica {} stopped: {errors}", self.pod(member));
            Ok(Err(self.gtid_executed(member).await?))
        })
        .await
    }

    /// Waits until no backup holds a member's backup lock.
    pub async fn unlocked(&self, member: u32) -> Result<()> {
        let sql = "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE OBJECT_TYPE = 'BACKUP LOCK' AND LOCK_TYPE = 'SHARED'";
        until("the backup lock to be free", Duration::from_secs(30), || async {
            let held = self.sql(member, sql).await?;
            Ok(if held == "0" { Ok(()) } else { Err(format!("{held} holders")) })
        })
        .await
    }

    /// Fails unless a member has the very rows of another server's.
    pub async fn has_the_rows_of(&self, member: u32, other: &Self, other_member: u32) -> Result<()> {
        let (here, there) = (self.checksums(member).await?, other.checksums(other_member).await?);
        ensure!(
            here == there,
            "rows differ: {} has {here:?}, {} has {there:?}",
            self.pod(member),
            other.pod(other_member)
        );
        Ok(())
    }
}
