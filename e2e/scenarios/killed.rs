//! A runner that is killed at each step of a backup and of a restore, as the kernel kills: without a word.
//!
//! ```text
//!   preflight ─ lock ─ copy ─ global read lock ─ cut ─ upload ─ manifest ─ report        open ─ write ─ sync ─ report
//!       ✝        ✝      ✝            ✝            ✝      ✝      ✝        ✝                 ✝      ✝       ✝      ✝
//! ```
//! Each time: the server's locks go, nobody queues, nothing is reported good that is not, another try does it, and the
//! rows are the source's.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, gtids, restore};
use crate::harness::space::{condition_of, text};
use crate::harness::{Bucket, Load, Mysql, Space, say, scenario, until};

/// When a runner dies.
struct Moment {
    /// The object's name.
    name: &'static str,
    /// What is true then, in bash.
    condition: &'static str,
    /// The steps that it can be in.
    steps: &'static [&'static str],
}

/// Moments of a backup that need no help to be met.
const OF_A_BACKUP: [Moment; 5] = [
    Moment { name: "preflight", condition: r#"said '"step":"preflight"'"#, steps: &["preflight"] },
    Moment { name: "copy", condition: r#"said '"step":"copy"'"#, steps: &["copy"] },
    Moment { name: "upload", condition: r#"said '"step":"upload"'"#, steps: &["upload", "index"] },
    Moment {
        name: "uncommitted",
        condition: r#"there "$bucket/shop/backups/uncommitted-*/data/*/files""#,
        steps: &["index", "commit"],
    },
    Moment {
        name: COMMITTED,
        condition: r#"there "$bucket/shop/backups/committed-*/manifest.json""#,
        steps: &["commit"],
    },
];
/// A moment may be over before anybody could act on it: so often it is looked for.
const TRIES: usize = 6;
/// The one that was killed too late to be none.
const COMMITTED: &str = "committed";
/// Those that somebody must hold until they are met.
const HELD: [&str; 3] = ["lock", "read-lock", "cut"];

/// Moments of a restore. The last two differ in their claims.
const OF_A_RESTORE: [Moment; 5] = [
    Moment { name: "preflight", condition: r#"said '"step":"open"'"#, steps: &["open", "check target", "scan redo"] },
    Moment { name: "lock", condition: r#"there "$root/restore/mysql.ibd""#, steps: &["restore"] },
    Moment { name: "copy", condition: r#"said '"step":"sync"'"#, steps: &["sync"] },
    Moment { name: "upload", condition: COMPLETE, steps: &["sync"] },
    Moment { name: EXISTING, condition: COMPLETE, steps: &["sync"] },
];
const COMPLETE: &str =
    r#"eval 'there "$root/restore/mysql.ibd" && ! there "$root/restore/stillframe-restore-incomplete"'"#;
/// Its backup is brought back into a claim that is there.
const EXISTING: &str = "cut";

/// What all of it happens to.
struct Stage {
    space: Space,
    bucket: Bucket,
    bucket_pod: String,
    mysql: Mysql,
    load: Load,
}

impl Stage {
    async fn set(space: &Space) -> Result<Self> {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(space, "s3"), loaded_server(space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let pods = space.list("Pod", "app=s3").await?;
        let bucket_pod = text(pods.first().context("the bucket has no pod")?, "/metadata/name").to_owned();
        // Tables of another engine make every backup take the global read lock.
        mysql
            .sql(0, "CREATE TABLE shop.plain (id INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO shop.plain VALUES (1)")
            .await?;
        Ok(Self { space: space.clone(), bucket, bucket_pod, mysql, load })
    }

    /// Applies a backup and returns its runner's pod.
    async fn begin(&self, name: &str) -> Result<String> {
        self.space.apply_object(&backup(name, "bucket", &self.mysql)).await?;
        Ok(self.space.runner(name).await?.0)
    }

    async fn step(&self, pod: &str, step: &str) -> Result<()> {
        self.space.in_step(pod, None, step).await
    }

    /// What a number in MySQL is to become.
    async fn count(&self, what: &str, sql: &str, wanted: impl Fn(u64) -> bool) -> Result<()> {
        until(what, Duration::from_secs(20), || async {
            let count: u64 = self.mysql.sql(0, sql).await?.parse()?;
            Ok(if wanted(count) { Ok(()) } else { Err(count.to_string()) })
        })
        .await
    }

    /// After a death: nothing in the server is the runner's any more, nobody waits, and the application goes on.
    async fn freed(&self, name: &str, pod: &str) -> Result<()> {
        if let Some(dead) = self.dead(name, pod).await? {
            let code = dead.pointer("/status/containerStatuses/0/state/terminated/exitCode").and_then(Value::as_i64);
            ensure!(code == Some(137), "{name}: its runner was not killed: {dead}");
            let mine = format!(
                "SELECT COUNT(*) FROM performance_schema.processlist WHERE HOST LIKE '{}:%'",
                text(&dead, "/status/podIP")
            );
            self.count(&format!("{name}: its connections to go"), &mine, |left| left == 0).await?;
        }
        self.count(&format!("{name}: nobody to wait"), WAITING, |left| left == 0).await?;
        self.load.more(10).await
    }

    /// A runner's pod once it is dead. That of a backup that was committed is removed when the operator has seen that, which
    /// may be before anybody else has seen the pod: none then.
    async fn dead(&self, name: &str, pod: &str) -> Result<Option<Value>> {
        let succeeded = |backup: &Value| {
            condition_of(backup, "Succeeded").is_some_and(|condition| text(condition, "/status") == "True")
        };
        until(&format!("{pod} to be dead"), MINUTES, || async {
            Ok(match self.space.find("Pod", pod).await? {
                Some(pod) if text(&pod, "/status/phase") == "Failed" => Ok(Some(pod)),
                Some(pod) => Err(text(&pod, "/status/phase").to_owned()),
                None if name == COMMITTED && succeeded(&self.space.get("MySQLBackup", name).await?) => Ok(None),
                None => Err("there is no such pod".to_owned()),
            })
        })
        .await
    }

    /// DDL that takes as long as it is let: a backup waits for its end.
    async fn at_the_lock(&self) -> Result<()> {
        let mysql = self.mysql.clone();
        let ddl = tokio::spawn(async move { mysql.sql(0, "CREATE TABLE shop.slow AS SELECT SLEEP(300) AS s").await });
        let runs = "SELECT COUNT(*) FROM performance_schema.processlist WHERE INFO LIKE 'CREATE TABLE shop.slow%'";
        self.count("the DDL to run", runs, |found| found == 1).await?;
        let pod = self.begin("lock").await?;
        self.step(&pod, "lock").await?;
        self.count("the backup to wait for it", WAITING, |found| found > 0).await?;
        self.space.kill9(&pod).await?;
        let id = self.mysql.sql(0, &runs.replace("COUNT(*)", "MAX(ID)")).await?;
        self.mysql.sql(0, &format!("KILL {id}")).await?;
        ensure!(ddl.await?.is_err(), "the DDL ended by itself");
        self.freed("lock", &pod).await
    }

    /// A file that never ends keeps a runner under the global read lock; a server that stands still keeps it in the cut.
    async fn under_the_read_lock(&self) -> Result<()> {
        let database = self.mysql.pod(0);
        let sh = |script: &'static str| {
            let (space, pod) = (self.space.clone(), database.clone());
            async move { space.exec(&pod, "mysql", &["bash", "-c", script], "").await }
        };
        let _ = sh("mkfifo /var/lib/mysql/shop/hangs.MYD").await?;
        let pod = self.begin("read-lock").await?;
        self.step(&pod, "cut").await?;
        self.count("nobody to be able to write", READ_LOCKS, |held| held > 0).await?;
        self.space.kill9(&pod).await?;
        self.freed("read-lock", &pod).await?;

        let pod = self.begin("cut").await?;
        self.step(&pod, "cut").await?;
        self.count("nobody to be able to write", READ_LOCKS, |held| held > 0).await?;
        self.space.signal(&database, "mysqld", "STOP").await?;
        let _ = sh("timeout 5 bash -c ': >/var/lib/mysql/shop/hangs.MYD'; rm /var/lib/mysql/shop/hangs.MYD").await?;
        // The file has ended: the next word is the server's.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let killed = self.space.kill9(&pod).await;
        self.space.signal(&database, "mysqld", "CONT").await?;
        killed?;
        let log = self.space.logs(&pod, None).await?;
        ensure!(!log.contains("\"step\":\"upload\""), "it went past the cut: {log}");
        self.freed("cut", &pod).await
    }

    /// Kills a runner of a backup at its moment. One that was quicker is made again.
    async fn kill(&self, moment: &Moment) -> Result<()> {
        let name = moment.name;
        for _ in 0..TRIES {
            let pod = self.begin(name).await?;
            match self.space.kill9_when(&pod, Some(&self.bucket_pod), moment.condition).await? {
                Ok(step) if moment.steps.contains(&step.as_str()) => {
                    say(format!("{name}: killed a backup in step {step}"));
                    return self.freed(name, &pod).await;
                }
                missed => say(format!("{name}: once more, since {missed:?}")),
            }
            // What it left in the bucket would be taken for the next one's.
            let goes = json!({ "spec": { "deletionPolicy": "Delete" } });
            self.space.patch("MySQLBackup", name, &goes).await?;
            self.space.delete("MySQLBackup", name).await?;
            self.space.gone("MySQLBackup", name, MINUTES).await?;
        }
        bail!("{name}: no runner died at its moment")
    }

    /// All backups, each by the try that it takes, and none of them twice.
    async fn taken(&self, names: &[&'static str]) -> Result<()> {
        let taken = names.iter().copied().map(|name| self.space.succeeded("MySQLBackup", name));
        let taken = try_join_all(taken).await?;
        let objects = self.bucket.objects("shop").await?;
        for (name, done) in names.iter().zip(taken) {
            let failed = done.pointer("/status/failedAttempts").and_then(Value::as_i64).unwrap_or(0);
            ensure!(failed == i64::from(*name != COMMITTED), "{name}: not the number of failed tries: {done}");
            let manifest = format!("/{}/manifest.json", text(&done, "/status/backupId"));
            let manifests = objects.iter().filter(|path| path.ends_with(&manifest)).count();
            ensure!(manifests == 1, "{name}: {manifests} manifests");
        }
        Ok(())
    }
}

const WAITING: &str = "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE LOCK_STATUS = 'PENDING'";
const READ_LOCKS: &str = "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                          WHERE OBJECT_TYPE = 'GLOBAL' AND LOCK_TYPE = 'SHARED' AND LOCK_STATUS = 'GRANTED'";

/// A restore of a backup into the claim of a member of `back`.
async fn bring_back(stage: &Stage, name: &str, claim: &str) -> Result<()> {
    let target = if name == EXISTING {
        let object = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
        stage.space.apply_object(&object).await?;
        json!({"existingClaim": {"name": claim}})
    } else {
        json!({"newClaim": {"name": claim, "template": {"storage": "2Gi"}}})
    };
    stage.space.apply_object(&restore(name, name, &target)).await
}

/// Kills a runner of a restore at its moment.
async fn kill_restore(stage: &Stage, moment: &Moment, claim: &str) -> Result<()> {
    let (space, name) = (&stage.space, moment.name);
    for _ in 0..TRIES {
        bring_back(stage, name, claim).await?;
        let has_runner = |restore: &Value| !text(restore, "/status/claims/0/podName").is_empty();
        let begun = space.wait("MySQLRestore", name, "has a runner", MINUTES, has_runner).await?;
        let pod = text(&begun, "/status/claims/0/podName");
        match space.kill9_when(pod, Some(&stage.bucket_pod), moment.condition).await? {
            Ok(step) if moment.steps.contains(&step.as_str()) => {
                say(format!("{name}: killed a restore in step {step}"));
                let told = |restore: &Value| text(restore, "/status/claims/0/reason") == "RunnerDied";
                let result = |restore: &Value| {
                    condition_of(restore, "Succeeded").map_or("", |one| text(one, "/status")).to_owned()
                };
                // Where everything was there, it may have had time to say so: that is no lie, and no such death.
                let reported = |restore: &Value| moment.condition == COMPLETE && result(restore) == "True";
                let either = |restore: &Value| told(restore) || reported(restore);
                let seen = space.wait("MySQLRestore", name, "tells of the death", MINUTES, either).await?;
                if !reported(&seen) {
                    ensure!(
                        ["", "Unknown"].contains(&result(&seen).as_str()),
                        "{name}: it ended by its runner's death: {seen}"
                    );
                    return Ok(());
                }
                say(format!("{name}: once more, since it had told"));
            }
            missed => say(format!("{name}: once more, since {missed:?}")),
        }
        space.delete("MySQLRestore", name).await?;
        space.gone("MySQLRestore", name, MINUTES).await?;
        space.delete("PersistentVolumeClaim", claim).await.ok();
        space.gone("PersistentVolumeClaim", claim, MINUTES).await?;
    }
    bail!("{name}: no runner died at its moment")
}

/// A server on what was brought back has what the backup had, and follows to what the source has now.
async fn compare(stage: &Stage, back: &Mysql, member: u32, name: &str) -> Result<()> {
    check_invariants(back, member).await?;
    let taken = stage.space.get("MySQLBackup", name).await?;
    ensure!(back.gtid_executed(member).await? == gtids(&taken)?, "{name}: other GTIDs than the status has");
    back.follow(member, &stage.mysql, 0).await?;
    back.catch_up(member, &stage.mysql.gtid_executed(0).await?, MINUTES).await?;
    back.has_the_rows_of(member, &stage.mysql, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_may_die_at_any_step() -> Result<()> {
    scenario("killed-at-each-step", |space| async move {
        let stage = Stage::set(&space).await?;
        stage.under_the_read_lock().await?;
        say("killed under the global read lock, and in the cut");
        stage.at_the_lock().await?;
        say("killed while it waited for the lock");
        for moment in &OF_A_BACKUP {
            stage.kill(moment).await?;
        }
        let names: Vec<&'static str> = HELD.into_iter().chain(OF_A_BACKUP.iter().map(|moment| moment.name)).collect();
        stage.taken(&names).await?;
        say("each was taken by its next try, and the one that was committed by none");

        stage.load.stop().await?;
        let claim = |name: &str| format!("data-back-{}", names.iter().position(|known| *known == name).unwrap_or(9));
        for moment in &OF_A_RESTORE {
            kill_restore(&stage, moment, &claim(moment.name)).await?;
        }
        let killed = |name: &str| OF_A_RESTORE.iter().any(|moment| moment.name == name);
        for name in names.iter().filter(|name| !killed(name)) {
            bring_back(&stage, name, &claim(name)).await?;
        }
        let done = try_join_all(names.iter().copied().map(|name| space.succeeded("MySQLRestore", name))).await?;
        for (name, restore) in names.iter().zip(done) {
            let attempt = restore.pointer("/status/claims/0/attempt").and_then(Value::as_i64);
            ensure!(attempt == Some(1 + i64::from(killed(name))), "{name}: not the number of tries: {restore}");
        }
        say("each was brought back by the next try");

        let back = Mysql::start(&space, "back", u32::try_from(names.len())?, 200).await?;
        let mut looks = Vec::new();
        for (name, member) in names.iter().copied().zip(0..) {
            looks.push(compare(&stage, &back, member, name));
        }
        let looks: Vec<_> = futures::stream::iter(looks).buffer_unordered(3).collect().await;
        looks.into_iter().collect()
    })
    .await
}
