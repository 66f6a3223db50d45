//! Databases whose volume no second pod can mount: said at once, in one condition.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::objects::backup;
use crate::harness::space::{condition_of, text};
use crate::harness::{Bucket, MYSQL_IMAGE, Mysql, Space, fill, scenario};

/// A server whose data is on a volume of another kind than usual.
async fn server_on(space: &Space, name: &str, volume: &str) -> Result<Mysql> {
    let yaml = fill(
        include_str!("../fixtures/mysql.yaml"),
        &[("NAME", name), ("IMAGE", MYSQL_IMAGE), ("REPLICAS", "1"), ("SERVER_ID_BASE", "100")],
    );
    let yaml = if volume == "ReadWriteOncePod" {
        yaml.replace("ReadWriteOnce]", "ReadWriteOncePod]")
    } else {
        let (pod, _) = yaml.split_once("  volumeClaimTemplates:").unwrap_or((&yaml, ""));
        format!("{pod}      volumes: [{{name: data, emptyDir: {{}}}}]\n")
    };
    space.apply(&yaml).await?;
    let mysql = Mysql { space: space.clone(), name: name.to_owned() };
    mysql.ready(1).await?;
    mysql
        .make_backup_user(
            0,
            "CREATE USER stillframe; GRANT BACKUP_ADMIN, RELOAD, PROCESS, SELECT ON *.* TO stillframe;",
        )
        .await?;
    Ok(mysql)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_shared_is_said_at_once() -> Result<()> {
    scenario("volumes", |space| async move {
        let bucket = Bucket::start(&space, "s3").await?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        let cases =
            [("once", "ReadWriteOncePod", "ReadWriteOncePod"), ("scratch", "emptyDir", "belongs to that pod alone")];
        for (name, volume, word) in cases {
            let mysql = server_on(&space, name, volume).await?;
            space.apply_object(&backup(name, "bucket", &mysql)).await?;
            let told =
                space.reason("MySQLBackup", name, "Succeeded", "VolumeNotShareable", Duration::from_mins(1)).await?;
            let message = condition_of(&told, "Succeeded")
                .map(|condition| text(condition, "/message").to_owned())
                .unwrap_or_default();
            ensure!(message.contains(word) && message.contains("allowEphemeralContainer"), "{name}: {message}");
            ensure!(
                space.list("Pod", "app.kubernetes.io/name=stillframe").await?.is_empty(),
                "a runner was started all the same"
            );
        }
        Ok(())
    })
    .await
}
