//! A restore into the claims of a StatefulSet that is not there yet: three members from one backup, which then replicate.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, gtids, restore};
use crate::harness::{Bucket, Mysql, say, scenario};

#[tokio::test(flavor = "multi_thread")]
async fn three_members_from_one_backup() -> Result<()> {
    scenario("new-cluster", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&backup("first", "bucket", &mysql)).await?;
        let taken = space.succeeded("MySQLBackup", "first").await?;

        let target =
            json!({ "newCluster": { "statefulSetName": "shop2", "replicas": 3, "template": { "storage": "2Gi" } } });
        // A claim that appears is complete: servers may start while the restore has yet to say that it is done.
        space.apply_object(&restore("to-shop2", "first", &target)).await?;
        let cluster = Mysql::start_after_restore(&space, "shop2", 3, 300).await?;
        space.succeeded("MySQLRestore", "to-shop2").await?;
        cluster.ready(3).await?;

        let mut uuids = BTreeSet::new();
        for member in 0..3 {
            check_invariants(&cluster, member).await?;
            ensure!(
                cluster.gtid_executed(member).await? == gtids(&taken)?,
                "member {member} has other GTIDs than the status"
            );
            uuids.insert(cluster.sql(member, "SELECT @@server_uuid").await?);
            ensure!(cluster.keeps_to_itself(member).await?, "member {member} does not keep to itself");
        }
        ensure!(uuids.len() == 3, "members share a server uuid");
        say("three members, each whole, each somebody of its own");

        // One follows the old server, two follow that one: a chain from the GTID set of the status.
        cluster.follow(0, &mysql, 0).await?;
        for member in 1..3 {
            cluster.follow(member, &cluster, 0).await?;
        }
        load.more(100).await?;
        load.stop().await?;
        let end = mysql.gtid_executed(0).await?;
        for member in 0..3 {
            cluster.catch_up(member, &end, MINUTES).await?;
            cluster.has_the_rows_of(member, &mysql, 0).await?;
        }
        say("all three caught up: the same rows");
        Ok(())
    })
    .await
}
