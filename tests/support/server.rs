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

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

/// How long a start may take: recovery of a large log on a busy machine included.
const START_TIMEOUT: Duration = Duration::from_mins(3);
const STOP_TIMEOUT: Duration = Duration::from_mins(2);

/// The installed server, as `tests/setup/mysql.sh --info` describes it.
#[derive(Debug)]
pub struct Install {
    /// Starts it; may be given to `--mysqld`.
    pub mysqld: PathBuf,
    /// The executable itself.
    pub binary: PathBuf,
    pub plugin_dir: PathBuf,
    /// "9.7.4"
    pub version: String,
}

/// The server of this test run. Panics when there is none: a test never passes for want of a server.
pub fn install() -> &'static Install {
    static INSTALL: OnceLock<Install> = OnceLock::new();
    INSTALL.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/mysql.sh");
        let output = Command::new(&script).arg("--info").stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        assert!(output.status.success(), "no MySQL server to test with: {} failed, see above", script.display());
        let text = String::from_utf8(output.stdout).expect("the script prints text");
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("{} printed no {name}: {text}", script.display())).to_owned()
        };
        Install {
            mysqld: value("mysqld").into(),
            binary: value("binary").into(),
            plugin_dir: value("plugin_dir").into(),
            version: value("version"),
        }
    })
}

/// What a server is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    page_size: u32,
    server_id: Option<u32>,
    gtid: bool,
    log_bin: bool,
    separate_dirs: bool,
    data_file_path: Option<String>,
    external_dir: bool,
    keyring: Option<PathBuf>,
    own_keyring: bool,
    lower_case_table_names: Option<u32>,
    fresh: bool,
    options: Vec<(String, String)>,
    datadir: Option<PathBuf>,
    work_dir: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            page_size: 16 << 10,
            server_id: None,
            gtid: true,
            log_bin: true,
            separate_dirs: false,
            data_file_path: None,
            external_dir: true,
            keyring: None,
            own_keyring: false,
            lower_case_table_names: None,
            fresh: false,
            options: Vec::new(),
            datadir: None,
            work_dir: None,
        }
    }
}

impl Builder {
    /// `innodb_page_size`; 16 KiB unless told.
    pub fn page_size(mut self, bytes: u32) -> Self {
        self.page_size = bytes;
        self
    }

    /// Any server option: `option("innodb_flush_method", "fsync")`. Later ones win.
    pub fn option(mut self, name: &str, value: impl ToString) -> Self {
        self.options.push((name.replace('_', "-"), value.to_string()));
        self
    }

    pub fn server_id(mut self, id: u32) -> Self {
        self.server_id = Some(id);
        self
    }

    /// GTIDs; on unless told.
    pub fn gtid(mut self, on: bool) -> Self {
        self.gtid = on;
        self
    }

    /// The binary log; on unless told. Off turns GTIDs off too.
    pub fn log_bin(mut self, on: bool) -> Self {
        self.log_bin = on;
        self.gtid &= on;
        self
    }

    /// Undo, redo, binary log and system tablespace each in a directory of its own, outside of the data directory.
    pub fn separate_dirs(mut self) -> Self {
        self.separate_dirs = true;
        self
    }

    /// `innodb_data_file_path`: "a:12M;b:12M:autoextend".
    pub fn system_files(mut self, path: &str) -> Self {
        self.data_file_path = Some(path.to_owned());
        self
    }

    /// Whether `innodb_directories` names [`Server::external_dir`]; yes unless told.
    pub fn external_dir(mut self, on: bool) -> Self {
        self.external_dir = on;
        self
    }

    /// `component_keyring_file` with a key file of its own.
    pub fn keyring(mut self) -> Self {
        self.own_keyring = true;
        self
    }

    /// `component_keyring_file` with a given key file.
    pub fn keyring_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.keyring = Some(path.into());
        self
    }

    pub fn lower_case_table_names(mut self, value: u32) -> Self {
        self.lower_case_table_names = Some(value);
        self
    }

    /// Initialise anew instead of copying a template, so that even the redo log's uuid is its own.
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Runs on a directory that is already a database: a restored one. It is not removed at the end.
    pub fn on_datadir(mut self, path: impl Into<PathBuf>) -> Self {
        self.datadir = Some(path.into());
        self
    }

    /// Where the server's own folder is made, instead of below the target folder.
    pub fn work_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.work_dir = Some(path.into());
        self
    }

    /// Makes the directories and files, without starting.
    pub fn create(self) -> Server {
        Server::create(self)
    }

    /// Makes the server, starts it and waits until it answers.
    pub async fn start(self) -> Server {
        let mut server = Server::create(self);
        server.start().await;
        server
    }
}

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
            server.mysqld = keyring_wrapper(server.root.path(), &keys);
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
            copy_tree(&template(self.builder.page_size), &self.datadir);
            return;
        }
        let mut command = Command::new(&self.mysqld);
        command.args(self.arguments()).arg("--initialize-insecure");
        run_initialize(&mut command, &self.error_log_path());
        // Messages of the making are not the running server's.
        fs::remove_file(self.error_log_path()).ok();
    }

    /// The options that this server runs with, `--no-defaults` first.
    pub fn arguments(&self) -> Vec<String> {
        let builder = &self.builder;
        let root = self.root.path();
        let mut args = vec!["--no-defaults".to_owned()];
        let mut set = |name: &str, value: &dyn std::fmt::Display| args.push(format!("--{name}={value}"));
        set("datadir", &self.datadir.display());
        set("socket", &self.socket().display());
        set("pid-file", &root.join("pid").display());
        set("log-error", &self.error_log_path().display());
        set("log-error-verbosity", &3);
        set("tmpdir", &root.join("tmp").display());
        set("port", &self.port);
        set("bind-address", &"127.0.0.1");
        set("loose-mysqlx", &"OFF");
        set("server-id", &self.id);
        set("innodb-page-size", &builder.page_size);
        // Small, so that several run side by side on a small machine. Durability stays the server's default.
        set("innodb-buffer-pool-size", &"64M");
        set("innodb-redo-log-capacity", &"64M");
        set("table-definition-cache", &600);
        set("max-connections", &80);
        if builder.log_bin {
            let dir = if builder.separate_dirs { root.join("binlog") } else { self.datadir.clone() };
            set("log-bin", &dir.join("binlog").display());
            set("log-bin-index", &dir.join("binlog.index").display());
        } else {
            set("skip-log-bin", &"ON");
        }
        let gtid = if builder.gtid { "ON" } else { "OFF" };
        set("gtid-mode", &gtid);
        set("enforce-gtid-consistency", &gtid);
        if builder.separate_dirs {
            set("innodb-undo-directory", &root.join("undo").display());
            set("innodb-log-group-home-dir", &root.join("redo").display());
            set("innodb-data-home-dir", &root.join("sys").display());
        }
        if builder.external_dir {
            set("innodb-directories", &self.external_dir().display());
        }
        if let Some(path) = &builder.data_file_path {
            set("innodb-data-file-path", path);
        }
        if let Some(value) = builder.lower_case_table_names {
            set("lower-case-table-names", &value);
        }
        for (name, value) in &builder.options {
            set(name, value);
        }
        args
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

    /// Connects as root over the socket.
    pub async fn connect(&self) -> Conn {
        self.try_connect().await.unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.error_log().text))
    }

    pub async fn try_connect(&self) -> Result<Conn, mysql_async::Error> {
        self.connect_as("root", None).await
    }

    /// Connects over the socket as another user.
    pub async fn connect_as(&self, user: &str, password: Option<&str>) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.opts().user(Some(user)).pass(password)).await
    }

    /// Options of a connection as root over the socket.
    pub fn opts(&self) -> OptsBuilder {
        OptsBuilder::default()
            .socket(Some(self.socket().display().to_string()))
            .user(Some("root"))
            // Two sizes of packets: LOBs of the workload are large.
            .max_allowed_packet(Some(64 << 20))
            .stmt_cache_size(16)
    }

    /// Runs statements, one by one, on a connection of its own. Panics with the statement when one fails.
    pub async fn sql(&self, statements: &str) {
        let mut conn = self.connect().await;
        for statement in split_statements(statements) {
            conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        }
        conn.disconnect().await.ok();
    }

    /// All rows of a query.
    pub async fn rows<T: FromRow + Send + 'static>(&self, query: &str) -> Vec<T> {
        let mut conn = self.connect().await;
        let rows = conn.query(query).await.unwrap_or_else(|error| panic!("{error}\nin: {query}"));
        conn.disconnect().await.ok();
        rows
    }

    /// The first row of a query.
    pub async fn row<T: FromRow + Send + 'static>(&self, query: &str) -> T {
        self.rows(query).await.into_iter().next().unwrap_or_else(|| panic!("no row from: {query}"))
    }

    /// A global variable as text, e.g. `variable("gtid_executed")`.
    pub async fn variable(&self, name: &str) -> String {
        let (value,): (Option<String>,) = self.row(&format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)")).await;
        value.unwrap_or_default()
    }

    /// `gtid_executed` without line breaks.
    pub async fn gtid_executed(&self) -> String {
        self.variable("gtid_executed").await.replace('\n', "")
    }

    /// The LSN up to which redo is on disk.
    pub async fn flushed_lsn(&self) -> u64 {
        let (value,): (String,) = self
            .row(
                "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
                 WHERE VARIABLE_NAME = 'Innodb_redo_log_flushed_to_disk_lsn'",
            )
            .await;
        value.parse().expect("an LSN is a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.error_log().text;
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- error log of server {} (last lines)\n{}\n---", self.id, tail.join("\n"));
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
    TempDir::with_prefix_in("scratch-", work_root()).expect("cannot make a folder")
}

/// A TCP port of 127.0.0.1 that nobody uses right now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("no free port").port()
}

/// Statements at line ends: a semicolon inside of a line does not end one.
fn split_statements(text: &str) -> impl Iterator<Item = &str> {
    text.split(";\n").map(|part| part.trim().trim_end_matches(';')).filter(|part| !part.is_empty())
}

/// A `mysqld` that loads the keyring component: the manifest is looked for beside the binary, as its name with ".my",
/// and the configuration beside the component, so both get folders of links.
fn keyring_wrapper(root: &Path, keys: &Path) -> PathBuf {
    let install = install();
    let dir = root.join("keyring");
    let plugins = dir.join("plugin");
    fs::create_dir_all(&plugins).unwrap();
    let binary = dir.join("sbin/mysqld");
    fs::create_dir_all(dir.join("sbin")).unwrap();
    std::os::unix::fs::symlink(&install.binary, &binary).unwrap();
    for entry in fs::read_dir(&install.plugin_dir).expect("cannot read the plugin folder") {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), plugins.join(entry.file_name())).unwrap();
    }
    let manifest = r#"{"components": "file://component_keyring_file"}"#;
    fs::write(dir.join("sbin/mysqld.my"), manifest).unwrap();
    let config = serde_json::json!({ "path": keys, "read_only": false }).to_string();
    fs::write(plugins.join("component_keyring_file.cnf"), config).unwrap();
    let mut text = String::from("#!/bin/bash\n# mysqld with a keyring. Options about option files must stay first.\n");
    writeln!(text, "leading=()\nwhile [[ ${{1:-}} == --no-defaults || ${{1:-}} == --defaults-* ]]; do").unwrap();
    writeln!(text, "leading+=(\"$1\"); shift; done\nexport STILLFRAME_MYSQLD_BINARY='{}'", binary.display()).unwrap();
    let (wrapped, plugins) = (install.mysqld.display(), plugins.display());
    writeln!(text, "exec '{wrapped}' \"${{leading[@]}}\" --plugin-dir='{plugins}' \"$@\"").unwrap();
    let path = dir.join("mysqld");
    write_executable(&path, &text);
    path
}

/// Writes a script by way of another process: a descriptor open for writing that a concurrent fork inherits would make
/// starting it fail with "text file busy".
fn write_executable(path: &Path, text: &str) {
    let source = path.with_extension("text");
    fs::write(&source, text).unwrap();
    run_ok(Command::new("install").args(["-m", "755"]).arg(&source).arg(path));
}

/// The initialised data directory that new ones of this page size are copied from.
fn template(page_size: u32) -> PathBuf {
    let install = install();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .expect("neither XDG_CACHE_HOME nor HOME is set");
    let templates = cache.join("stillframe/templates");
    fs::create_dir_all(&templates).expect("cannot make the folder of templates");
    let name = format!("{}-{page_size}", install.version);
    let path = templates.join(&name);
    // One process makes it, the others wait for the lock's end.
    let lock = File::create(templates.join(format!("{name}.lock"))).expect("cannot make the template's lock");
    lock.lock().expect("cannot lock the template");
    if path.exists() {
        return path;
    }
    let partial = templates.join(format!("{name}.partial"));
    fs::remove_dir_all(&partial).ok();
    let log = templates.join(format!("{name}.log"));
    let mut command = Command::new(&install.mysqld);
    command
        .arg("--no-defaults")
        .arg(format!("--datadir={}", partial.display()))
        .arg(format!("--log-error={}", log.display()))
        .arg(format!("--innodb-page-size={page_size}"))
        .args(["--innodb-redo-log-capacity=64M", "--loose-mysqlx=OFF", "--skip-log-bin", "--initialize-insecure"]);
    run_initialize(&mut command, &log);
    // Every copy is to be a server of its own.
    fs::remove_file(partial.join("auto.cnf")).expect("an initialised directory has a server uuid");
    run_ok(Command::new("mv").arg(&partial).arg(&path));
    path
}

fn run_initialize(command: &mut Command, log: &Path) {
    let output = command.output().expect("cannot start mysqld");
    let said = String::from_utf8_lossy(&output.stderr);
    let log = fs::read_to_string(log).unwrap_or_default();
    assert!(output.status.success(), "mysqld --initialize-insecure: {}\n{said}{log}", output.status);
}

/// Copies a directory; where the file system can, without copying bytes.
fn copy_tree(from: &Path, to: &Path) {
    run_ok(Command::new("cp").args(["-a", "--reflink=auto", "--sparse=auto"]).arg(from).arg(to));
}

fn run_ok(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
