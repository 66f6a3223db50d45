//! The command line in pods, without the operator: that the image runs, that a second pod can read a running database's
//! volume as its uid, that the store is reached, and that the data is right. What fails here fails everywhere.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::load::{check_invariants, check_tables};
use crate::harness::mysql::BACKUP_USER;
use crate::harness::space::text;
use crate::harness::{Bucket, IMAGE, Load, Mysql, PodRun, Space, fill, say, scenario, until};

/// Where backups go.
const STORE: &str = "s3://backups/shop";
const MINUTES: Duration = Duration::from_mins(4);

/// Runs the command line with some arguments, and nothing else.
pub async fn command(space: &Space, args: &[&str]) -> Result<PodRun> {
    let args = serde_json::to_string(args)?;
    space
        .run_pod(
            &fill(
                include_str!("../../fixtures/command.yaml"),
                &[("NAME", "command"), ("IMAGE", IMAGE), ("ARGS", &args)],
            ),
            MINUTES,
        )
        .await
}

/// Starts a server under load whose account for backups is the one that `stillframe grants` makes.
pub async fn loaded_server(space: &Space, name: &str) -> Result<(Mysql, Load)> {
    let arguments = ["grants", "--user", BACKUP_USER, "--host", "%"];
    let (mysql, grants) = tokio::try_join!(Mysql::start(space, name, 1, 100), command(space, &arguments))?;
    ensure!(grants.exit_code == 0, "grants ended with {}: {}", grants.exit_code, grants.log);
    mysql.make_backup_user(0, &grants.log).await?;
    let load = Load::start(&mysql, 0).await?;
    Ok((mysql, load))
}

/// A pod that takes a backup; `extra` are further arguments, as YAML.
fn backup_pod(name: &str, mysql: &Mysql, bucket: &Bucket, extra: &str) -> String {
    let (host, claim, endpoint, secret) = (mysql.host(0), mysql.claim(0), bucket.endpoint(), bucket.secret());
    let values = [
        ("NAME", name),
        ("IMAGE", IMAGE),
        ("HOST", &host),
        ("CLAIM", &claim),
        ("STORE", STORE),
        ("ENDPOINT", &endpoint),
        ("SECRET", &secret),
        ("BACKUP_USER", "mysql-backup-user"),
        ("EXTRA", extra),
    ];
    fill(include_str!("../../fixtures/plain-backup.yaml"), &values)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_is_none() -> Result<()> {
    scenario("plain-killed", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.apply(&backup_pod("victim", &mysql, &bucket, ", --throttle, 1M")).await?;
        until("the copy to run", MINUTES, || async {
            let log = space.logs("victim", None).await.unwrap_or_default();
            Ok(if log.contains("copy") { Ok(()) } else { Err(log) })
        })
        .await?;
        space.kill9("victim").await?;
        let dead =
            space.wait("Pod", "victim", "is dead", MINUTES, |pod| text(pod, "/status/phase") == "Failed").await?;
        let code =
            dead.pointer("/status/containerStatuses/0/state/terminated/exitCode").and_then(serde_json::Value::as_i64);
        ensure!(code == Some(137), "it was not killed: {dead}");
        mysql.unlocked(0).await?;

        let manifests = || async {
            Ok::<_, anyhow::Error>(
                bucket.objects("shop").await?.iter().filter(|path| path.contains("manifest")).count(),
            )
        };
        ensure!(manifests().await? == 0, "a killed backup has a manifest");
        let run = space.run_pod(&backup_pod("victim-again", &mysql, &bucket, ""), MINUTES).await?;
        ensure!(run.exit_code == 0, "the next backup ended with {}: {}", run.exit_code, run.log);
        ensure!(manifests().await? == 1, "the next backup has no manifest: {:?}", bucket.objects("shop").await?);
        say("killed in the middle of the copy: no backup, no lock; the next one works");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_and_restore_without_an_operator() -> Result<()> {
    scenario("plain-pods", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        say("a server under load, a bucket");

        let before = load.committed().await?;
        let run = space.run_pod(&backup_pod("nightly", &mysql, &bucket, ""), MINUTES).await?;
        let after = load.committed().await?;
        ensure!(run.exit_code == 0, "the backup ended with {}: {}", run.exit_code, run.log);
        let report = run.report()?;
        let (id, gtids) = (text(&report, "/id").to_owned(), text(&report, "/gtidExecuted").replace('\n', ""));
        ensure!(!id.is_empty() && !gtids.is_empty(), "an incomplete report: {report}");
        ensure!(after > before, "the writers stood still during the backup");
        say(format!("backed up {id} while {} transactions were committed", after - before));

        let (endpoint, secret) = (bucket.endpoint(), bucket.secret());
        let values = [
            ("NAME", "restore"),
            ("IMAGE", IMAGE),
            ("CLAIM", "data-restored-0"),
            ("STORE", STORE),
            ("ENDPOINT", &endpoint),
            ("SECRET", &secret),
            ("BACKUP", &id),
        ];
        let run = space.run_pod(&fill(include_str!("../../fixtures/plain-restore.yaml"), &values), MINUTES).await?;
        ensure!(run.exit_code == 0, "the restore ended with {}: {}", run.exit_code, run.log);
        let restored = Mysql::start(&space, "restored", 1, 200).await?;
        let held = check_invariants(&restored, 0).await?;
        ensure!(
            before <= held && held <= after,
            "the backup holds {held} transactions; {before} were before it, {after} after"
        );
        check_tables(&restored, 0).await?;
        let has = restored.gtid_executed(0).await?;
        ensure!(has == gtids, "the restored server has {has}, the report says {gtids}");
        ensure!(
            restored.sql(0, "SELECT @@server_uuid").await? != mysql.sql(0, "SELECT @@server_uuid").await?,
            "the server uuid came along"
        );
        say(format!("restored: {held} transactions, every invariant holds"));

        restored.follow(0, &mysql, 0).await?;
        load.more(100).await?;
        load.stop().await?;
        restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
        restored.has_the_rows_of(0, &mysql, 0).await?;
        check_invariants(&restored, 0).await?;
        say("caught up as a replica from the recorded GTID set: the same rows");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_trusted_by_its_own_authority_alone() -> Result<()> {
    scenario("plain-tls", |space| async move {
        let (bucket, other) = tokio::try_join!(Bucket::start_tls(&space, "s3"), Bucket::start_tls(&space, "other"))?;
        let look = |name: &'static str, variable: &'static str, authority: &'static str| {
            let (space, endpoint, secret) = (space.clone(), bucket.endpoint(), bucket.secret());
            async move {
                let values = [
                    ("NAME", name),
                    ("IMAGE", IMAGE),
                    ("STORE", STORE),
                    ("ENDPOINT", &endpoint),
                    ("SECRET", &secret),
                    ("CA_VARIABLE", variable),
                    ("CA", authority),
                ];
                space.run_pod(&fill(include_str!("../../fixtures/list.yaml"), &values), MINUTES).await
            }
        };
        let right = look("right", "AWS_CA_BUNDLE", "s3-tls").await?;
        ensure!(right.exit_code == 0, "with the right authority it ended with {}: {}", right.exit_code, right.log);
        for (name, variable, authority) in
            [("public-only", "UNUSED", "s3-tls"), ("wrong", "AWS_CA_BUNDLE", "other-tls")]
        {
            let run = look(name, variable, authority).await?;
            ensure!(
                run.exit_code != 0 && run.log.contains("certificate"),
                "{name} ended with {}: {}",
                run.exit_code,
                run.log
            );
        }
        drop(other);
        say("only the store's own authority opens it");
        Ok(())
    })
    .await
}
