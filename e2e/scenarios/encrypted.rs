//! Backups that only a key of a Secret opens: what is said of Secrets that are missing or wrong, and that any one of the
//! right keys brings the rows back.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup, restore, storage, with};
use crate::harness::space::message_of;
use crate::harness::{Bucket, Space, say, scenario};

const OURS: &str = "8f0e4b7a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7";
const ESCROW: &str = "0123456789abcdeffedcba98765432100f1e2d3c4b5a69788796a5b4c3d2e1f0";
const ANOTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221101";
/// What is in a row, and is not to be seen in the bucket.
const PLAIN: &str = "in-plain-sight-of-nobody";

async fn give_keys(space: &Space, ours: &str, escrow: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" },
        "stringData": { "ours": ours, "escrow": escrow },
    });
    space.apply_object(&secret).await
}

/// How many objects below a prefix of the bucket show what is in that row.
async fn showing(bucket: &Bucket, prefix: &str) -> Result<usize> {
    let found = bucket.script(&format!("grep -rl {PLAIN} /data/backups/{prefix} || true")).await?;
    Ok(found.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_of_the_secret_opens_it() -> Result<()> {
    scenario("encrypted", |space| async move {
        let (bucket, (mysql, load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        load.stop().await?;
        mysql
            .sql(0, &format!("CREATE TABLE shop.plain (t VARCHAR(99)); INSERT INTO shop.plain VALUES ('{PLAIN}')"))
            .await?;
        let key = |key: &str| json!({ "name": "keys", "key": key });
        let locked = json!({ "spec": { "encryption": { "keyRefs": [key("ours"), key("escrow")] } } });
        space.apply_object(&with(storage("locked", &bucket, "locked"), &locked)).await?;
        space.ready_storage("open", &bucket, "open").await?;
        let raw = json!({ "spec": { "compression": { "algorithm": "None" } } });
        let of = |name: &str, storage: &str| with(backup(name, storage, &mysql), &raw);

        space.apply_object(&of("secret", "locked")).await?;
        let waits = space.reason("MySQLBackup", "secret", "Succeeded", "WaitingForReference", MINUTES).await?;
        let message = message_of(&waits, "Succeeded");
        ensure!(message.contains("keys"), "the Secret that is missing is not named: {message}");

        // One whose key is none ends a backup at once, for another try would not mend it; with the Secret's name.
        give_keys(&space, "no key at all", ESCROW).await?;
        space.apply_object(&of("hopeless", "locked")).await?;
        let (reason, message) = space.failed("MySQLBackup", "hopeless", MINUTES).await?;
        say(format!("a key that is none: {reason}: {message}"));
        ensure!(
            reason == "Usage" && message.contains("keys.ours") && !message.contains("no key at all"),
            "{reason}: {message}"
        );
        space.delete("MySQLBackup", "secret").await?;
        space.gone("MySQLBackup", "secret", MINUTES).await?;

        give_keys(&space, OURS, ESCROW).await?;
        space.apply_object(&of("secret", "locked")).await?;
        space.apply_object(&of("plain", "open")).await?;
        space.succeeded("MySQLBackup", "secret").await?;
        space.succeeded("MySQLBackup", "plain").await?;
        let (locked, open) = (showing(&bucket, "locked").await?, showing(&bucket, "open").await?);
        ensure!(open > 0, "a row cannot be found in a backup that is not encrypted: this shows nothing");
        ensure!(locked == 0, "{locked} objects of the encrypted backup show a row");
        let of_keys = bucket.objects("locked").await?.iter().filter(|path| path.contains("/keys/")).count();
        ensure!(of_keys == 2, "{of_keys} keys open it");

        give_keys(&space, ANOTHER, ANOTHER).await?;
        let target = json!({ "newClaim": { "name": "data-wrong-0", "template": { "storage": "2Gi" } } });
        space.apply_object(&restore("wrong", "secret", &target)).await?;
        let (reason, message) = space.failed("MySQLRestore", "wrong", MINUTES).await?;
        say(format!("another key: {reason}: {message}"));
        ensure!(reason == "WrongKey" && message.contains("opens with one of the keys"), "{reason}: {message}");
        let claim: Option<Value> = space.find("PersistentVolumeClaim", "data-wrong-0").await?;
        ensure!(claim.is_none(), "a claim with nothing in it appeared");

        give_keys(&space, ANOTHER, ESCROW).await?;
        let _ = mysql.brought_back("secret").await?;
        say("one of the two keys brought the rows back");
        Ok(())
    })
    .await
}
