//! The server to back up, connected and found fit: everything that can refuse a backup before it costs anything.
//!
//! Owns the control session and what was learnt at the start. Takes no lock and reads no page.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::archive::manifest::MAX_MANIFEST_BYTES;
use crate::capture::{CopyPlan, CopySummary, FileKind, PlannedFile, RegisteredFile, SourceLayout};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::version::{ServerVersion, Support};
use crate::mysql::{self, GtidSet, LogStatus, Role, ServerInfo, ServerRole, Session};
use crate::ops::blocking;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::keyring;
use crate::ops::options::{BackupOptions, EncryptedPages, NonTransactional};
use crate::util::names::printable;

use super::layout::{Mount, source_layout};

/// A server that passed every check.
#[derive(Debug)]
pub struct Source {
    /// Its settings.
    pub info: ServerInfo,
    /// Where its files are, seen from here.
    pub layout: SourceLayout,
    /// Its keys, where it encrypts data and the file was given.
    pub keyring: Option<Arc<Keyring>>,
    /// The version is in no recorded test run.
    pub untested: bool,
    /// GTID set and binlog file when the backup began: neither may go backwards until the cut.
    pub at_start: LogStatus,
    /// What it is among its kind.
    pub role: Role,
    mount: Mount,
    warnings: Vec<String>,
}

impl Source {
    /// Connects and checks.
    pub async fn connect(options: &BackupOptions) -> Result<Self, Error> {
        let mut session = Session::connect(&options.server).await?;
        let info = ServerInfo::gather(&mut session).await?;
        let untested = check_version(&info.version_text, info.version, options.allow_untested_server)?;
        let checked = mysql::preflight(&mut session, &info).await?;
        let layout = source_layout(&info, options.datadir.as_deref())?;
        // A file system that answers slowly, or never, must not stop what else runs: the signals' cancel first of all.
        let (layout, keyring) = {
            let (uuid, keyring_file) = (info.uuid.clone(), options.keyring_file.clone());
            blocking(move || look_at_files(layout, &uuid, keyring_file.as_deref())).await?
        };
        check_redo_key(&info, keyring.is_some())?;
        check_page_key(checked.encrypted, keyring.is_some(), options.encrypted_pages)?;
        let at_start = LogStatus::read(&mut session).await?;
        check_gtid_room(at_start.gtid_executed.len().saturating_add(info.gtid_purged.len()))?;
        let ServerRole { role, .. } = ServerRole::beside(&mut session, &at_start).await?;
        session.close().await;
        let mount = Mount::new(&info.datadir, options.datadir.as_deref());
        let source = Self { info, layout, keyring, untested, at_start, role, mount, warnings: checked.warnings };
        if let Some((directory, binlog)) = source.binlog_directory().zip(source.at_start.binlog.as_ref()) {
            let path = directory.join(&binlog.file);
            blocking(move || check_binlog(&path)).await?;
        }
        Ok(source)
    }

    /// The tablespace files that the server itself knows of, seen from here. The backup lock keeps the list still.
    pub async fn registered_files(&self, options: &BackupOptions) -> Result<Vec<RegisteredFile>, Error> {
        let mut session = Session::connect(&options.server).await?;
        let files = mysql::registered_files(&mut session).await?;
        session.close().await;
        let seen = |(space, path): (_, String)| RegisteredFile { space, path: self.mount.resolve(path) };
        Ok(files.into_iter().map(seen).collect())
    }

    /// Refuses what the plan shows to be impossible or unwanted.
    pub fn check_plan(&self, options: &BackupOptions, plan: &CopyPlan) -> Result<(), Error> {
        if options.non_transactional == NonTransactional::Refuse
            && let Some(file) = plan.files.iter().find(|file| file.kind == FileKind::NonTransactional)
        {
            let message = format!("{} belongs to a table of an engine without redo", file.path.display());
            return Err(Error::new(ErrorKind::Preflight, message)
                .advise("convert the table to InnoDB, or choose --non-transactional include or skip"));
        }
        let encrypted = plan.spaces.iter().find(|space| space.flags.is_encrypted());
        if let (Some(space), None, EncryptedPages::Verify) = (encrypted, &self.keyring, options.encrypted_pages) {
            let path = space.pieces.first().map(|piece| piece.path.as_os_str().as_bytes()).unwrap_or_default();
            let message = format!("{} (space {}) is encrypted and no keyring was given", printable(path), space.space);
            return Err(Error::new(ErrorKind::KeyMissing, message).advise(NO_KEYRING));
        }
        Ok(())
    }

    /// Where the binary logs are, seen from here.
    pub fn binlog_directory(&self) -> Option<PathBuf> {
        let base = self.info.log_bin_basename.as_deref().filter(|text| !text.is_empty())?;
        self.mount.resolve(base).parent().map(Path::to_path_buf)
    }

    /// `ib_buffer_pool`, if the server has written one. It is where the system tablespace is, and comes back to the data
    /// directory, where a server of default settings looks for it.
    pub fn buffer_pool_file(&self) -> Option<PlannedFile> {
        let name = Path::new(&self.info.buffer_pool_filename);
        let path = self.layout.data_home.join(name);
        let relative = name.strip_prefix(&self.layout.datadir).ok().or_else(|| name.is_relative().then_some(name))?;
        // Written as ./ib_buffer_pool, or with .. in it: no server needs it so much that a backup should fail for it.
        let plain: PathBuf = relative.components().filter(|part| *part != Component::CurDir).collect();
        let is_plain = plain.components().all(|part| matches!(part, Component::Normal(_)));
        let relative = Some(plain).filter(|_| is_plain)?.as_os_str().as_bytes().to_vec();
        path.is_file().then_some(PlannedFile { path, relative: Some(relative), kind: FileKind::SystemTable })
    }

    /// What a person should know before the copy begins.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Fails where the cut is not a continuation of the start: another server, or logs that were reset meanwhile.
    pub fn check_continuation(&self, cut: &LogStatus, pages: &CopySummary) -> Result<(), Error> {
        check_continuation(&self.at_start, cut, pages.max_lsn)
    }
}

/// Whether `cut` is a later moment of the server that was as `then` when the backup began, and no page that was copied
/// is from a later one still. Pure.
fn check_continuation(then: &LogStatus, cut: &LogStatus, newest_page: Lsn) -> Result<(), Error> {
    let changed = |what: String| Err(Error::new(ErrorKind::SourceChanged, what));
    if cut.server_uuid != then.server_uuid {
        let (then, now) = (&then.server_uuid, &cut.server_uuid);
        return changed(format!("the server was {then} at the start and is {now} now"));
    }
    if cut.lsn < then.lsn {
        let (then, now) = (then.lsn, cut.lsn);
        return changed(format!("the server's LSN went back from {then} to {now}"));
    }
    if newest_page > cut.lsn {
        let now = cut.lsn;
        return changed(format!(
            "a page was changed at LSN {newest_page}, but the server is only at {now}: not its page"
        ));
    }
    let (before, now) = (gtids(then)?, gtids(cut)?);
    if !now.contains(&before) {
        return changed("transactions vanished from gtid_executed during the backup: binary logs were reset".into());
    }
    match (&then.binlog, &cut.binlog) {
        (Some(then), Some(now)) if now.number() < then.number() => {
            changed(format!("the binary log went back from {} to {}: it was reset", then.file, now.file))
        }
        _ => Ok(()),
    }
}

fn gtids(status: &LogStatus) -> Result<GtidSet, Error> {
    status.gtid_executed.parse().map_err(|error| {
        Error::new(ErrorKind::UnsupportedServer, "cannot read gtid_executed of the server").caused_by(error)
    })
}

/// Whether the server's version, `text` as it says it itself, is one that no recorded test run covers.
fn check_version(text: &str, version: ServerVersion, allow_untested: bool) -> Result<bool, Error> {
    match version.support() {
        Support::Tested => Ok(false),
        Support::Untested if allow_untested => Ok(true),
        Support::Untested => {
            Err(Error::new(ErrorKind::UnsupportedServer, format!("server version {text} is in no recorded test run"))
                .advise("pass --allow-untested-server to go on; the manifest will say so"))
        }
        Support::Unsupported(why) => {
            Err(Error::new(ErrorKind::UnsupportedServer, format!("server version {text} is not supported: {why}")))
        }
    }
}

/// The redo is cut inside of a block, which for an encrypted one takes its key: without it a backup would fail at its
/// very end, whatever is said of pages.
fn check_redo_key(info: &ServerInfo, has_keyring: bool) -> Result<(), Error> {
    let encrypts = info.settings.get("innodb_redo_log_encrypt").is_some_and(|value| value.eq_ignore_ascii_case("ON"));
    if has_keyring || !encrypts {
        return Ok(());
    }
    let message = "the redo log is encrypted (innodb_redo_log_encrypt=ON) and no keyring was given";
    Err(Error::new(ErrorKind::KeyMissing, message).advise("name the server's keyring file with --keyring-file"))
}

/// Without the key no encrypted page can be checked. Which file it is, is only known under the lock; that there are some is
/// known now, before anybody waits for one.
fn check_page_key(encrypted: bool, has_keyring: bool, policy: EncryptedPages) -> Result<(), Error> {
    if has_keyring || !encrypted || policy == EncryptedPages::CopyUnverified {
        return Ok(());
    }
    Err(Error::new(ErrorKind::KeyMissing, "tablespaces of the server are encrypted and no keyring was given")
        .advise(NO_KEYRING))
}

/// What to do without the server's keys.
const NO_KEYRING: &str = "name the server's keyring file with --keyring-file, or accept pages that nobody checked with \
                          --encrypted-pages copy-unverified";

/// GTID sets of so many bytes fit into a manifest, with what else there is in it and what comes until the cut.
const GTID_ROOM: usize = MAX_MANIFEST_BYTES / 4 * 3;

/// The manifest holds the sets whole: what it has no room for would be found at the commit.
fn check_gtid_room(bytes: usize) -> Result<(), Error> {
    if bytes <= GTID_ROOM {
        return Ok(());
    }
    let message = format!("gtid_executed and gtid_purged have {bytes} bytes; a manifest has room for {GTID_ROOM}");
    Err(Error::new(ErrorKind::UnsupportedServer, message))
}

/// What the file system has to say before anything is copied. Blocks.
fn look_at_files(
    layout: SourceLayout,
    uuid: &str,
    keyring_file: Option<&Path>,
) -> Result<(SourceLayout, Option<Arc<Keyring>>), Error> {
    check_same_server(&layout.datadir, uuid)?;
    check_readable(&layout)?;
    let keyring = keyring::read_if_named(keyring_file)?.map(Arc::new);
    Ok((layout, keyring))
}

/// The binary log's end is copied last of all, under the lock: that it cannot be read should not be found there.
fn check_binlog(path: &Path) -> Result<(), Error> {
    // One that was purged a moment ago is no reason to refuse; its directory must be there.
    let directory = path.parent().unwrap_or(path);
    let opened = std::fs::read_dir(directory).and_then(|_| match std::fs::File::open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    opened.map_err(|error| {
        let message = format!("cannot read the binary log {}, whose end belongs to the backup", path.display());
        Error::new(ErrorKind::LocalIo, message).caused_by(error).advise(
            "run as a user who may read it; where it is on a volume of its own, mount that here at the same path",
        )
    })
}

/// The uuid in the directory's `auto.cnf` must be the server's: another mount, another server, another history.
fn check_same_server(datadir: &Path, uuid: &str) -> Result<(), Error> {
    let path = datadir.join("auto.cnf");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Error::new(ErrorKind::ServerMismatch, format!("cannot read {}", path.display()))
            .caused_by(error)
            .advise("run next to the server, as a user who may read its files; --datadir names another mount of them")
    })?;
    let found = text.lines().find_map(|line| line.trim().strip_prefix("server-uuid=")).map(str::trim);
    if found == Some(uuid) {
        return Ok(());
    }
    let message =
        format!("{} is of server {}, but connected to {uuid}", datadir.display(), found.unwrap_or("(no uuid)"));
    Err(Error::new(ErrorKind::ServerMismatch, message))
}

/// Every directory that the copy needs can be listed, and the system tablespace be opened, by this user; no engine
/// has left files that nobody here understands.
fn check_readable(layout: &SourceLayout) -> Result<(), Error> {
    let advice = "run as the server's user, or as one that may read its files; --datadir names another mount of them";
    let dirs = [&layout.datadir, &layout.data_home, &layout.undo_dir, &layout.redo_dir].into_iter();
    for dir in dirs.chain(&layout.directories) {
        if let Err(error) = std::fs::read_dir(dir) {
            let message = format!("cannot list {}, which the server uses", dir.display());
            let is_gone = error.kind() == std::io::ErrorKind::NotFound && layout.directories.contains(dir);
            let advice = if is_gone {
                "make that directory, or take it out of innodb_directories and restart the server; where it is on a \
                 volume of its own, mount that here at the same path"
            } else {
                advice
            };
            return Err(Error::new(ErrorKind::LocalIo, message).caused_by(error).advise(advice));
        }
    }
    if layout.datadir.join(".rocksdb").is_dir() {
        let message = format!("{} holds tables of MyRocks, which cannot be backed up", layout.datadir.display());
        return Err(Error::new(ErrorKind::Preflight, message).advise("convert those tables to InnoDB"));
    }
    for file in &layout.system_files {
        if let Err(error) = std::fs::File::open(&file.path) {
            let message = format!("cannot read {}", file.path.display());
            return Err(Error::new(ErrorKind::LocalIo, message).caused_by(error).advise(advice));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gtid_sets_that_no_manifest_holds_are_refused_at_once() {
        check_gtid_room(500_000).unwrap();
        assert_eq!(check_gtid_room(1 << 20).unwrap_err().kind, ErrorKind::UnsupportedServer);
    }

    #[test]
    fn a_version_that_no_test_run_covers_is_taken_only_where_that_is_wanted() {
        let check = |version: &str, allowed| check_version(version, version.parse().unwrap(), allowed);
        for allowed in [false, true] {
            assert!(!check("9.7.4", allowed).unwrap(), "a tested one is never called untested");
        }
        let refused = check("8.4.6-suffix", false).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::UnsupportedServer);
        assert!(refused.message.contains("8.4.6-suffix"), "{refused}");
        assert!(refused.advice().contains("--allow-untested-server"), "{}", refused.advice());
        assert!(check("8.4.6-suffix", true).unwrap(), "the manifest says so");
        for allowed in [false, true] {
            let refused = check("8.0.29", allowed).unwrap_err();
            assert_eq!(refused.kind, ErrorKind::UnsupportedServer);
            assert!(refused.message.contains("8.0.29") && refused.message.contains("8.0.30"), "{refused}");
        }
    }

    #[test]
    fn a_cut_that_is_no_later_moment_of_the_same_server_is_refused() {
        const SET: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";
        const MORE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9";
        let status = |uuid: &str, lsn: u64, binlog: Option<&str>, gtids: &str| LogStatus {
            server_uuid: uuid.to_owned(),
            lsn: Lsn::new(lsn),
            checkpoint: Lsn::new(10),
            binlog: binlog.map(|file| mysql::BinlogPosition { file: file.to_owned(), position: 158 }),
            gtid_executed: gtids.to_owned(),
            channels: Vec::new(),
            other_engines: Vec::new(),
        };
        let then = status("a", 1000, Some("binlog.000007"), SET);
        let judge = |cut: &LogStatus, page: u64| check_continuation(&then, cut, Lsn::new(page));
        judge(&then, 1000).unwrap();
        judge(&status("a", 2000, Some("binlog.000008"), MORE), 1999).unwrap();
        for (cut, page, why) in [
            (status("b", 2000, Some("binlog.000008"), MORE), 10, "the server was a at the start and is b now"),
            (status("a", 999, Some("binlog.000008"), MORE), 10, "went back from 1000 to 999"),
            (status("a", 2000, Some("binlog.000008"), MORE), 2001, "a page was changed at LSN 2001"),
            (status("a", 2000, Some("binlog.000008"), "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-4"), 10, "vanished"),
            (status("a", 2000, Some("binlog.000006"), MORE), 10, "from binlog.000007 to binlog.000006"),
        ] {
            let error = judge(&cut, page).unwrap_err();
            assert_eq!(error.kind, ErrorKind::SourceChanged, "{error}");
            assert!(error.message.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn encrypted_pages_need_their_key_or_a_word() {
        use EncryptedPages::{CopyUnverified, Verify};
        for (encrypted, has_keyring, policy) in
            [(false, false, Verify), (true, true, Verify), (true, false, CopyUnverified)]
        {
            check_page_key(encrypted, has_keyring, policy).unwrap();
        }
        let error = check_page_key(true, false, Verify).unwrap_err();
        assert_eq!(error.kind, ErrorKind::KeyMissing);
        assert!(error.advice().contains("--keyring-file"), "{}", error.advice());
    }

    #[test]
    fn a_binary_log_that_cannot_be_read_is_named_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        check_binlog(&dir.path().join("binlog.000007")).unwrap();
        let gone = dir.path().join("elsewhere/binlog.000007");
        let error = check_binlog(&gone).unwrap_err();
        assert_eq!(error.kind, ErrorKind::LocalIo);
        assert!(error.message.contains("elsewhere/binlog.000007"), "{error}");
        // What is no file cannot be opened as one, whoever asks.
        let knot = dir.path().join("binlog.000008");
        std::os::unix::fs::symlink(&knot, &knot).unwrap();
        assert_eq!(check_binlog(&knot).unwrap_err().kind, ErrorKind::LocalIo);
    }

    #[tokio::test]
    async fn files_that_do_not_answer_stop_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let hanging = dir.path().join("auto.cnf");
        assert!(std::process::Command::new("mkfifo").arg(&hanging).status().unwrap().success());
        let layout = layout(dir.path(), Vec::new());
        let looking = tokio::spawn(blocking(move || look_at_files(layout, "u", None)));
        // On this one thread nothing else would run, were it the one that waits for the file.
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        assert!(!looking.is_finished());
        std::fs::write(&hanging, "server-uuid=other\n").unwrap();
        assert_eq!(looking.await.unwrap().unwrap_err().kind, ErrorKind::ServerMismatch);
    }

    fn layout(dir: &Path, directories: Vec<PathBuf>) -> SourceLayout {
        SourceLayout {
            datadir: dir.into(),
            data_home: dir.into(),
            system_files: Vec::new(),
            undo_dir: dir.into(),
            directories,
            redo_dir: dir.into(),
            page_size: crate::innodb::ids::PageSize::DEFAULT,
        }
    }

    #[test]
    fn a_directory_of_the_setting_that_is_gone_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        check_readable(&layout(dir.path(), vec![dir.path().into()])).unwrap();
        let error = check_readable(&layout(dir.path(), vec![dir.path().join("gone")])).unwrap_err();
        assert!(error.message.contains("gone") && error.advice().contains("innodb_directories"), "{error:?}");
        let error = check_readable(&layout(&dir.path().join("no"), vec![])).unwrap_err();
        assert!(!error.advice().contains("innodb_directories"), "{error:?}");
    }

    #[test]
    fn another_servers_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("auto.cnf"), "[auto]\nserver-uuid=aaaa\n").unwrap();
        check_same_server(dir.path(), "aaaa").unwrap();
        let refused = check_same_server(dir.path(), "bbbb").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ServerMismatch);
        assert!(refused.message.contains("aaaa") && refused.message.contains("bbbb"));
        assert_eq!(check_same_server(Path::new("/nowhere"), "x").unwrap_err().kind, ErrorKind::ServerMismatch);
    }
}
