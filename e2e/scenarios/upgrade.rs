//! The operator is upgraded, uninstalled and installed again: objects and data stay, and what runs goes on.

use anyhow::{Result, ensure};
use serde_json::json;

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{backup, with};
use crate::harness::space::text;
use crate::harness::{Bucket, say, scenario};

fn helm(arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["--namespace", "stillframe-system"].iter().chain(arguments).copied().collect();
    let output = super::core::chart::helm(&all)?;
    ensure!(output.status.success(), "helm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_data_outlive_the_operator() -> Result<()> {
    scenario("upgrade", |space| async move {
        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&backup("before", "bucket", &mysql)).await?;
        let before = space.succeeded("MySQLBackup", "before").await?;

        let slow = json!({ "spec": { "throttle": { "maxBytesPerSecond": 2_000_000 } } });
        space.apply_object(&with(backup("meanwhile", "bucket", &mysql), &slow)).await?;
        let runner = space.copying("meanwhile").await?;
        let values = helm(&["get", "values", "stillframe", "-o", "json"])?;
        helm(&[
            "upgrade",
            "stillframe",
            "helm/stillframe",
            "--reuse-values",
            "--set-string",
            "podAnnotations.upgraded=yes",
            "--wait",
            "--timeout",
            "120s",
        ])?;
        let done = space.succeeded("MySQLBackup", "meanwhile").await?;
        ensure!(text(&done, "/status/runner/podName") == runner, "the upgrade started another runner: {done}");
        say("a backup went on through an upgrade");

        helm(&["uninstall", "stillframe", "--wait"])?;
        let kept = space.get("MySQLBackup", "before").await?;
        ensure!(text(&kept, "/metadata/uid") == text(&before, "/metadata/uid"), "uninstalling took a backup object");
        let file = std::env::temp_dir().join(format!("stillframe-e2e-values-{}.json", std::process::id()));
        std::fs::write(&file, values)?;
        let installed = helm(&[
            "install",
            "stillframe",
            "helm/stillframe",
            "--values",
            &file.to_string_lossy(),
            "--wait",
            "--timeout",
            "120s",
        ]);
        std::fs::remove_file(&file)?;
        installed?;
        space.apply_object(&backup("after", "bucket", &mysql)).await?;
        space.succeeded("MySQLBackup", "after").await?;
        let status = space.get("MySQLBackup", "before").await?;
        ensure!(status.get("status") == kept.get("status"), "a finished backup changed: {status}");
        Ok(())
    })
    .await
}
