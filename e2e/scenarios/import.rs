//! The bucket is the truth: a second namespace that knows nothing but the bucket lists its backups and restores one.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::core::plain_pods::loaded_server;
use crate::harness::load::check_invariants;
use crate::harness::objects::{MINUTES, backup, restore, storage, with};
use crate::harness::space::text;
use crate::harness::{Bucket, Mysql, say, scenario, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_enough() -> Result<()> {
    scenario("import", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&backup("first", "bucket", &mysql)).await?;
        let taken = space.succeeded("MySQLBackup", "first").await?;
        load.stop().await?;

        scenario("import-other", move |other| async move {
            // The other cluster, as far as objects go: the same bucket, credentials of its own, read-only.
            bucket.share_credentials(&other).await?;
            let read_only = json!({ "spec": { "importExisting": true, "accessMode": "ReadOnly" } });
            other.apply_object(&with(storage("bucket", &bucket, "shop"), &read_only)).await?;
            other.condition("BackupStorage", "bucket", "Ready", "True", Duration::from_secs(90)).await?;
            let id = text(&taken, "/status/backupId");
            let found = until("the imported backup", MINUTES, || async {
                let all = other.list("MySQLBackup", "").await?;
                Ok(all
                    .into_iter()
                    .find(|backup| text(backup, "/status/backupId") == id)
                    .ok_or_else(|| "not listed".to_owned()))
            });
            let found = found.await?;
            let name = text(&found, "/metadata/name").to_owned();
            let found = other.reason("MySQLBackup", &name, "Succeeded", "Imported", MINUTES).await?;
            for field in
                ["/status/gtidExecuted", "/status/lsn/end", "/status/source/serverUUID", "/status/completionTime"]
            {
                ensure!(text(&found, field) == text(&taken, field), "{field} differs: {found}");
            }
            say(format!("{name} was found in the bucket"));

            let target = json!({ "newClaim": { "name": "data-restored-0", "template": { "storage": "2Gi" } } });
            other.apply_object(&restore("back", &name, &target)).await?;
            other.succeeded("MySQLRestore", "back").await?;
            let restored = Mysql::start(&other, "restored", 1, 200).await?;
            check_invariants(&restored, 0).await?;
            restored.follow(0, &mysql, 0).await?;
            restored.catch_up(0, &mysql.gtid_executed(0).await?, MINUTES).await?;
            restored.has_the_rows_of(0, &mysql, 0).await
        })
        .await
    })
    .await
}
