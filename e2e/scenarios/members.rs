//! Which member is backed up: the servers are asked who they are, and the policy decides.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, gtids, restore, with};
use crate::harness::space::text;
use crate::harness::{Bucket, Load, Mysql, say, scenario};

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_which_member_is_read() -> Result<()> {
    scenario("members", |space| async move {
        let (bucket, mysql) = tokio::try_join!(Bucket::start(&space, "s3"), Mysql::start(&space, "mysql", 3, 100))?;
        mysql.replicate(3).await?;
        let grants =
            super::core::plain_pods::command(&space, &["grants", "--user", "stillframe", "--host", "%"]).await?;
        mysql.make_backup_user(0, &grants.log).await?;
        let load = Load::start(&mysql, 0).await?;
        space.ready_storage("bucket", &bucket, "shop").await?;

        for (name, target, role) in [
            ("from-primary", "Primary", "Primary"),
            ("from-any", "PreferReplica", "Replica"),
            ("from-replica", "Replica", "Replica"),
        ] {
            let object = with(backup(name, "bucket", &mysql), &json!({ "spec": { "source": { "target": target } } }));
            space.apply_object(&object).await?;
            let taken = space.succeeded("MySQLBackup", name).await?;
            let (pod, is) = (text(&taken, "/status/source/podName"), text(&taken, "/status/source/role"));
            ensure!(is == role, "{target} read a {is}: {taken}");
            ensure!((pod == mysql.pod(0)) == (role == "Primary"), "{target} read {pod}");
            say(format!("{target}: {pod}"));
        }

        // What came from a replica is as good: it goes on from the primary.
        let taken = space.get("MySQLBackup", "from-replica").await?;
        let target = json!({ "newClaim": { "name": "data-restored-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore("back", "from-replica", &target)).await?;
        let done = space.succeeded("MySQLRestore", "back").await?;
        let isolation = done.pointer("/status/isolation").map(Value::to_string).unwrap_or_default();
        ensure!(isolation.contains("RESET REPLICA ALL"), "what a former replica needs is not said: {done}");
        let restored = Mysql::start(&space, "restored", 1, 200).await?;
        check_invariants(&restored, 0).await?;
        ensure!(
            restored.gtid_executed(0).await? == gtids(&taken)?,
            "the restored server has other GTIDs than the status"
        );
        ensure!(restored.keeps_to_itself(0).await?, "the restored server does not keep to itself");
        load.stop().await?;
        restored.follow(0, &mysql, 0).await?;
        restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
        restored.has_the_rows_of(0, &mysql, 0).await
    })
    .await
}
