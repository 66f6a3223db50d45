//! What lies in folders.

use std::path::{Path, PathBuf};

/// All files below a folder, but for those in folders whose names begin with `#`: of a server, its redo log and what is
/// temporary.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        if !path.is_dir() {
            found.push(path);
        } else if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('#')) {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}
