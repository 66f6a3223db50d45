//! A restore into the claims of a StatefulSet that is not there yet: three members from one backup, which then replicate,
//! and are backed up with the password that their own Secret has.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::mysql::BACKUP_USER;
use crate::harness::objects::{MINUTES, backup, gtids, restore, with};
use crate::harness::{Bucket, Mysql, say, scenario};

/// What a server stores for the password of the account for backups.
const PASSWORD: &str = "SELECT HEX(authentication_string) FROM mysql.user WHERE user = 'stillframe'";

#[tokio::test(flavor = "multi_thread")]
async fn three_members_from_one_backup() -> Result<()> {
    scenario("new-cluster", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&backup("first", "bucket", &mysql)).await?;
        let taken = space.succeeded("MySQLBackup", "first").await?;

        let target =
            json!({ "newCluster": { "statefulSetName": "shop2", "replicas": 3, "template": { "storage": "2Gi" } } });
        let accounts = |user: &str| {
            let password = json!({ "name": "shop2-backup-user", "key": "password" });
            json!({ "spec": { "accounts": [{ "user": user, "passwordRef": password }] } })
        };
        space.apply_object(&with(restore("to-shop2", "first", &target), &accounts(BACKUP_USER))).await?;
        space.reason("MySQLRestore", "to-shop2", "Succeeded", "WaitingForReference", MINUTES).await?;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "shop2-backup-user" },
            "stringData": { "username": BACKUP_USER, "password": "of the new cluster" } });
        space.apply_object(&secret).await?;
        // A claim that appears is complete: servers may start while the restore has yet to say that it is done.
        let cluster = Mysql::start_after_restore(&space, "shop2", 3, 300).await?;
        let restored = space.succeeded("MySQLRestore", "to-shop2").await?;
        ensure!(restored.pointer("/status/accounts") == Some(&json!(["'stillframe'@'%'"])), "accounts: {restored}");
        cluster.ready(3).await?;

        let (mut uuids, mut passwords) = (BTreeSet::new(), BTreeSet::new());
        for member in 0..3 {
            check_invariants(&cluster, member).await?;
            ensure!(
                cluster.gtid_executed(member).await? == gtids(&taken)?,
                "member {member} has other GTIDs than the status"
            );
            uuids.insert(cluster.sql(member, "SELECT @@server_uuid").await?);
            passwords.insert(cluster.sql(member, PASSWORD).await?);
            ensure!(cluster.keeps_to_itself(member).await?, "member {member} does not keep to itself");
        }
        ensure!(uuids.len() == 3, "members share a server uuid");
        // As it would be if two had got it from the first.
        ensure!(passwords.len() == 1, "members store different bytes for one password");
        ensure!(!passwords.contains(&mysql.sql(0, PASSWORD).await?), "the password is the old one");
        say("three members, each whole, each somebody of its own");

        let nobody = json!({ "newClaim": { "name": "data-nobody-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&with(restore("nobody", "first", &nobody), &accounts("nobody"))).await?;
        let (reason, message) = space.failed("MySQLRestore", "nobody", MINUTES).await?;
        ensure!(reason == "AccountMismatch" && message.contains("'nobody'"), "{reason}: {message}");
        ensure!(space.find("PersistentVolumeClaim", "data-nobody-0").await?.is_none(), "the claim appeared");

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

        space.apply_object(&backup("of-shop2", "bucket", &cluster)).await?;
        space.succeeded("MySQLBackup", "of-shop2").await?;
        say("a backup of the new cluster, with the password of its own Secret");
        Ok(())
    })
    .await
}
