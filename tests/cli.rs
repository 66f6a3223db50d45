//! The binary from outside, as far as it needs no server: help, exit codes, refusals, what goes to which stream, and
//! that no secret is ever shown.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

fn stillframe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stillframe"));
    command.args(arguments).env_remove("STILLFRAME_STORE").env_remove("STILLFRAME_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    outcome(&mut stillframe(arguments))
}

/// Runs it to its end, which must come soon: none of these has anything to wait for.
fn outcome(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    ended(child, &format!("{command:?}"))
}

fn ended(mut child: Child, what: &str) -> Output {
    let deadline = Instant::now() + Duration::from_mins(1);
    while child.try_wait().expect("it can be asked").is_none() {
        if Instant::now() >= deadline {
            child.kill().expect("it can be ended");
            panic!("{what} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output is there")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn store_in(dir: &Path) -> String {
    format!("file://{}", dir.join("store").display())
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [&["--help"][..], &["help"], &["--version"], &["backup", "--help"], &["help", "inspect", "redo"]] {
        let output = run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    assert!(stdout(&run(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_lists_every_exit_code_with_its_meaning() {
    let help = stdout(&run(&["--help"]));
    for kind in stillframe::ops::ErrorKind::ALL {
        let (code, reason) = (kind.exit_code().to_string(), kind.reason());
        let listed = help.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(code.as_str()) && words.next() == Some(reason)
        });
        assert!(listed, "{code} {reason} is not in\n{help}");
    }
}

#[test]
fn every_verb_has_help_and_every_documented_option() {
    let contract: &[(&str, &[&str])] = &[
        (
            "backup",
            &[
                "--store",
                "--name",
                "--socket",
                "--host",
                "--port",
                "--user",
                "--password-file",
                "--ssl-mode",
                "--ssl-ca",
                "--ssl-cert",
                "--ssl-key",
                "--ssl-server-name",
                "--datadir",
                "--keyring-file",
                "--encrypted-pages",
                "--incremental-from",
                "--compression",
                "--encryption-key-file",
                "--parallel",
                "--throttle",
                "--polite",
                "--lock-policy",
                "--lock-timeout",
                "--ddl-wait-budget",
                "--non-transactional",
                "--read-lock-budget",
                "--redo-consumer",
                "--spool-dir",
                "--spool-bytes",
                "--allow-untested-server",
                "--output",
            ],
        ),
        ("list", &["--store", "--output"]),
        ("show", &["--store", "--output"]),
        (
            "restore",
            &[
                "--store",
                "--datadir",
                "--recovery",
                "--mysqld",
                "--encryption-key-file",
                "--keyring-file",
                "--external-files",
                "--keep-replication",
                "--overwrite-incomplete",
                "--parallel",
                "--memory",
                "--output",
            ],
        ),
        ("verify", &["--store", "--encryption-key-file", "--output"]),
        ("delete", &["--store"]),
        ("pin", &["--store"]),
        ("unpin", &["--store"]),
        (
            "prune",
            &[
                "--store",
                "--keep-last",
                "--keep-daily",
                "--keep-weekly",
                "--keep-monthly",
                "--keep-within",
                "--stale",
                "--dry-run",
            ],
        ),
        ("inspect", &["redo", "page", "space", "backup"]),
        ("grants", &["--user", "--host"]),
    ];
    for (verb, options) in contract {
        let output = run(&["help", verb]);
        assert_eq!(code(&output), 0, "{verb}");
        let help = stdout(&output);
        for option in *options {
            assert!(help.split_whitespace().any(|word| word == *option), "{verb} {option} is not in\n{help}");
        }
    }
}

#[test]
fn usage_errors_end_with_2_and_say_nothing_on_standard_output() {
    let cases: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["list"],
        &["list", "--store", "file:///b", "--frobnicate"],
        &["backup", "--store", "file:///b", "--user", "u"],
        &["backup", "--store", "file:///b", "--user", "u", "--socket", "/s", "--host", "h"],
        &["backup", "--store", "file:///b", "--user", "u", "--socket", "/s", "--name", "Not A Name"],
        &["prune", "--store", "file:///b"],
        &["prune", "--store", "file:///b", "--keep-last", "0"],
        &["restore", "--store", "file:///b", "n", "--datadir", "/d", "--external-files", "a=b"],
    ];
    for arguments in cases {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn unknown_stores_are_refused_and_the_known_ones_named() {
    for store in ["ftp://host/dir", "/just/a/path", ""] {
        let output = run(&["list", "--store", store]);
        assert_eq!(code(&output), 2, "{store}: {}", stderr(&output));
        assert!(stderr(&output).contains("s3://bucket/prefix"), "{store}: {}", stderr(&output));
    }
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_never_repeated() {
    let cases: &[&[&str]] = &[
        &["backup", "--store", "file:///b", "--socket", "/s", "--user", "u", "--password=geheim"],
        &["backup", "--store", "file:///b", "--socket", "/s", "--user", "u", "--password", "geheim"],
        &["backup", "--store", "file:///b", "--socket", "/s", "--user", "u", "-pgeheim"],
        &["backup", "--password", "geheim"],
        &["list", "--store", "s3://key:geheim@bucket/prefix"],
        &["list", "--store", "ftp://key:geheim@host/"],
        &["show", "--store", "s3://bucket/prefix?secret=geheim", "nightly"],
    ];
    for arguments in cases {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        let all = stdout(&output) + &stderr(&output);
        assert!(!all.contains("geheim"), "{arguments:?}: {all}");
    }
    let refused = stderr(&run(&["backup", "--password=geheim"]));
    assert!(refused.contains("--password-file"), "{refused}");
    // Not in the environment either, where help would show it.
    let output = outcome(stillframe(&["list", "--help"]).env("STILLFRAME_STORE", "s3://key:geheim@bucket"));
    assert!(!stdout(&output).contains("geheim"));
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    let backup = ["backup", "--store", &store, "--socket", "/nonexistent", "--user", "u"];
    let incremental: Vec<&str> = backup.iter().copied().chain(["--incremental-from", "auto"]).collect();
    let short: Vec<&str> = backup.iter().copied().chain(["--lock-policy", "short"]).collect();
    for (arguments, named) in [(&incremental[..], "incremental backups"), (&short[..], "\"short\"")] {
        let output = run(arguments);
        assert_eq!(code(&output), 4, "{arguments:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("not there yet: ") && text.contains(named), "{text}");
        assert!(stderr(&output).contains("docs/runbooks/general.md"), "{}", stderr(&output));
    }
    assert!(!dir.path().join("store").exists(), "refused before anything was touched");
}

#[test]
fn an_empty_store_has_an_empty_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    fs::create_dir(dir.path().join("store")).unwrap();
    let table = run(&["list", "--store", &store]);
    assert_eq!((code(&table), stdout(&table).as_str()), (0, ""), "{}", stderr(&table));
    assert!(stderr(&table).contains("no backups in file://"), "{}", stderr(&table));
    let json = outcome(stillframe(&["list", "-o", "json"]).env("STILLFRAME_STORE", &store));
    assert_eq!(code(&json), 0);
    let list: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(list, serde_json::json!([]));
    assert!(json.stderr.is_empty(), "{}", stderr(&json));
}

#[test]
fn a_backup_that_is_not_there_has_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    fs::create_dir(dir.path().join("store")).unwrap();
    for verb in ["show", "verify", "delete", "pin", "unpin"] {
        let output = run(&[verb, "--store", &store, "nightly"]);
        assert_eq!(code(&output), 21, "{verb}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
        let text = stderr(&output);
        assert!(text.contains("nightly") && text.contains("hint: "), "{text}");
        assert!(text.contains("see: docs/runbooks/backups.md (NotFound, exit code 21)"), "{text}");
    }
}

#[test]
fn grants_prints_sql_and_nothing_else() {
    let output = run(&["grants", "--user", "bob", "--host", "10.0.0.%"]);
    assert_eq!(code(&output), 0);
    assert!(output.stderr.is_empty());
    let sql = stdout(&output);
    assert!(sql.contains("BACKUP_ADMIN") && sql.contains("bob") && sql.contains("10.0.0.%"), "{sql}");
}

#[test]
fn a_reader_that_leaves_is_no_failure_and_a_full_disk_is() {
    let mut child = stillframe(&["grants"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = stillframe(&["grants"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(code(&output), 5, "{}", stderr(&output));
}

#[test]
fn a_wrong_log_filter_is_a_usage_error() {
    let output = outcome(stillframe(&["grants"]).env("STILLFRAME_LOG", "stillframe=loud"));
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("STILLFRAME_LOG"), "{}", stderr(&output));
}

#[test]
fn inspect_shows_damage_without_failing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.ibd");
    let mut page0 = vec![0_u8; 16384 * 2];
    page0[24..26].copy_from_slice(&8_u16.to_be_bytes());
    page0[37] = 5;
    page0[41] = 5;
    page0[49] = 2;
    page0[56..58].copy_from_slice(&0x4021_u16.to_be_bytes());
    page0[100] = 1;
    page0[23] = 1;
    fs::write(&path, &page0).unwrap();
    let file = path.to_str().unwrap();
    let output = run(&["inspect", "space", file, "-o", "json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["kind"], &report["space"], &report["faultCount"]), (&"space".into(), &5.into(), &1.into()));
    let page = run(&["inspect", "page", file, "0"]);
    assert_eq!(code(&page), 0);
    assert!(stdout(&page).contains("BAD: checksum"), "{}", stdout(&page));
    let missing = run(&["inspect", "redo", "/nonexistent"]);
    assert_eq!(code(&missing), 5, "{}", stderr(&missing));
    let text = run(&["inspect", "redo", file]);
    assert_eq!(code(&text), 17, "{}", stderr(&text));
}

/// A verb that waits: its password file is a pipe that it has opened, and that nobody writes to.
struct Waiting {
    child: Child,
    _pipe: OwnedFd,
}

impl Waiting {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, stillframe(&[]))
    }

    fn start_with(dir: &Path, mut command: Command) -> Self {
        let pipe = dir.join("password");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        command.args(["backup", "--store", &store_in(dir), "--host", "127.0.0.1", "--port", "1", "--user", "u"]);
        command.arg("--password-file").arg(&pipe);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Nobody opens a pipe for writing before another reads from it. By then the signals' handlers are there: they
        // are installed before the verb begins.
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            match rustix::fs::open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
                Ok(opened) => return Self { child, _pipe: opened },
                Err(error) => assert!(Instant::now() < deadline, "it does not ask for its password: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; gives its exit code, and what it said.
    fn end(self) -> (Option<i32>, String) {
        let output = ended(self.child, "who was told to stop");
        (output.status.code(), stderr(&output))
    }
}

#[test]
fn a_signal_stops_a_verb_and_its_exit_code_says_so() {
    for signal in ["INT", "TERM", "HUP"] {
        let dir = tempfile::tempdir().unwrap();
        let mut waiting = Waiting::start(dir.path());
        assert!(waiting.is_running(), "it waits");
        waiting.send(signal);
        let (code, text) = waiting.end();
        assert_eq!(code, Some(3), "{signal}: {text}");
        assert!(text.contains("stopping") && text.contains("Cancelled"), "{text}");
        assert!(!text.contains("not done with cleaning up"), "it had to be ended: {text}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_the_shells_code() {
    let dir = tempfile::tempdir().unwrap();
    let waiting = Waiting::start(dir.path());
    // Stopped, it gets both at once: the read of the pipe cannot be taken back, so leaving takes a second, and no
    // second signal that is sent later is sure to come within it.
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        waiting.send(signal);
    }
    let (code, text) = waiting.end();
    assert!(matches!(code, Some(130 | 143)), "{code:?}: {text}");
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_stillframe")]);
    let mut waiting = Waiting::start_with(dir.path(), command);
    waiting.send("HUP");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(waiting.is_running(), "nohup means what it says");
    waiting.send("TERM");
    let (code, text) = waiting.end();
    assert_eq!(code, Some(3), "{text}");
}

#[cfg(feature = "operator")]
#[test]
fn every_line_of_a_runners_log_names_its_object() {
    let request = r#"{"version": 1, "object": "shop/nightly", "namespace": "shop", "report": "nightly-1", "key": "look-1",
        "work": {"look": {"dataDir": "/d"}}}"#;
    let mut runner = stillframe(&["runner", "--quiet", "--log-format", "json"]);
    runner.env("STILLFRAME_RUNNER_REQUEST", request).env("STILLFRAME_LOG", "trace");
    // Neither in a cluster nor told of one: it cannot report, and says so.
    runner.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nonexistent");
    let output = outcome(&mut runner);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let lines = stderr(&output);
    assert!(lines.lines().last().unwrap().contains("cannot reach Kubernetes"), "{lines}");
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!((&line["object"], &line["work"]), (&"shop/nightly".into(), &"look-1".into()), "{line}");
    }
}
