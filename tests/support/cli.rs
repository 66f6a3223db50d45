//! The built `stillframe`, run as a user would.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::server::Server;

/// No run of a test takes longer.
const PATIENCE: Duration = Duration::from_mins(5);

/// The binary that cargo built for this test run.
pub fn binary() -> PathBuf {
    option_env!("CARGO_BIN_EXE_stillframe")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("STILLFRAME_BINARY").map(PathBuf::from))
        .expect("built by cargo for tests and benches, else named by STILLFRAME_BINARY")
}

/// The account that backups are taken with.
pub const BACKUP_USER: &str = "stillframe";

/// Makes the account by the SQL that `stillframe grants` prints, if it is not there, and gives its password's file.
pub async fn backup_account(server: &Server) -> PathBuf {
    let file = server.root().join("backup-password");
    if !file.exists() {
        let grants = Cli::new("grants").args(["--user", BACKUP_USER, "--host", "localhost"]).run().await;
        grants.assert_success();
        server.sql(&grants.stdout).await;
        server.sql(&format!("ALTER USER {BACKUP_USER}@localhost IDENTIFIED BY 'backup-password'")).await;
        std::fs::write(&file, "backup-password\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    file
}

/// One command line.
#[derive(Debug)]
pub struct Cli {
    command: Command,
    shown: String,
}

impl Cli {
    /// `stillframe VERB`, with no variable of the test's environment that could change what it does.
    pub fn new(verb: &str) -> Self {
        Self::made(Command::new(binary()), verb)
    }

    /// The same with a limit of open files.
    pub fn with_open_files(verb: &str, most: u32) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &most.to_string()]).arg(binary());
        Self::made(command, verb)
    }

    fn made(mut command: Command, verb: &str) -> Self {
        command.arg(verb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["STILLFRAME_", "AWS_", "MYSQL_", "NO_COLOR"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        Self { command, shown: format!("stillframe {verb}") }
    }

    /// `stillframe backup` of a server over its socket, as the account that `stillframe grants` makes.
    pub async fn backup(server: &Server, store: &str) -> Self {
        let password = backup_account(server).await;
        Self::new("backup")
            .args(["--store", store, "--user", BACKUP_USER, "--password-file"])
            .arg(password)
            .arg("--socket")
            .arg(server.socket())
    }

    /// `stillframe restore NAME` into a directory.
    pub fn restore(store: &str, name: &str, datadir: impl AsRef<OsStr>) -> Self {
        Self::new("restore").args(["--store", store, name, "--datadir"]).arg(datadir)
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{} {}", self.shown, arg.as_ref().display());
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets several.
    pub fn envs(mut self, variables: &[(String, String)]) -> Self {
        self.command.envs(variables.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Takes the right to read and write all files from it, which root has by nature: permissions count again.
    pub fn without_capabilities(self) -> Self {
        if !rustix::process::geteuid().is_root() {
            return self;
        }
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]);
        self.behind(command)
    }

    /// Writes down which calls it makes of the system that change something in a file system or make it durable, one a
    /// line, with the paths of open files.
    pub fn traced(self, calls: &[&str], to: &std::path::Path) -> Self {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/strace.sh");
        let found = std::process::Command::new(&script).stderr(Stdio::inherit()).output().expect("a shell");
        assert!(found.status.success(), "no strace to test with: {} failed, see above", script.display());
        let mut command = Command::new(String::from_utf8(found.stdout).expect("a path").trim());
        // Those that an architecture does not have are left out.
        let calls: Vec<String> = calls.iter().map(|call| format!("?{call}")).collect();
        command
            .args(["-f", "-qq", "-y", "-e", "signal=none", "-e", &format!("trace={}", calls.join(",")), "-o"])
            .arg(to);
        self.behind(command)
    }

    /// Has another program run it, which is given its command line behind its own arguments.
    fn behind(mut self, mut command: Command) -> Self {
        let plain = self.command.as_std();
        command.arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        self.command = command;
        self
    }

    /// Runs it on a terminal of 120 columns, whose output is then the outcome's standard output; its report goes to a file.
    pub fn on_a_terminal(mut self, report: &std::path::Path) -> Self {
        let quoted = |text: &OsStr| format!("'{}'", text.to_str().unwrap().replace('\'', "'\\''"));
        let plain = self.command.as_std();
        let words: Vec<String> = std::iter::once(plain.get_program()).chain(plain.get_args()).map(quoted).collect();
        let line = format!("stty cols 120; exec {} > {}", words.join(" "), quoted(report.as_os_str()));
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        self.command = command;
        self
    }

    /// Lets its standard error through, so that a progress bar shows.
    pub fn visible(mut self) -> Self {
        self.command.stderr(Stdio::inherit());
        self
    }

    /// The line as one would type it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Runs it to its end.
    pub async fn run(self) -> Outcome {
        self.spawn().wait().await
    }

    /// Runs it, panics unless it succeeds, and gives the report of `-o json`.
    pub async fn json(self) -> Value {
        let outcome = self.args(["-o", "json"]).run().await;
        outcome.assert_success();
        outcome.json()
    }

    /// The same, and the highest memory of the run.
    pub async fn json_and_memory(self) -> (Value, u64) {
        let mut running = self.args(["-o", "json"]).spawn();
        let mut peak = 0;
        while running.is_running() {
            peak = peak.max(running.peak_memory().unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let outcome = running.wait().await;
        outcome.assert_success();
        (outcome.json(), peak)
    }

    /// Starts it and goes on.
    pub fn spawn(mut self) -> Background {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.shown));
        let said = Arc::default();
        let stdout = tokio::spawn(read_all(child.stdout.take(), Arc::default()));
        let stderr = tokio::spawn(read_all(child.stderr.take(), Arc::clone(&said)));
        Background { child, stdout, stderr, said, shown: self.shown, started: Instant::now() }
    }
}

/// Reads to the end; `so_far` shows what has come already.
async fn read_all(from: Option<impl AsyncRead + Unpin>, so_far: Arc<Mutex<Vec<u8>>>) -> String {
    let mut piece = [0; 4096];
    if let Some(mut from) = from {
        // What was read before an error is worth more than the error.
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            so_far.lock().unwrap().extend(&piece[..count]);
        }
    }
    let bytes = so_far.lock().unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A `stillframe` that runs beside the test. Dropping it kills it.
#[derive(Debug)]
pub struct Background {
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    said: Arc<Mutex<Vec<u8>>>,
    shown: String,
    started: Instant,
}

impl Background {
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for yet")
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal: `rustix::process::Signal::TERM`, `INT`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let Some(pid) = self.child.id() else { return };
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).expect("a process id is not 0");
        // It may have ended in between.
        rustix::process::kill_process(pid, signal).ok();
    }

    /// Its standard error so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// Waits until its standard error contains `text`. Panics when it ends before, or takes longer than a minute.
    pub async fn wait_until_said(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !self.said().contains(text) {
            let running = self.is_running() && Instant::now() < deadline;
            assert!(running || self.said().contains(text), "{} never said \"{text}\": {}", self.shown, self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its highest memory so far in bytes (`VmHWM`).
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
    }

    /// Waits for its end.
    pub async fn wait(mut self) -> Outcome {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            self.child.kill().await.ok();
            panic!("{} took longer than {PATIENCE:?}\n{}", self.shown, self.stderr.await.unwrap());
        };
        let status = status.expect("cannot wait for stillframe");
        let elapsed = self.started.elapsed();
        let (stdout, stderr) = (self.stdout.await.unwrap(), self.stderr.await.unwrap());
        Outcome { status, stdout, stderr, shown: self.shown, elapsed }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    shown: String,
}

impl Outcome {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn assert_success(&self) {
        assert!(self.status.success(), "{self}");
    }

    /// Panics unless it failed in the way of this kind: exit code and a message that contains `text`.
    pub fn assert_failed(&self, kind: stillframe::ops::error::ErrorKind, text: &str) {
        assert_eq!(self.code(), Some(i32::from(kind.exit_code())), "expected {}: {self}", kind.reason());
        assert!(self.stderr.contains(text), "the message does not say \"{text}\": {self}");
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON report ({error}): {self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stdout, stderr, shown, elapsed } = self;
        write!(f, "{shown}\n{status} after {elapsed:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
