//! One crash: a server is brought up to a known state, works, and is killed; what it leaves is split into a base copy
//! and the redo since then, so that recovery can be done twice.
//!
//! ```text
//!   setup ─ stop ─ copy the files (cold) ─ start ─ work ─────────────────────── kill -9
//!   setup ───────── checkpoint ─────────── work ─ copy the files (hot) ─ work ─ kill -9
//!                   │◄───────────────── redo, none of it given up ─────────────►│
//!
//!   base   every tablespace that is there at the end, under its last name: as copied, or as it is made by the server
//!          before the first redo of it, or (built without redo) as the crash left it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mysql_async::prelude::Queryable as _;
use stillframe::innodb::ids::{PageNo, SpaceId};
use stillframe::innodb::keyring::Keyring;
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::RecordKind;
use stillframe::innodb::redo::file::{RedoFileHeader, decode_checkpoint, file_number};
use tempfile::TempDir;

use crate::files::{Space, copy_hot, fresh, spaces};
use crate::log::{Log, each_group};
use crate::support::server::{Builder, Server, scratch};

/// What a crash left.
pub struct Crash {
    pub server: Server,
    pub base: TempDir,
    pub log: Log,
    pub keyring: Option<Keyring>,
    /// The server's `version_compile_zlib`.
    pub zlib: String,
}

impl Crash {
    /// The directory with the base's files.
    pub fn base(&self) -> PathBuf {
        self.base.path().join("data")
    }

    /// The server's redo, all files of it.
    pub fn redo(&self) -> PathBuf {
        self.server.redo_home().join("#innodb_redo")
    }
}

/// A server for a case: it keeps its redo, all of it. Where there is no room for more, it waits, and after ten minutes dies.
pub fn keeping(builder: Builder) -> Builder {
    builder.option("innodb_redo_log_capacity", "1G").external_dir(false)
}

/// Takes the files as they are at rest, then works and crashes.
pub async fn cold(builder: Builder, setup: impl AsyncFn(&Server), work: impl AsyncFn(&Server)) -> Crash {
    let mut server = keeping(builder).start().await;
    setup(&server).await;
    server.stop().await;
    let checkpoint = checkpoint(&server.redo_home().join("#innodb_redo"));
    let copied = scratch();
    copy_all(server.datadir(), keyring(&server).as_ref(), copied.path(), false);
    server.start().await;
    let holder = hold(&server).await;
    work(&server).await;
    crash(server, Some(&copied), checkpoint, holder).await
}

/// Works on, while and after the files are copied, then crashes.
pub async fn hot(
    builder: Builder,
    setup: impl AsyncFn(&Server),
    during: impl AsyncFn(&Server),
    after: impl AsyncFn(&Server),
) -> Crash {
    let server = keeping(builder).start().await;
    setup(&server).await;
    let holder = hold(&server).await;
    let checkpoint = crate::log::status_lsn(&server, "checkpoint_lsn").await;
    let copied = scratch();
    let (datadir, keys, to) = (server.datadir().to_owned(), keyring(&server), copied.path().to_owned());
    let copy = async {
        // Some work is done before, so that what is copied is in the midst of it.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        tokio::task::spawn_blocking(move || copy_all(&datadir, keys.as_ref(), &to, true)).await.unwrap();
    };
    tokio::join!(during(&server), copy);
    after(&server).await;
    crash(server, Some(&copied), checkpoint, holder).await
}

/// Works and crashes; the base is what is then on disk: pages are as new as the server happened to write them.
pub async fn crashed(builder: Builder, setup: impl AsyncFn(&Server), work: impl AsyncFn(&Server)) -> Crash {
    let server = keeping(builder).start().await;
    setup(&server).await;
    let holder = hold(&server).await;
    let checkpoint = crate::log::status_lsn(&server, "checkpoint_lsn").await;
    work(&server).await;
    crash(server, None, checkpoint, holder).await
}

/// A session for whose life no redo is given up.
async fn hold(server: &Server) -> mysql_async::Conn {
    let mut holder = server.connect().await;
    let refused: Option<i64> = holder.query_first("SELECT innodb_redo_log_consumer_register()").await.unwrap();
    assert_eq!(refused, Some(0));
    holder
}

async fn crash(mut server: Server, copied: Option<&TempDir>, checkpoint: Lsn, holder: mysql_async::Conn) -> Crash {
    server.sql("FLUSH ENGINE LOGS").await;
    let zlib = server.variable("version_compile_zlib").await;
    server.kill9();
    // Not before: at once the server would give up the redo that it kept.
    drop(holder);
    let keyring = keyring(&server);
    let log = Log::read(&server.redo_home().join("#innodb_redo"), checkpoint, keyring.as_ref());
    let base = scratch();
    let before = copied.map(|copied| spaces(copied.path(), keyring.as_ref())).unwrap_or_default();
    build_base(&server, &before, &log, &base.path().join("data"), keyring.as_ref());
    Crash { server, base, log, keyring, zlib }
}

/// The server's keys; it makes the file with the first one.
fn keyring(server: &Server) -> Option<Keyring> {
    let bytes = std::fs::read(server.keyring_file()?).ok().filter(|bytes| !bytes.is_empty())?;
    Some(Keyring::parse(&bytes).unwrap())
}

/// The checkpoint that a server would begin recovery at.
pub fn checkpoint(redo: &Path) -> Lsn {
    let mut found = Lsn::ZERO;
    for (_, path) in redo_files(redo) {
        let bytes = std::fs::read(path).unwrap();
        for at in [512, 1536] {
            found = found.max(decode_checkpoint(&bytes[at..at + 512]).ok().flatten().unwrap_or(Lsn::ZERO));
        }
    }
    found
}

/// Redo files in use, by their start.
pub fn redo_files(redo: &Path) -> BTreeMap<Lsn, PathBuf> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(redo).unwrap() {
        let path = entry.unwrap().path();
        if file_number(path.file_name().unwrap().to_str().unwrap()).is_some() {
            let mut head = [0; 512];
            std::io::Read::read_exact(&mut std::fs::File::open(&path).unwrap(), &mut head).unwrap();
            files.insert(RedoFileHeader::decode(&head).unwrap().start_lsn, path);
        }
    }
    files
}

fn copy_all(datadir: &Path, keyring: Option<&Keyring>, to: &Path, hot: bool) {
    for space in spaces(datadir, keyring).values() {
        let to = to.join(&space.path);
        if hot {
            copy_hot(space, &to);
        } else {
            copy_file(&space.file, &to);
        }
    }
}

fn copy_file(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// Tablespaces that a log makes from nothing, and those into which something was written without it.
fn made_and_loaded(log: &Log) -> (BTreeSet<SpaceId>, BTreeSet<SpaceId>) {
    let (mut made, mut loaded) = (BTreeSet::new(), BTreeSet::new());
    each_group(log, log.checkpoint, 2048, |group| {
        for record in group.records() {
            if let Some(page) = record.page {
                match record.kind {
                    RecordKind::InitFilePage2 if page.page == PageNo(0) => drop(made.insert(page.space)),
                    RecordKind::IndexLoad => drop(loaded.insert(page.space)),
                    _ => {}
                }
            }
        }
        true
    });
    (made, loaded)
}

fn build_base(server: &Server, copies: &BTreeMap<SpaceId, Space>, log: &Log, to: &Path, keyring: Option<&Keyring>) {
    let (made, loaded) = made_and_loaded(log);
    let now = spaces(server.datadir(), keyring);
    for space in now.values() {
        let to = to.join(&space.path);
        match copies.get(&space.id) {
            Some(copy) if !loaded.contains(&space.id) => copy_file(&copy.file, &to),
            None if !copies.is_empty() && made.contains(&space.id) && !loaded.contains(&space.id) => {
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::write(&to, fresh(space)).unwrap();
            }
            _ => copy_file(&space.file, &to),
        }
    }
    copy_the_rest(server.datadir(), to, &now);
}

/// What is not InnoDB's, for a server to start.
fn copy_the_rest(from: &Path, to: &Path, spaces: &BTreeMap<SpaceId, Space>) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let own = ["#ib", "#innodb", "ibdata", "ibtmp"].iter().any(|own| name.starts_with(own));
        if path.is_dir() && !own {
            std::fs::create_dir_all(to.join(&name)).unwrap();
            copy_the_rest(&path, &to.join(&name), spaces);
        } else if !own && !spaces.values().any(|space| space.file == path) {
            copy_file(&path, &to.join(&name));
        }
    }
}
