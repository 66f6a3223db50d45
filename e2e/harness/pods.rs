//! Pods: run one to its end, run a command in one, read its log, kill its process.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams, EvictParams, LogParams, Patch, PatchParams};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::space::{Space, text};

/// How a pod that ran to its end ended.
#[derive(Debug)]
pub struct PodRun {
    pub exit_code: i64,
    pub log: String,
}

impl PodRun {
    /// The JSON object that ends the log: what a verb reports with `-o json` on standard output.
    pub fn report(&self) -> Result<Value> {
        let start = self.log.find("\n{").map_or(0, |newline| newline + 1);
        let json = self.log.get(start..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_str(json).into_iter();
        values.next().context("an empty log")?.with_context(|| format!("no report in:\n{}", self.log))
    }
}

impl Space {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// Applies a pod, waits until it has ended, returns exit code and log, and deletes it.
    pub async fn run_pod(&self, yaml: &str, within: Duration) -> Result<PodRun> {
        let applied = self.apply(yaml).await?;
        let pod = applied.iter().find(|object| object.types.as_ref().is_some_and(|types| types.kind == "Pod"));
        let name = pod.and_then(|pod| pod.metadata.name.clone()).context("the YAML has no pod")?;
        let ended = self.wait("Pod", &name, "has ended", within, |pod| {
            matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        });
        let ended = ended.await?;
        let terminated = ended.pointer("/status/containerStatuses/0/state/terminated");
        let exit_code = terminated.and_then(|state| state.get("exitCode")).and_then(Value::as_i64);
        let exit_code = exit_code.with_context(|| format!("pod {name} has no exit code: {ended}"))?;
        let log = self.logs(&name, None).await?;
        self.pods().delete(&name, &DeleteParams::default().grace_period(0)).await?;
        self.gone("Pod", &name, Duration::from_mins(2)).await?;
        Ok(PodRun { exit_code, log })
    }

    /// The log of a pod's container.
    pub async fn logs(&self, pod: &str, container: Option<&str>) -> Result<String> {
        let parameters = LogParams { container: container.map(str::to_owned), ..LogParams::default() };
        self.pods().logs(pod, &parameters).await.with_context(|| format!("read the log of {pod}"))
    }

    /// Runs a command in a container, and returns what it printed. Fails when the command does.
    pub async fn exec(&self, pod: &str, container: &str, command: &[&str], input: &str) -> Result<String> {
        let parameters = AttachParams {
            container: Some(container.to_owned()),
            stdin: !input.is_empty(),
            max_stdout_buf_size: Some(1 << 20),
            max_stderr_buf_size: Some(1 << 20),
            ..AttachParams::default()
        };
        let mut process = self.pods().exec(pod, command.iter().copied(), &parameters).await?;
        let status = process.take_status().context("no status")?;
        let stdin = process.stdin();
        let mut stdout = process.stdout().context("no output")?;
        let mut stderr = process.stderr().context("no error output")?;
        let (mut output, mut errors) = (String::new(), String::new());
        let feed = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(input.as_bytes()).await?;
                stdin.shutdown().await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let (written, printed, complained) =
            tokio::join!(feed, stdout.read_to_string(&mut output), stderr.read_to_string(&mut errors));
        let status = status.await;
        let succeeded = status.as_ref().and_then(|status| status.status.as_deref()) == Some("Success");
        ensure!(
            succeeded,
            "{command:?} in {pod} failed: {errors}{output}{}",
            status.and_then(|status| status.message).unwrap_or_default()
        );
        written?;
        printed?;
        complained?;
        Ok(output)
    }

    /// Tells a pod to go, as a drain of its node does.
    pub async fn evict(&self, pod: &str) -> Result<()> {
        self.pods().evict(pod, &EvictParams::default()).await.with_context(|| format!("evict {pod}"))?;
        Ok(())
    }

    /// Says of a pod what the kubelet says of one that it evicts since the node has no memory left. The kubelet then ends it.
    pub async fn evict_by_kubelet(&self, pod: &str) -> Result<()> {
        let said = serde_json::json!({ "status": {
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
        } });
        self.pods().patch_status(pod, &PatchParams::default(), &Patch::Merge(said)).await?;
        Ok(())
    }

    /// Removes a pod without a word to it, as happens when its node is gone for good.
    pub async fn lose(&self, pod: &str) -> Result<()> {
        self.pods().delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Kills the processes of a pod by SIGKILL, as the kernel does when memory ends. The pod object stays.
    pub async fn kill9(&self, pod: &str) -> Result<()> {
        self.kill9_of(pod, "").await
    }

    /// The same with those processes of a pod whose name begins with `program`.
    pub async fn kill9_of(&self, pod: &str, program: &str) -> Result<()> {
        self.signal(pod, program, "KILL").await
    }

    /// Sends a signal to those processes of a pod whose name begins with `program`.
    pub async fn signal(&self, pod: &str, program: &str, signal: &str) -> Result<()> {
        let uid = text(&self.get("Pod", pod).await?, "/metadata/uid").to_owned();
        ensure!(!uid.is_empty(), "pod {pod} has no uid");
        // A process 1 cannot be killed from inside its own namespace; one of the node's sees it under another number. All
        // at once: where the pod's first process is gone, its node tells the others to end.
        let script = format!(
            "found=; for p in /proc/[0-9]*; do grep -qsE 'pod({}|{})' $p/cgroup && grep -qs '^{program}' $p/comm && found=\"$found ${{p#/proc/}}\"; done; \
             [ -z \"$found\" ] || {{ kill -s {signal} $found; echo sent; }}",
            uid,
            uid.replace('-', "_"),
        );
        let said = self.on_node(&["sh", "-c", &script]).await?;
        if !said.contains("sent") {
            bail!("pod {pod} has no process to send {signal} to");
        }
        Ok(())
    }

    /// Runs a command that sees the node's processes, as root.
    pub async fn on_node(&self, command: &[&str]) -> Result<String> {
        let killer = super::fill(include_str!("../fixtures/killer.yaml"), &[("IMAGE", super::MYSQL_IMAGE)]);
        let node_space = Self { cluster: self.cluster.clone(), name: "kube-system".to_owned() };
        // One that an earlier run left may have been evicted since.
        let left = node_space.find("Pod", "stillframe-e2e-killer").await?;
        if left.is_some_and(|pod| text(&pod, "/status/phase") != "Running") {
            node_space.pods().delete("stillframe-e2e-killer", &DeleteParams::default().grace_period(0)).await?;
            node_space.gone("Pod", "stillframe-e2e-killer", Duration::from_mins(2)).await?;
        }
        self.cluster.apply("kube-system", &killer, "e2e", false).await?;
        node_space
            .wait("Pod", "stillframe-e2e-killer", "runs", Duration::from_mins(3), |pod| {
                text(pod, "/status/phase") == "Running"
            })
            .await?;
        node_space.exec("stillframe-e2e-killer", "killer", command, "").await
    }

    /// Kills a runner the moment `condition` holds, a command of bash that may use what `fixtures/kill-when.sh` has.
    /// Returns the step that it was in, or why it was too late. `bucket` is the pod of the S3 server, if that matters.
    pub async fn kill9_when(&self, pod: &str, bucket: Option<&str>, condition: &str) -> Result<Result<String, String>> {
        Ok(self.signal_when("KILL", pod, bucket, condition).await?.map(|(step, _)| step))
    }

    /// Stops a runner at such a moment, until it is told to go on. Returns its process.
    pub async fn stop_when(&self, pod: &str, condition: &str) -> Result<Result<String, String>> {
        Ok(self.signal_when("STOP", pod, None, condition).await?.map(|(_, process)| process))
    }

    /// Lets a stopped process go on.
    pub async fn go_on(&self, process: &str) -> Result<()> {
        self.on_node(&["bash", "-c", &format!("kill -CONT {process}")]).await.map(drop)
    }

    /// Sends a runner a signal at such a moment. Returns the step that it was in and its process.
    async fn signal_when(
        &self,
        signal: &str,
        pod: &str,
        bucket: Option<&str>,
        condition: &str,
    ) -> Result<Result<(String, String), String>> {
        let bucket = match bucket {
            Some(name) => self.get("Pod", name).await?,
            None => Value::Null,
        };
        let values = [
            ("NAMESPACE", self.name.as_str()),
            ("POD", pod),
            ("STORE_UID", bucket.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or("none")),
            ("CONDITION", condition),
            ("SIGNAL", signal),
        ];
        let script = super::fill(include_str!("../fixtures/kill-when.sh"), &values);
        // Before all others: moments are short.
        let said = self.on_node(&["nice", "-n", "-15", "bash", "-c", &script]).await?;
        let said = said.trim();
        let met = said.rsplit_once("met ");
        let met =
            met.map(|(step, process)| (step.trim().replace("\"step\":", "").replace('"', ""), process.to_owned()));
        Ok(met.ok_or_else(|| said.to_owned()))
    }
}
