//! Which `mysqld` the tests use, and fresh data directories for it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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

/// A `mysqld` that loads the keyring component: the manifest is looked for beside the binary, as its name with ".my",
/// and the configuration beside the component, so both get folders of links.
pub(super) fn keyring_wrapper(root: &Path, keys: &Path) -> PathBuf {
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
pub(super) fn template(page_size: u32) -> PathBuf {
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

pub(super) fn run_initialize(command: &mut Command, log: &Path) {
    let output = command.output().expect("cannot start mysqld");
    let said = String::from_utf8_lossy(&output.stderr);
    let log = fs::read_to_string(log).unwrap_or_default();
    assert!(output.status.success(), "mysqld --initialize-insecure: {}\n{said}{log}", output.status);
}

/// Copies a directory; where the file system can, without copying bytes.
pub(super) fn copy_tree(from: &Path, to: &Path) {
    run_ok(Command::new("cp").args(["-a", "--reflink=auto", "--sparse=auto"]).arg(from).arg(to));
}

fn run_ok(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
