//! The settings without which a server does not open the restored directory; pure.
//!
//! ```text
//!   always             innodb_page_size, lower_case_table_names, if they are not the server's defaults
//!   system tablespace  innodb_data_file_path; innodb_data_home_dir where its files lie elsewhere
//!   undo elsewhere     innodb_undo_directory        other files elsewhere   innodb_directories
//!   binary log         log_bin, log_bin_index, where name or place are not the server's defaults
//! ```
//! A directory that holds everything itself, with default settings, needs none.

use std::collections::BTreeSet;
use std::path::Path;

use crate::archive::filetable::FileTable;
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
    settings.extend(undo.iter().map(|dir| format!("innodb_undo_directory={}", dir.display())));
    if !others.is_empty() {
        let list: Vec<String> = others.iter().map(|dir| dir.display().to_string()).collect();
        settings.push(format!("innodb_directories={}", list.join(";")));
    }
    binlog(manifest, table, layout, datadir, &mut settings);
    settings
}

/// A server that does not find the binlog of the backup would roll back what is committed in it.
fn binlog(manifest: &Manifest, table: &FileTable, layout: &Layout, datadir: &Path, settings: &mut Vec<String>) {
    let Some(path) = files::binlog(table, layout) else { return };
    let base = path.with_extension("");
    if base != datadir.join("binlog") {
        settings.push(format!("log_bin={}", base.display()));
    }
    let index = files::index_path(manifest, path);
    if index != path.with_extension("index") {
        settings.push(format!("log_bin_index={}", index.display()));
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
