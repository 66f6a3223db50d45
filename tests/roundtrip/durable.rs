//! In which order a restore makes things durable, as the system sees it: whenever the power goes, what is on the disk is
//! either marked as no database, or is one, whole.
//!
//! ```text
//!   marker ─ its sync, its directory's │ files, pages ─ [native: clean log] ─ small files │ sync of every file system
//!      │ #innodb_redo gets its name ─ sync of the directory │ the marker goes ─ sync of the directory
//! ```
//! Each `│` is a barrier: no call behind it begins before all those in front of it are over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::places::source_with_files_outside;
use super::support::cli::Cli;
use super::support::round;
use super::support::server::scratch;

const MARKER: &str = "stillframe-restore-incomplete";
const CHANGES: [&str; 36] = [
    "open",
    "openat",
    "openat2",
    "creat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "ftruncate",
    "truncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "splice",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
];
const SYNCS: [&str; 5] = ["fsync", "fdatasync", "syncfs", "sync", "msync"];
/// Ways to write that would not be seen.
const UNSEEN: [&str; 2] = ["mmap", "io_uring_setup"];

/// A call of the system, with the lines of the trace at which it began and was over.
#[derive(Debug)]
struct Call {
    name: String,
    text: String,
    began: usize,
    over: usize,
}

impl Call {
    /// It changes something.
    fn changes(&self) -> bool {
        let opens = ["open", "openat", "openat2"].contains(&self.name.as_str());
        CHANGES.contains(&self.name.as_str())
            && (!opens || self.text.contains("O_CREAT") || self.text.contains("O_TRUNC"))
    }

    fn is(&self, name: &str, path: &Path) -> bool {
        self.name == name && self.names(path)
    }

    /// It is about this very path, be it an open file's or a name.
    fn names(&self, path: &Path) -> bool {
        ["<%>", "\"%\""].iter().any(|form| self.text.contains(&form.replace('%', path.to_str().unwrap())))
    }
}

/// The calls of a trace that succeeded, in the order in which they began.
fn calls(trace: &str) -> Vec<Call> {
    let (mut calls, mut open) = (Vec::new(), HashMap::new());
    for (number, line) in trace.lines().enumerate() {
        let Some((process, said)) = line.trim_start().split_once(' ') else { continue };
        let said = said.trim_start();
        if let Some(text) = said.strip_suffix("<unfinished ...>") {
            // As it is shown when nothing comes in between.
            open.insert(process, (number, text.trim_end().to_owned()));
            continue;
        }
        let resumed = said.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let (began, text) = match resumed {
            Some((_, rest)) => {
                let (began, text) = open.remove(process).unwrap_or_else(|| panic!("never begun: {line}"));
                (began, text + rest)
            }
            None => (number, said.to_owned()),
        };
        let Some((name, _)) = text.split_once('(') else { continue };
        if !text.contains(" = -1 ") {
            calls.push(Call { name: name.to_owned(), text, began, over: number });
        }
    }
    assert!(open.is_empty(), "calls without an end: {open:?}");
    calls.sort_by_key(|call| call.began);
    calls
}

/// What a restore did in its target and to the files outside of it.
struct Restored {
    datadir: PathBuf,
    calls: Vec<Call>,
    /// File systems of all places, by the places.
    devices: BTreeMap<PathBuf, u64>,
}

impl Restored {
    fn changes(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.changes())
    }

    fn find(&self, name: &str, path: &Path) -> &Call {
        let shown = || self.calls.iter().map(|call| call.text.as_str()).collect::<Vec<_>>().join("\n");
        self.calls
            .iter()
            .find(|call| call.is(name, path))
            .unwrap_or_else(|| panic!("no {name} of {}:\n{}", path.display(), shown()))
    }

    /// Panics unless such a call began after one and was over before another.
    fn assert_between(&self, after: usize, before: usize, name: &str, path: &Path) {
        let is_there = self.calls.iter().any(|call| call.is(name, path) && call.began > after && call.over < before);
        assert!(is_there, "no {name} of {} between lines {after} and {before}", path.display());
    }

    fn device(&self, call: &Call) -> u64 {
        let place = self.devices.iter().find(|(place, _)| call.text.contains(place.to_str().unwrap()));
        *place.unwrap_or_else(|| panic!("it is in no place: {}", call.text)).1
    }
}

/// A folder on another file system than the servers', where there is one.
fn elsewhere() -> TempDir {
    let here = scratch();
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    let other = ["/dev/shm", "/run", "/tmp", "/var/tmp"].map(Path::new).into_iter().find_map(|path| {
        let is_other = device(path).is_some_and(|other| Some(other) != device(here.path()));
        TempDir::with_prefix_in("stillframe-", path).ok().filter(|_| is_other)
    });
    other.unwrap_or(here)
}

async fn traced_restore(recovery: &str, check: impl Fn(&Restored)) {
    let source = source_with_files_outside().await;
    let (folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let (target, outside) = (scratch(), elsewhere());
    let (datadir, place) = (target.path().join("data"), outside.path().join("moved"));
    let mapping = format!("{}={}", source.external_dir().display(), place.display());
    let trace = folder.path().join("trace");
    let restore = Cli::restore(&store, "backup", &datadir).args(["--recovery", recovery, "--external-files", &mapping]);
    let all: Vec<&str> = CHANGES.into_iter().chain(SYNCS).chain(UNSEEN).collect();
    restore.traced(&all, &trace).json().await;

    let devices = [target.path(), outside.path()]
        .map(|path| (path.to_owned(), path.metadata().unwrap().dev()))
        .into_iter()
        .collect();
    let mut calls = calls(&std::fs::read_to_string(trace).unwrap());
    for call in &calls {
        let unseen =
            call.name == "io_uring_setup" || (call.text.contains("MAP_SHARED") && call.text.contains("PROT_WRITE"));
        assert!(!unseen, "what it writes this way is not seen: {}", call.text);
    }
    let mut restored = Restored { datadir, calls: Vec::new(), devices };
    // A file without a name is none of the database.
    calls.retain(|call| {
        let is_near = restored.devices.keys().any(|place| call.text.contains(place.to_str().unwrap()));
        is_near && !call.text.contains("(deleted)") && (call.changes() || SYNCS.contains(&call.name.as_str()))
    });
    restored.calls = calls;
    assert!(restored.changes().count() > 50, "the trace shows only {} changes", restored.changes().count());
    assert!(restored.changes().any(|call| call.names(&place.join("d/own.ibd"))), "nothing is seen of files outside");
    check_marker(&restored);
    check_end(&restored);
    check(&restored);
}

/// The marker is durable before anything else is there.
fn check_marker(restored: &Restored) {
    let (datadir, marker) = (&restored.datadir, restored.datadir.join(MARKER));
    let others = restored
        .changes()
        .filter(|call| !call.names(&marker) && !call.is("mkdir", datadir) && !call.is("mkdirat", datadir));
    let first = others.map(|call| call.began).min().unwrap();
    let written = restored.find("write", &marker);
    let synced = restored.find("fsync", &marker);
    assert!(written.over < synced.began, "{} before {}", synced.text, written.text);
    restored.assert_between(synced.over, first, "fsync", datadir);
}

/// Everything is durable before the log gets its name, and that before the marker goes.
fn check_end(restored: &Restored) {
    let datadir = &restored.datadir;
    let named =
        restored.changes().find(|call| call.name.starts_with("rename") && call.names(&datadir.join("#innodb_redo")));
    let named = named.expect("the log never got its name");
    let before: Vec<&Call> = restored.changes().filter(|call| call.began < named.began).collect();
    let devices: BTreeSet<u64> = before.iter().map(|call| restored.device(call)).collect();
    for device in &devices {
        let last = before.iter().filter(|call| restored.device(call) == *device).map(|call| call.over).max().unwrap();
        let is_whole = |call: &&Call| call.name == "syncfs" && restored.device(call) == *device;
        let whole = restored.calls.iter().filter(is_whole).any(|call| call.began > last && call.over < named.began);
        assert!(whole, "no sync of a file system between its last change and the log's name");
    }

    let end: Vec<&Call> = restored.calls.iter().filter(|call| call.began >= named.began).collect();
    let marker = datadir.join(MARKER);
    let shown: Vec<&str> = end.iter().map(|call| call.text.as_str()).collect();
    let [_, synced, gone, last] = end[..] else { panic!("something else is done at the end: {shown:#?}") };
    let removed = gone.name.starts_with("unlink") && gone.names(&marker);
    assert!(removed && synced.is("fsync", datadir) && last.is("fsync", datadir), "{shown:#?}");
    assert!(end.is_sorted_by(|one, next| one.over < next.began), "at the same time: {shown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_durable_before_the_marker_goes_and_the_clean_log_comes_last() {
    traced_restore("native", |restored| {
        let log = restored.datadir.join("#innodb_redo.incomplete/#ib_redo0");
        let made = restored.changes().find(|call| call.name.starts_with("open") && call.names(&log)).expect("no log");
        let mut flushed = 0;
        for call in restored.changes().filter(|call| call.over > made.began) {
            // Where the log begins, in page 0 of the system tablespace.
            if call.names(&restored.datadir.join("ibdata1")) && call.text.contains(", 8, 26) ") {
                flushed += 1;
                continue;
            }
            let small = ["/mysqld-auto.cnf", "/binlog.index", MARKER, "/#innodb_redo"];
            assert!(small.iter().any(|name| call.text.contains(name)), "behind the log: {}", call.text);
        }
        assert_eq!(flushed, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_durable_before_the_marker_goes_where_a_server_is_to_recover() {
    traced_restore("server", |_| ()).await;
}
