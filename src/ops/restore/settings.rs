//! The settings without which a server does not open the restored directory; pure.
//!
//! ```text
//!   always             innodb_page_size, lower_case_table_names, if they are not the server's defaults
//!   system tablespace  innodb_data_file_path; innodb_data_home_dir where its files lie elsewhere
//!   undo elsewhere     innodb_undo_directory        other files elsewhere   innodb_directories
//!   the source had it elsewhere, and it is inside now    innodb_data_home_dir, innodb_undo_directory, log_bin: the places inside
//!   redo               innodb_log_group_home_dir=./, where the source had it elsewhere: its log is restored inside
//!   binary log         log_bin, log_bin_index, where name or place are not the server's defaults
//! ```
//! A directory that always held everything itself, with default settings, needs none.

use std::collections::BTreeSet;
use std::path::Path;

use crate::archive::Location;
use crate::archive::filetable::{FileEntry, FileTable, SpaceEntry, StoredFileKind};
use crate::archive::manifest::Manifest;
use crate::innodb::ids::{PageSize, SpaceId};

use super::files;
use super::placement::Layout;

const DEFAULT_DATA_FILE_PATH: &str = "ibdata1:12M:autoextend";

/// The settings as `name=value`.
pub fn needed(manifest: &Manifest, table: &FileTable, layout: &Layout, datadir: &Path) -> Vec<String> {
    let mut settings = Vec::new();
    if manifest.server.page_size != PageSize::DEFAULT {
        settings.push(format!("innodb_page_size={}", manifest.server.page_size));
    }
    if manifest.server.lower_case_table_names != 0 {
        settings.push(format!("lower_case_table_names={}", manifest.server.lower_case_table_names));
    }
    system_tablespace(manifest, layout, datadir, &mut settings);
    let mut undo = BTreeSet::new();
    let mut others = BTreeSet::new();
    for entry in &table.spaces {
        for path in layout.pieces(entry.space).filter(|path| !path.starts_with(datadir)) {
            let Some(parent) = path.parent() else { continue };
            match path.file_name().and_then(|name| name.to_str()) {
                _ if entry.space == SpaceId::SYSTEM => {}
                Some("undo_001" | "undo_002") => {
                    let _ = undo.insert(parent.to_path_buf());
                }
                _ => {
                    let _ = others.insert(parent.to_path_buf());
                }
            }
        }
    }
    moved_inside(manifest, table, layout, datadir, &mut settings);
    settings.extend(undo.iter().map(|dir| format!("innodb_undo_directory={}", dir.display())));
    if !others.is_empty() {
        let list: Vec<String> = others.iter().map(|dir| dir.display().to_string()).collect();
        settings.push(format!("innodb_directories={}", list.join(";")));
    }
    binlog(manifest, table, layout, datadir, &mut settings);
    settings
}

/// Directories that the source had elsewhere, and that are below the data directory now. A server with the source's own
/// settings would look, or write, where nothing was restored.
fn moved_inside(manifest: &Manifest, table: &FileTable, layout: &Layout, datadir: &Path, settings: &mut Vec<String>) {
    let came_inside = |entry: &&SpaceEntry| {
        let was_elsewhere = entry.pieces.iter().any(|piece| matches!(piece.location, Location::External(_)));
        was_elsewhere && layout.pieces(entry.space).all(|path| path.starts_with(datadir))
    };
    let is_undo = |entry: &SpaceEntry| {
        let mut names = layout.pieces(entry.space).filter_map(|path| path.file_name()?.to_str());
        names.any(|name| matches!(name, "undo_001" | "undo_002"))
    };
    let moved: Vec<&SpaceEntry> = table.spaces.iter().filter(came_inside).collect();
    if moved.iter().any(|entry| entry.space == SpaceId::SYSTEM) {
        settings.push("innodb_data_home_dir=./".to_owned());
    }
    if moved.iter().any(|entry| is_undo(entry)) {
        settings.push("innodb_undo_directory=./".to_owned());
    }
    let redo = manifest.server.settings.get("innodb_log_group_home_dir").map_or("./", String::as_str);
    if !matches!(redo, "" | "." | "./") {
        settings.push("innodb_log_group_home_dir=./".to_owned());
    }
}

/// A server that does not find the binlog of the backup would roll back what is committed in it.
fn binlog(manifest: &Manifest, table: &FileTable, layout: &Layout, datadir: &Path, settings: &mut Vec<String>) {
    let Some(path) = files::binlog(table, layout) else { return };
    let of_tail = |file: &&FileEntry| file.kind == StoredFileKind::BinlogTail;
    let moved = table.files.iter().find(of_tail).is_some_and(|file| matches!(file.location, Location::External(_)));
    // Relative to the data directory, wherever a server sees that.
    let shown = |path: &Path| path.strip_prefix(datadir).unwrap_or(path).display().to_string();
    let base = path.with_extension("");
    if moved || base != datadir.join("binlog") {
        settings.push(format!("log_bin={}", shown(&base)));
    }
    let index = files::index_path(manifest, path);
    if index != path.with_extension("index") {
        settings.push(format!("log_bin_index={}", shown(&index)));
    }
}

/// Options of the one run that recovers the directory: the binary log and its GTIDs go on as they were.
pub fn for_recovery(manifest: &Manifest) -> Vec<String> {
    if manifest.binlog.is_none() {
        return vec!["skip-log-bin".to_owned()];
    }
    match manifest.server.settings.get("gtid_mode").map(String::as_str) {
        Some("ON") => vec!["gtid-mode=ON".to_owned(), "enforce-gtid-consistency=ON".to_owned()],
        _ => Vec::new(),
    }
}

/// The system tablespace's files keep their names and sizes, which the setting must repeat; where they lie may change.
fn system_tablespace(manifest: &Manifest, layout: &Layout, datadir: &Path, settings: &mut Vec<String>) {
    let setting = manifest.server.settings.get("innodb_data_file_path").map_or(DEFAULT_DATA_FILE_PATH, String::as_str);
    let pieces: Vec<&Path> = layout.pieces(SpaceId::SYSTEM).collect();
    // Where one file lies elsewhere, an empty home makes all paths of the list absolute.
    let elsewhere = pieces.iter().any(|path| !path.starts_with(datadir));
    let specs: Vec<String> = setting
        .split(';')
        .zip(&pieces)
        .map(|(spec, path)| {
            let sizes = spec.split_once(':').map_or("12M", |(_, sizes)| sizes);
            let shown = if elsewhere { path } else { path.strip_prefix(datadir).unwrap_or(path) };
            format!("{}:{sizes}", shown.display())
        })
        .collect();
    let value = specs.join(";");
    if elsewhere {
        settings.push("innodb_data_home_dir=".to_owned());
    }
    if elsewhere || value != DEFAULT_DATA_FILE_PATH {
        settings.push(format!("innodb_data_file_path={value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::placement::Placement;
    use super::*;
    use crate::archive::BackupId;
    use crate::archive::filetable::PieceEntry;
    use crate::innodb::ids::PageNo;
    use crate::ops::handmade;
    use crate::ops::options::ExternalFiles;

    fn place(path: &str) -> Location {
        match path.strip_prefix('/') {
            Some(_) => Location::External(path.into()),
            None => Location::Datadir(path.into()),
        }
    }

    fn space(id: u32, flags: u32, paths: &[&str]) -> SpaceEntry {
        let piece = |(number, path): (u32, &&str)| PieceEntry {
            location: place(path),
            first_page: PageNo(number * 100),
            pages: 100,
        };
        let pieces: Vec<_> = (0..).zip(paths).map(piece).collect();
        SpaceEntry { space: SpaceId(id), flags, pages: u32::try_from(pages_of(&pieces)).unwrap(), pieces }
    }

    fn pages_of(pieces: &[PieceEntry]) -> u64 {
        pieces.iter().map(|piece| u64::from(piece.pages)).sum()
    }

    /// What a server needs for files that were at these places, kept there, in the data directory `/new`.
    fn needs(
        change: impl FnOnce(&mut Manifest),
        system: &[&str],
        undo: &str,
        table: &str,
        binlog: &str,
    ) -> Vec<String> {
        placed(change, (system, undo, table, binlog), &ExternalFiles::Keep)
    }

    fn placed(
        change: impl FnOnce(&mut Manifest),
        (system, undo, table, binlog): (&[&str], &str, &str, &str),
        external: &ExternalFiles,
    ) -> Vec<String> {
        let (_, mut manifest) = handmade::archive(&[handmade::page(0)], &handmade::redo());
        manifest.server.settings.clear();
        change(&mut manifest);
        let file = FileEntry { number: 0, location: place(binlog), kind: StoredFileKind::BinlogTail, bytes: 158 };
        let spaces = vec![space(0, 0x4800, system), space(0xFFFF_FFEF, 0, &[undo]), space(5, 0x4421, &[table])];
        let files = FileTable { spaces, files: vec![file], ..FileTable::default() };
        let layout = Layout::plan(&files, &Placement::new(Path::new("/new"), external)).unwrap();
        needed(&manifest, &files, &layout, Path::new("/new"))
    }

    fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut Manifest) {
        move |manifest| {
            manifest.server.settings.insert(name.to_owned(), value.to_owned());
        }
    }

    const USUAL: (&[&str], &str, &str, &str) = (&["ibdata1"], "undo_001", "db/t.ibd", "binlog.000002");

    #[test]
    fn a_directory_of_the_usual_places_needs_nothing() {
        let (system, undo, table, binlog) = USUAL;
        assert_eq!(needs(|_| {}, system, undo, table, binlog), [""; 0]);
        // Not the version of a server, nor whose backup it is, but its formats.
        let formats = |manifest: &mut Manifest| {
            manifest.id = "x-20260314T150926Z-1a2b3c4d".parse::<BackupId>().unwrap();
            manifest.server.page_size = PageSize::new(4096).unwrap();
            manifest.server.lower_case_table_names = 1;
        };
        assert_eq!(needs(formats, system, undo, table, binlog), ["innodb_page_size=4096", "lower_case_table_names=1"]);
    }

    #[test]
    fn each_file_elsewhere_has_its_setting() {
        let (system, undo, table, binlog) = USUAL;
        assert_eq!(needs(|_| {}, system, "/ssd/undo/undo_001", table, binlog), ["innodb_undo_directory=/ssd/undo"]);
        assert_eq!(needs(|_| {}, system, undo, "/ssd/db/t.ibd", binlog), ["innodb_directories=/ssd/db"]);
        let files = set("innodb_data_file_path", "sys1:12M;sys2:8M:autoextend");
        assert_eq!(
            needs(files, &["sys1", "sys2"], undo, table, binlog),
            ["innodb_data_file_path=sys1:12M;sys2:8M:autoextend"]
        );
        let files = set("innodb_data_file_path", "ibdata1:12M;ibdata2:8M:autoextend");
        assert_eq!(
            needs(files, &["/ssd/ibdata1", "/hdd/ibdata2"], undo, table, binlog),
            ["innodb_data_home_dir=", "innodb_data_file_path=/ssd/ibdata1:12M;/hdd/ibdata2:8M:autoextend"]
        );
    }

    #[test]
    fn a_binary_log_of_another_name_or_place_is_named() {
        let (system, undo, table, _) = USUAL;
        assert_eq!(needs(|_| {}, system, undo, table, "/logs/binlog.000002"), ["log_bin=/logs/binlog"]);
        assert_eq!(needs(|_| {}, system, undo, table, "db-bin.000002"), ["log_bin=db-bin"]);
        let index = set("log_bin_index", "/logs/all-of-them.index");
        assert_eq!(
            needs(index, system, undo, table, "/logs/binlog.000002"),
            ["log_bin=/logs/binlog", "log_bin_index=/logs/all-of-them.index"]
        );
    }

    #[test]
    fn what_was_elsewhere_and_is_inside_now_must_be_said_to_a_server_with_the_old_settings() {
        let places: (&[&str], &str, &str, &str) =
            (&["/sys/ibdata1"], "/undo/undo_001", "/ssd/db/t.ibd", "/logs/binlog.000002");
        let redo = set("innodb_log_group_home_dir", "/redo");
        assert_eq!(
            placed(redo, places, &ExternalFiles::Inside),
            ["innodb_data_home_dir=./", "innodb_undo_directory=./", "innodb_log_group_home_dir=./", "log_bin=binlog"]
        );
        let redo = set("innodb_log_group_home_dir", "./");
        assert_eq!(placed(redo, USUAL, &ExternalFiles::Inside), [""; 0]);
    }

    #[test]
    fn the_one_run_that_recovers_has_the_binary_log_that_the_source_had() {
        let (_, mut manifest) = handmade::archive(&[handmade::page(0)], &handmade::redo());
        assert_eq!(for_recovery(&manifest), [""; 0]);
        set("gtid_mode", "ON")(&mut manifest);
        assert_eq!(for_recovery(&manifest), ["gtid-mode=ON", "enforce-gtid-consistency=ON"]);
        manifest.binlog = None;
        assert_eq!(for_recovery(&manifest), ["skip-log-bin"]);
    }
}
