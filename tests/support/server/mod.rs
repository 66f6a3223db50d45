//! A real `mysqld`: its directories, options, life and death.
//!
//! ```text
//!   <work>/<name>/data  undo  redo  binlog  sys  external  keyring/  error.log      directories, some only on demand
//!   /tmp/sf-XXXX/s                                                                  socket: its path must be short
//! ```
//!
//! A new data directory is a copy of a template that is initialised once per version and page size and kept in the
//! user's cache, so it takes tenths of a second. Copies get their own server uuid but share `log_uuid` of the redo log;
//! [`Builder::fresh`] initialises anew.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use tempfile::TempDir;

pub use builder::Builder;
pub use install::install;
pub use query::split_statements;

mod builder;
mod install;
mod query;

/// How long a start may take: recovery of a large log on a busy machine included.
const START_TIMEOUT: Duration = Duration::from_mins(3);
const STOP_TIMEOUT: Duration = Duration::from_mins(2);

/// One server. Dropping it kills the process and removes its directories, but for a data directory given by the test.
#[derive(Debug)]
pub struct Server {
    builder: Builder,
    id: u32,
    port: u16,
    root: TempDir,
    socket_dir: TempDir,
    datadir: PathBuf,
    mysqld: PathBuf,
    child: Option<Child>,
    /// Kills the server when this process is gone: it holds the other end of its standard input.
    watchdog: Option<Child>,
}

impl Server {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A builder for a second server like this one: same formats and features, own directories, id and port.
    /// What was at a place of its own (separate directories, key file) is shared where a restored server needs it.
    pub fn sibling(&self) -> Builder {
        let mut builder = self.builder.clone();
        builder.server_id = None;
        builder.datadir = None;
        builder.keyring = self.keyring_file();
        builder.own_keyring = false;
        builder
    }

    /// Starts a stock server with default options on a directory that is already a database.
    pub async fn on_datadir(path: impl Into<PathBuf>) -> Self {
        Self::builder().on_datadir(path).start().await
    }

    fn create(builder: Builder) -> Self {
        static NEXT_ID: AtomicU32 = AtomicU32::new(1);
        let work = builder.work_dir.clone().unwrap_or_else(work_root);
        fs::create_dir_all(&work).expect("cannot make the tests' work folder");
        let root = TempDir::with_prefix_in("server-", &work).expect("cannot make a server's folder");
        let id = builder
            .server_id
            .unwrap_or_else(|| (std::process::id() % 1_000_000) * 100 + NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let datadir = builder.datadir.clone().unwrap_or_else(|| root.path().join("data"));
        let mut server = Self {
            id,
            port: free_port(),
            datadir,
            mysqld: install().mysqld.clone(),
            socket_dir: TempDir::with_prefix_in("sf-", "/tmp").expect("cannot make a folder for the socket"),
            root,
            builder,
            child: None,
            watchdog: None,
        };
        for dir in ["undo", "redo", "binlog", "sys", "external", "tmp"] {
            fs::create_dir(server.root.path().join(dir)).expect("cannot make a server's folder");
        }
        if let Some(keys) = server.keyring_file() {
            server.mysqld = install::keyring_wrapper(server.root.path(), &keys);
        }
        if server.builder.datadir.is_none() {
            server.make_datadir();
        }
        server
    }

    fn make_datadir(&self) {
        let from_template = !(self.builder.fresh
            || self.builder.separate_dirs
            || self.builder.data_file_path.is_some()
            || self.keyring_file().is_some()
            || self.builder.lower_case_table_names.is_some());
        if from_template {
            install::copy_tree(&install::template(self.builder.page_size), &self.datadir);
            return;
        }
        let mut command = Command::new(&self.mysqld);
        command.args(self.arguments()).arg("--initialize-insecure");
        install::run_initialize(&mut command, &self.error_log_path());
        // Messages of the making are not the running server's.
        fs::remove_file(self.error_log_path()).ok();
    }

    /// Starts the process and waits until it answers. Panics with its log when it does not.
    pub async fn start(&mut self) {
        if let Err(log) = self.try_start().await {
            panic!("mysqld did not start on {}:\n{log}", self.datadir.display());
        }
    }

    /// Starts the process and waits until it answers, or gives back the log of a start that failed.
    pub async fn try_start(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "this server runs already");
        for attempt in 0.. {
            self.spawn();
            match self.wait_ready().await {
                // Another process took the port in between.
                Err(log) if attempt < 3 && log.contains("Address already in use") => self.port = free_port(),
                other => return other,
            }
        }
        unreachable!("the loop ends by returning")
    }

    fn spawn(&mut self) {
        let quiet = File::options().create(true).append(true).open(self.root.path().join("output")).unwrap();
        let child = Command::new(&self.mysqld)
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(quiet.try_clone().unwrap())
            .stderr(quiet)
            .process_group(0)
            .spawn()
            .expect("cannot start mysqld");
        let watchdog = Command::new("/bin/sh")
            .arg("-c")
            .arg("cat >/dev/null; grep -qF -- \"$2\" /proc/$1/cmdline 2>/dev/null && kill -9 $1")
            .args(["watchdog", &child.id().to_string(), &self.datadir.display().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("cannot start the watchdog");
        self.child = Some(child);
        self.watchdog = Some(watchdog);
    }

    async fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                self.reap();
                return Err(format!("{status}\n{}", self.everything_said()));
            }
            if self.socket().exists() && self.try_connect().await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.kill9();
                return Err(format!("no answer in {START_TIMEOUT:?}\n{}", self.everything_said()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Shuts down cleanly.
    pub async fn stop(&mut self) {
        let mut conn = self.connect().await;
        // The server may close the connection before it answers.
        conn.query_drop("SHUTDOWN").await.ok();
        drop(conn);
        self.wait_exit().await;
    }

    /// Waits until the process is gone, whatever ended it.
    pub async fn wait_exit(&mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.is_running() {
            assert!(Instant::now() < deadline, "mysqld did not stop:\n{}", self.error_log().text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.reap();
    }

    /// `kill -9`, as a crash of the machine but for what the kernel still holds.
    pub fn kill9(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
        }
        self.reap();
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    fn reap(&mut self) {
        for mut child in [self.child.take(), self.watchdog.take()].into_iter().flatten() {
            drop(child.stdin.take());
            child.wait().ok();
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    pub fn socket(&self) -> PathBuf {
        self.socket_dir.path().join("s")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn server_id(&self) -> u32 {
        self.id
    }

    pub fn page_size(&self) -> u32 {
        self.builder.page_size
    }

    /// Whether it has the binary log and GTIDs: then it can be a replica's source.
    pub fn gtid(&self) -> bool {
        self.builder.gtid
    }

    /// Starts this server's binary with what it needs (a keyring); for `--mysqld`.
    pub fn mysqld(&self) -> &Path {
        &self.mysqld
    }

    /// The folder that holds all of this server's directories.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A folder outside of the data directory that the server knows, for `DATA DIRECTORY`.
    pub fn external_dir(&self) -> PathBuf {
        self.root.path().join("external")
    }

    pub fn undo_dir(&self) -> PathBuf {
        if self.builder.separate_dirs { self.root.path().join("undo") } else { self.datadir.clone() }
    }

    /// The directory that holds `#innodb_redo`.
    pub fn redo_home(&self) -> PathBuf {
        if self.builder.separate_dirs { self.root.path().join("redo") } else { self.datadir.clone() }
    }

    pub fn binlog_dir(&self) -> PathBuf {
        if self.builder.separate_dirs { self.root.path().join("binlog") } else { self.datadir.clone() }
    }

    pub fn data_home(&self) -> PathBuf {
        if self.builder.separate_dirs { self.root.path().join("sys") } else { self.datadir.clone() }
    }

    /// The key file, with [`Builder::keyring`].
    pub fn keyring_file(&self) -> Option<PathBuf> {
        let own = self.builder.own_keyring.then(|| self.root.path().join("keyring.json"));
        self.builder.keyring.clone().or(own)
    }

    fn error_log_path(&self) -> PathBuf {
        self.root.path().join("error.log")
    }

    /// All that the server has logged since it was made.
    pub fn error_log(&self) -> ErrorLog {
        ErrorLog { text: fs::read(self.error_log_path()).map_or(String::new(), |b| String::from_utf8_lossy(&b).into()) }
    }

    fn everything_said(&self) -> String {
        let output = fs::read_to_string(self.root.path().join("output")).unwrap_or_default();
        format!("{output}{}", self.error_log().text)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.error_log().text;
            let told: Vec<&str> = log.lines().filter(|line| !line.contains("[Note]")).collect();
            let told = told[told.len().saturating_sub(25)..].join("\n");
            eprintln!("--- what server {} logged last, without notes\n{told}\n---", self.id);
        }
        self.kill9();
        if std::env::var_os("STILLFRAME_KEEP").is_some() {
            eprintln!("kept: {}", self.root.path().display());
            self.root.disable_cleanup(true);
        }
    }
}

/// A server's error log.
#[derive(Debug, Clone)]
pub struct ErrorLog {
    pub text: String,
}

impl ErrorLog {
    /// Lines of severity ERROR.
    pub fn errors(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.contains("[ERROR]")).collect()
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.contains("[Warning]")).collect()
    }

    /// Panics if the server reported any error.
    pub fn assert_clean(&self) {
        let errors = self.errors();
        assert!(errors.is_empty(), "the server logged errors:\n{}", errors.join("\n"));
    }
}

/// Where servers' folders are made: below the target folder, on a real disk.
pub fn work_root() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// An empty folder on the same disk as the servers, removed when dropped.
pub fn scratch() -> TempDir {
    fs::create_dir_all(work_root()).expect("cannot make the tests' work folder");
    let mut dir = TempDir::with_prefix_in("scratch-", work_root()).expect("cannot make a folder");
    dir.disable_cleanup(std::env::var_os("STILLFRAME_KEEP").is_some());
    dir
}

/// A TCP port of 127.0.0.1 that nobody uses right now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("no free port").port()
}
