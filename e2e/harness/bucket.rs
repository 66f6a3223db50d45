//! An S3 server in the cluster, with one bucket.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::space::Space;
use super::tls::Certificates;
use super::{MYSQL_IMAGE, S3_IMAGE, fill};

/// Its name.
pub const BUCKET: &str = "backups";

/// An S3 server with one bucket, of some name, in some namespace.
pub struct Bucket {
    space: Space,
    name: String,
    scheme: &'static str,
}

impl Bucket {
    /// Starts one and waits until it serves.
    pub async fn start(space: &Space, name: &str) -> Result<Self> {
        Self::start_with(space, name, "http").await
    }

    /// Starts one with a certificate of an authority of its own, which is in the secret `NAME-tls` under `ca.crt`.
    pub async fn start_tls(space: &Space, name: &str) -> Result<Self> {
        let made = Certificates::make(&format!("{name}.{}.svc", space.name))?;
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{name}-tls") },
            "stringData": { "ca.crt": made.authority, "tls.crt": made.certificate, "tls.key": made.key },
        });
        space.apply(&secret.to_string()).await?;
        Self::start_with(space, name, "https").await
    }

    async fn start_with(space: &Space, name: &str, scheme: &'static str) -> Result<Self> {
        let values = [
            ("NAME", name),
            ("BUCKET", BUCKET),
            ("IMAGE", S3_IMAGE),
            ("TOOLS_IMAGE", MYSQL_IMAGE),
            ("KEY", "e2e-key"),
            ("SECRET", "e2e-secret-key"),
            ("TLS", if scheme == "https" { ", --cert, /tls/tls.crt, --key, /tls/tls.key" } else { "" }),
        ];
        space.apply(&fill(include_str!("../fixtures/bucket.yaml"), &values)).await?;
        space
            .wait("Deployment", name, "is available", Duration::from_mins(3), |deployment| {
                deployment.pointer("/status/availableReplicas").and_then(Value::as_i64) == Some(1)
            })
            .await?;
        Ok(Self { space: space.clone(), name: name.to_owned(), scheme })
    }

    /// Its address, from anywhere in the cluster.
    pub fn endpoint(&self) -> String {
        format!("{}://{}.{}.svc:7070", self.scheme, self.name, self.space.name)
    }

    /// Stops the server, as an outage does; what it holds stays.
    pub async fn stop(&self) -> Result<()> {
        self.scale(0).await
    }

    /// Lets a stopped server go on.
    pub async fn go_on(&self) -> Result<()> {
        self.scale(1).await
    }

    async fn scale(&self, replicas: i64) -> Result<()> {
        self.space.patch("Deployment", &self.name, &serde_json::json!({ "spec": { "replicas": replicas } })).await?;
        let done = |deployment: &Value| {
            deployment.pointer("/status/availableReplicas").and_then(Value::as_i64).unwrap_or(0) == replicas
        };
        self.space
            .wait("Deployment", &self.name, &format!("has {replicas} replicas"), Duration::from_mins(3), done)
            .await?;
        Ok(())
    }

    /// Gives another namespace the credentials.
    pub async fn share_credentials(&self, other: &Space) -> Result<()> {
        let secret = self.space.get("Secret", &self.secret()).await?;
        let copy = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": self.secret() }, "data": secret.get("data"),
        });
        other.apply(&copy.to_string()).await?;
        Ok(())
    }

    /// The objects in the bucket below a prefix, as paths.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<String>> {
        let found = self.script(&format!("cd /data/{BUCKET} && find . -path './{prefix}/*' -type f | sort")).await?;
        Ok(found.lines().map(|line| line.trim_start_matches("./").to_owned()).collect())
    }

    /// Removes an object behind everybody's back.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.script(&format!("rm /data/{BUCKET}/{path}")).await?;
        Ok(())
    }

    /// Runs a script where objects are: the server keeps them as files, and its image has no shell, so a pod beside it
    /// does.
    pub async fn script(&self, script: &str) -> Result<String> {
        let pod = super::fill(
            include_str!("../fixtures/look.yaml"),
            &[("NAME", "look"), ("IMAGE", MYSQL_IMAGE), ("CLAIM", &self.name), ("SCRIPT", script)],
        );
        let run = self.space.run_pod(&pod, Duration::from_mins(3)).await?;
        anyhow::ensure!(run.exit_code == 0, "\"{script}\" beside the bucket failed: {}", run.log);
        Ok(run.log)
    }

    /// The secret with `accessKeyId` and `secretAccessKey`.
    pub fn secret(&self) -> String {
        format!("{}-credentials", self.name)
    }
}
