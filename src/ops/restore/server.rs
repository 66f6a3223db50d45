//! Letting a stock server finish a restore: its own crash recovery, run once, isolated.
//!
//! ```text
//!   mysqld --version            is it old enough to refuse?
//!   mysqld --verbose --help     would its own settings open this directory?
//!   mysqld --datadir=… --skip-networking …
//!       │ error log: recovery …
//!       ├─ "ready for connections" ──SIGTERM──► clean shutdown, exit 0: recovered
//!       └─ exits by itself ──► RecoveryFailed, with the end of its log
//! ```
//! Isolated means: no network, no replication, no events, a socket and a log of its own in a private directory.
//! Which data directory and which files are there is the caller's business.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::archive::id::AttemptId;
use crate::innodb::ids::PageSize;
use crate::innodb::version::ServerVersion;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::restore::target::{Target, io_error};

/// How often the server's log is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long a server may take to shut down once the restore was cancelled: a cancelled process has 20 s for everything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of the server's log that an error carries.
const LOG_TAIL_LINES: usize = 25;

/// What a given server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its version.
    pub version: ServerVersion,
    /// `innodb_page_size`, where its defaults name one.
    pub page_size: Option<u32>,
    /// `lower_case_table_names`, where its defaults name one.
    pub lower_case_table_names: Option<u32>,
}

/// What the backup needs of a server.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Version of the server that was backed up.
    pub version: ServerVersion,
    /// Its page size.
    pub page_size: PageSize,
    /// Its `lower_case_table_names`.
    pub lower_case_table_names: u32,
    /// Settings that must be given to open the directory, as `name=value`.
    pub settings: Vec<String>,
    /// Further options of the one run that recovers it.
    pub recovery: Vec<String>,
}

/// Asks the server at `mysqld` for its version and the defaults that an option file of its own may set.
pub async fn probe(mysqld: &Path, datadir: &Path) -> Result<ServerSettings, Error> {
    let version_text = output_of(Command::new(mysqld).arg("--version"), mysqld).await?;
    let version = version_text
        .split("Ver ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse::<ServerVersion>().ok())
        .ok_or_else(|| mismatch(format!("{} is no MySQL server: it says {version_text:?}", mysqld.display())))?;
    let mut help = Command::new(mysqld);
    // lower_case_table_names is probed by the server in its data directory, which need not exist yet.
    let existing = datadir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let text =
        output_of(help.arg(format!("--datadir={}", existing.display())).args(["--verbose", "--help"]), mysqld).await?;
    Ok(ServerSettings {
        version,
        page_size: variable(&text, "innodb-page-size"),
        lower_case_table_names: variable(&text, "lower-case-table-names"),
    })
}

/// Refuses a server that could not open the backup; pure.
pub fn check(server: &ServerSettings, needs: &Needs) -> Result<(), Error> {
    if server.version < needs.version {
        let (old, new) = (server.version, needs.version);
        return Err(mismatch(format!("the given server is {old}, older than the backup's {new}: use {new} or later")));
    }
    // The defaults below are the server's own when no option file speaks; those are passed on its command line.
    if let Some(size) =
        server.page_size.filter(|size| *size != PageSize::DEFAULT.bytes() && *size != needs.page_size.bytes())
    {
        let wanted = needs.page_size;
        return Err(mismatch(format!("the given server is set to innodb_page_size {size}, the backup has {wanted}")));
    }
    if let Some(mode) = server.lower_case_table_names.filter(|mode| *mode != 0 && *mode != needs.lower_case_table_names)
    {
        let wanted = needs.lower_case_table_names;
        return Err(mismatch(format!(
            "the given server is set to lower_case_table_names {mode}, the backup has {wanted}"
        )));
    }
    Ok(())
}

/// Starts the server on the restored directory, waits until it has recovered, and shuts it down cleanly.
pub async fn recover(mysqld: &Path, target: &Target, needs: &Needs, cancel: &CancellationToken) -> Result<(), Error> {
    let private = private_dir()?;
    let log = private.join("recovery.err");
    let mut child = spawn(mysqld, target, needs, &private, &log)?;
    let outcome = supervise(&mut child, &log, cancel).await;
    let _ = std::fs::remove_dir_all(&private);
    outcome
}

fn spawn(mysqld: &Path, target: &Target, needs: &Needs, private: &Path, log: &Path) -> Result<Child, Error> {
    let mut command = Command::new(mysqld);
    // An option file may name directories of a server that lives: nothing of it may be used here.
    let _ = command
        .arg("--no-defaults")
        .arg(format!("--datadir={}", target.datadir().display()))
        .arg(format!("--socket={}", private.join("s").display()))
        .arg(format!("--pid-file={}", private.join("pid").display()))
        .arg(format!("--log-error={}", log.display()))
        .arg(format!("--innodb-page-size={}", needs.page_size))
        .arg(format!("--lower-case-table-names={}", needs.lower_case_table_names))
        .args(["--skip-networking", "--skip-replica-start", "--event-scheduler=OFF", "--mysqlx=OFF"])
        .args(["--log-error-verbosity=3", "--innodb-buffer-pool-load-at-startup=OFF"])
        .args(needs.settings.iter().map(|setting| format!("--{setting}")))
        .args(needs.recovery.iter().map(|option| format!("--{option}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        let user = target.owner().map_or_else(|| "root".to_owned(), |(uid, _)| uid.to_string());
        let _ = command.arg(format!("--user={user}"));
        if let Some((uid, gid)) = target.owner() {
            std::os::unix::fs::chown(private, Some(uid), Some(gid))
                .map_err(|error| io_error("change the owner of", private, error))?;
        }
    }
    command.spawn().map_err(|error| io_error("start", mysqld, error))
}

async fn supervise(child: &mut Child, log: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(|error| io_error("wait for the server of", log, error))?;
                return Err(failed(&format!("the server ended during recovery ({status})"), log));
            }
            () = cancel.cancelled() => return Err(stopped(stop(child, cancel, PATIENCE).await?)),
            () = tokio::time::sleep(POLL) => {}
        }
        // MY-010931 is "ready for connections": recovery is over by then (MySQL 8.0 to 9.7).
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if text.contains("[MY-010931]") {
            break;
        }
    }
    match stop(child, cancel, PATIENCE).await? {
        Stop::Ended(status) if status.success() => Ok(()),
        Stop::Ended(_) if cancel.is_cancelled() => Err(Error::cancelled()),
        Stop::Ended(status) => {
            Err(failed(&format!("the server recovered but did not shut down cleanly ({status})"), log))
        }
        killed @ Stop::Killed => Err(stopped(killed)),
    }
}

/// How a server that was told to shut down ended.
#[derive(Clone, Copy)]
enum Stop {
    /// By itself.
    Ended(std::process::ExitStatus),
    /// It took too long for somebody who waits to be let go.
    Killed,
}

fn stopped(how: Stop) -> Error {
    match how {
        Stop::Ended(_) => Error::cancelled(),
        Stop::Killed => {
            let seconds = PATIENCE.as_secs();
            let message =
                format!("cancelled before it was done; the server did not shut down within {seconds} s and was killed");
            Error::new(ErrorKind::Cancelled, message)
                .advise("the directory is as after a crash: a server that is started on it recovers it")
        }
    }
}

/// Tells the server to shut down and waits: as long as it takes, for it may have much to write, but after a cancel no
/// longer than `patience`. Then it is killed, which it is made for.
async fn stop(child: &mut Child, cancel: &CancellationToken, patience: Duration) -> Result<Stop, Error> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
        // A server that has gone already is what we want, too.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let failed =
        |error| Error::new(ErrorKind::RecoveryFailed, "cannot wait for the server to shut down").caused_by(error);
    let impatience = async {
        cancel.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        status = child.wait() => return Ok(Stop::Ended(status.map_err(failed)?)),
        () = impatience => {}
    }
    child.kill().await.map_err(failed)?;
    Ok(Stop::Killed)
}

fn failed(what: &str, log: &Path) -> Error {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n");
    Error::new(ErrorKind::RecoveryFailed, format!("{what}; the end of its log:\n{tail}"))
}

fn mismatch(message: String) -> Error {
    Error::new(ErrorKind::TargetMismatch, message)
}

async fn output_of(command: &mut Command, mysqld: &Path) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| io_error("run", mysqld, error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The value of `name` in the table that `mysqld --verbose --help` ends with.
fn variable(help: &str, name: &str) -> Option<u32> {
    help.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

/// A private directory with a short path: a socket's path may have 107 bytes only. Its name cannot be guessed, and
/// one that is there already is never used.
fn private_dir() -> Result<PathBuf, Error> {
    let path = std::env::temp_dir().join(format!("stillframe-{}", AttemptId::generate()));
    DirBuilder::new().mode(0o700).create(&path).map_err(|error| io_error("create", &path, error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            version: "9.7.4".parse().unwrap(),
            page_size: PageSize::DEFAULT,
            lower_case_table_names: 0,
            settings: Vec::new(),
            recovery: Vec::new(),
        }
    }

    #[test]
    fn older_servers_and_other_settings_are_refused() {
        let fits = ServerSettings {
            version: "9.7.5".parse().unwrap(),
            page_size: Some(16384),
            lower_case_table_names: Some(0),
        };
        check(&fits, &needs()).unwrap();
        let older = ServerSettings { version: "9.7.3".parse().unwrap(), ..fits.clone() };
        assert!(check(&older, &needs()).unwrap_err().to_string().contains("older than the backup's 9.7.4"));
        let other_pages = ServerSettings { page_size: Some(4096), ..fits.clone() };
        assert!(check(&other_pages, &needs()).unwrap_err().to_string().contains("innodb_page_size 4096"));
        let other_names = ServerSettings { lower_case_table_names: Some(1), ..fits };
        assert!(check(&other_names, &needs()).unwrap_err().to_string().contains("lower_case_table_names 1"));
    }

    fn deaf() -> Child {
        let script = "trap '' TERM; while :; do sleep 0.05; done";
        Command::new("bash").args(["-c", script]).kill_on_drop(true).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_does_not_shut_down_is_killed_once_the_restore_is_cancelled() {
        let (cancel, mut child) = (CancellationToken::new(), deaf());
        let id = child.id().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let stopping = stop(&mut child, &cancel, Duration::from_millis(100));
        tokio::pin!(stopping);
        // Nobody cancelled: it may take its time.
        let early = tokio::time::timeout(Duration::from_millis(400), &mut stopping).await;
        assert!(early.is_err());
        cancel.cancel();
        let how = stopping.await.unwrap();
        assert!(matches!(how, Stop::Killed));
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "it is still there");
        let error = stopped(how);
        assert!(error.kind == ErrorKind::Cancelled && error.message.contains("was killed"), "{error:?}");
    }

    #[test]
    fn variables_are_read_from_the_help_text() {
        let help = "innodb-page-size      16384\nlower-case-table-names   1\nlog-bin  binlog\n";
        assert_eq!(variable(help, "innodb-page-size"), Some(16384));
        assert_eq!(variable(help, "lower-case-table-names"), Some(1));
        assert_eq!(variable(help, "log-bin"), None);
    }
}
