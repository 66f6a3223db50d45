//! Finding what there is to copy: every tablespace by its id, every other file by an allow-list.
//!
//! ```text
//!   scan: datadir, data home, undo directory, innodb_directories     *.ibd *.ibu undo_NNN   id on page 0
//!   + the files that the server itself knows of (paths outside of those directories)
//!   + innodb_data_file_path: the system tablespace, page numbers run on over its files
//!   = one entry for each tablespace; two files of one id, or a known file that is missing, end the backup
//! ```
//! A file's identity is the id on its page 0, not its name. Names are opaque bytes. The plan is stable only while
//! the backup lock is held. (MySQL 9.7; tablespace-files reference, sections 1, 5 and 6.)

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::CaptureError;
use super::plan::{CopyPlan, FileKind, PlannedFile, PlannedSpace, RegisteredFile, SourceLayout, SpacePiece};
use crate::innodb::ids::{PageNo, PageSize, SpaceId};
use crate::innodb::space::header::{PREFIX_SIZE, SpaceHeader};

/// Finds everything that a backup of the server at `layout` must hold.
pub fn plan_copy(layout: &SourceLayout, registered: &[RegisteredFile]) -> Result<CopyPlan, CaptureError> {
    refuse_unfinished_undo(&layout.undo_dir)?;
    let mut scan = Scan { layout, found: BTreeMap::new(), plan: CopyPlan::default() };
    scan.datadir()?;
    let extra = [&layout.data_home, &layout.undo_dir].into_iter().chain(&layout.directories);
    for dir in extra {
        scan.tree(dir, 0)?;
    }
    for file in registered {
        scan.registered(file)?;
    }
    scan.system_tablespace()?;
    let Scan { found, mut plan, .. } = scan;
    plan.spaces = found.into_values().collect();
    plan.files.sort_by(|a, b| a.path.cmp(&b.path));
    plan.directories.sort();
    Ok(plan)
}

/// How deep below a directory of `innodb_directories` files are looked for.
const MAX_DEPTH: u32 = 8;

struct Scan<'a> {
    layout: &'a SourceLayout,
    found: BTreeMap<SpaceId, PlannedSpace>,
    plan: CopyPlan,
}

impl Scan<'_> {
    /// The data directory: tablespaces at its top, and one level of schemas.
    fn datadir(&mut self) -> Result<(), CaptureError> {
        let datadir = self.layout.datadir.clone();
        for (path, is_dir) in entries(&datadir)? {
            let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
            if !is_dir {
                self.tablespace_file(&path)?;
            } else if is_schema_directory(&name) {
                self.schema(&path, &name)?;
            }
        }
        Ok(())
    }

    fn schema(&mut self, dir: &Path, name: &[u8]) -> Result<(), CaptureError> {
        self.plan.directories.push(name.to_vec());
        for (path, is_dir) in entries(dir)? {
            if is_dir || self.tablespace_file(&path)? {
                continue;
            }
            if let Some(kind) = file_kind(&path, name) {
                let relative = self.relative(&path);
                self.plan.files.push(PlannedFile { path, relative, kind });
            }
        }
        Ok(())
    }

    /// A directory outside of the data directory, where only tablespaces count.
    fn tree(&mut self, dir: &Path, depth: u32) -> Result<(), CaptureError> {
        if depth > MAX_DEPTH || (dir.starts_with(&self.layout.datadir) && dir != self.layout.undo_dir) {
            return Ok(());
        }
        let listed = match entries(dir) {
            Err(CaptureError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed?,
        };
        for (path, is_dir) in listed {
            if is_dir {
                if !path.file_name().unwrap_or_default().as_bytes().starts_with(b"#") {
                    self.tree(&path, depth + 1)?;
                }
            } else {
                let _ = self.tablespace_file(&path)?;
            }
        }
        Ok(())
    }

    /// Adds `path` if it is a tablespace, which it says itself on page 0. Says whether it has the name of one.
    fn tablespace_file(&mut self, path: &Path) -> Result<bool, CaptureError> {
        if !is_tablespace_name(path.file_name().unwrap_or_default().as_bytes()) {
            return Ok(false);
        }
        let header = read_header(path)?;
        if header.flags.is_temporary() {
            return Ok(true);
        }
        let piece = self.piece(path, PageNo(0), header.flags.physical_size())?;
        self.add(PlannedSpace { space: header.space, flags: header.flags, pieces: vec![piece] })?;
        Ok(true)
    }

    fn add(&mut self, space: PlannedSpace) -> Result<(), CaptureError> {
        let Some(known) = self.found.get(&space.space) else {
            let _ = self.found.insert(space.space, space);
            return Ok(());
        };
        let (first, second) = (first_path(known), first_path(&space));
        if same_file(&first, &second) {
            return Ok(());
        }
        Err(CaptureError::DuplicateSpace { first, second, space: space.space })
    }

    fn registered(&mut self, file: &RegisteredFile) -> Result<(), CaptureError> {
        if file.space == SpaceId::SYSTEM {
            return Ok(());
        }
        let there = match fs::metadata(&file.path) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(CaptureError::io("look at", &file.path)(error)),
        };
        if let Some(known) = self.found.get(&file.space) {
            let first = first_path(known);
            // A copy that somebody left in a directory that is searched must not be taken for the file in use.
            return if !there || same_file(&first, &file.path) {
                Ok(())
            } else {
                Err(CaptureError::DuplicateSpace { first, second: file.path.clone(), space: file.space })
            };
        }
        if !there {
            return Err(CaptureError::MissingFile { path: file.path.clone(), space: file.space });
        }
        let header = read_header(&file.path)?;
        if header.space != file.space {
            return Err(CaptureError::MissingFile { path: file.path.clone(), space: file.space });
        }
        let piece = self.piece(&file.path, PageNo(0), header.flags.physical_size())?;
        self.add(PlannedSpace { space: header.space, flags: header.flags, pieces: vec![piece] })
    }

    fn system_tablespace(&mut self) -> Result<(), CaptureError> {
        let Some(first) = self.layout.system_files.first() else { return Ok(()) };
        let header = read_header(&first.path)?;
        let mut pieces = Vec::new();
        let mut next = 0_u32;
        for file in &self.layout.system_files {
            let piece = self.piece(&file.path, PageNo(next), header.flags.physical_size())?;
            next = next.saturating_add(piece.pages);
            pieces.push(piece);
        }
        self.add(PlannedSpace { space: SpaceId::SYSTEM, flags: header.flags, pieces })
    }

    fn piece(&self, path: &Path, first_page: PageNo, page_size: PageSize) -> Result<SpacePiece, CaptureError> {
        let bytes = fs::metadata(path).map_err(CaptureError::io("look at", path))?.len();
        // A part of a page at the end is a file that is just growing; redo covers what comes.
        let pages = u32::try_from(bytes / u64::from(page_size.bytes())).unwrap_or(u32::MAX);
        Ok(SpacePiece { path: path.to_path_buf(), relative: self.relative(path), first_page, pages })
    }

    fn relative(&self, path: &Path) -> Option<Vec<u8>> {
        path.strip_prefix(&self.layout.datadir).ok().map(|below| below.as_os_str().as_bytes().to_vec())
    }
}

fn first_path(space: &PlannedSpace) -> PathBuf {
    space.pieces.first().map(|piece| piece.path.clone()).unwrap_or_default()
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Reads what page 0 says, without the rest of the page.
fn read_header(path: &Path) -> Result<SpaceHeader, CaptureError> {
    let file = File::open(path).map_err(CaptureError::io("open", path))?;
    let mut prefix = [0; PREFIX_SIZE];
    file.read_exact_at(&mut prefix, 0).map_err(CaptureError::io("read page 0 of", path))?;
    SpaceHeader::decode_prefix(&prefix).map_err(CaptureError::format(path))
}

fn entries(dir: &Path) -> Result<Vec<(PathBuf, bool)>, CaptureError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(CaptureError::io("list", dir))? {
        let path = entry.map_err(CaptureError::io("list", dir))?.path();
        match fs::metadata(&path) {
            Ok(metadata) => found.push((path, metadata.is_dir())),
            // Temporary files and logs come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CaptureError::io("look at", &path)(error)),
        }
    }
    Ok(found)
}

/// `#innodb_redo` and the like are the server's own; dot directories and `lost+found` are no schemas.
fn is_schema_directory(name: &[u8]) -> bool {
    !name.starts_with(b"#") && !name.starts_with(b".") && name != b"lost+found"
}

/// The server's own tables without redo are those two logs, whatever engine they were given; anything else in a system
/// schema was put there by a user, and is worth as much as elsewhere (MySQL 8.0 to 9.7).
fn is_log_table(schema: &[u8], file: &[u8]) -> bool {
    let table = file.split(|byte| *byte == b'.').next();
    schema == b"mysql" && matches!(table, Some(b"general_log" | b"slow_log"))
}

/// While the server truncates or makes an undo tablespace, a note is in the undo directory. When that fails, it stays, and
/// the file is made anew at the next start; what is in it until then, nobody can use (MySQL 9.7; tablespace-files reference,
/// section 7).
fn refuse_unfinished_undo(undo_dir: &Path) -> Result<(), CaptureError> {
    /// At the beginning of the note once all is done, and it only has to be removed.
    const DONE: [u8; 4] = 76_845_412_u32.to_be_bytes();
    for (path, is_dir) in entries(undo_dir)? {
        let name = path.file_name().unwrap_or_default().as_bytes();
        if is_dir || !name.starts_with(b"undo_") || !name.ends_with(b"_trunc.log") {
            continue;
        }
        match fs::read(&path) {
            Ok(note) if note.starts_with(&DONE) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CaptureError::Io { act: "read", path, source }),
            Ok(_) => return Err(CaptureError::UndoUnderConstruction { path }),
        }
    }
    Ok(())
}

fn is_tablespace_name(name: &[u8]) -> bool {
    let undo_number =
        name.strip_prefix(b"undo_").is_some_and(|digits| digits.len() == 3 && digits.iter().all(u8::is_ascii_digit));
    undo_number || matches!(extension(name), Some(b"ibd" | b"ibu"))
}

/// The kind of a file in a schema's directory, by the allow-list; `None` for what is not backed up.
fn file_kind(path: &Path, schema: &[u8]) -> Option<FileKind> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    // Temporary tables, where `tmpdir` looks like a schema. In a table's own name it would be `@0023`.
    if name.starts_with(b"#") {
        return None;
    }
    match extension(name)? {
        b"sdi" => Some(FileKind::Sdi),
        b"MYD" | b"MYI" | b"MRG" | b"ARZ" | b"ARM" | b"CSV" | b"CSM" => {
            Some(if is_log_table(schema, name) { FileKind::SystemTable } else { FileKind::NonTransactional })
        }
        _ => None,
    }
}

fn extension(name: &[u8]) -> Option<&[u8]> {
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    name.get(dot + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::plan::SystemFile;

    fn page0(space: u32, flags: u32, pages: usize) -> Vec<u8> {
        let mut bytes = vec![0; 16384 * pages];
        for at in [34, 38] {
            bytes[at..at + 4].copy_from_slice(&space.to_be_bytes());
        }
        bytes[54..58].copy_from_slice(&flags.to_be_bytes());
        bytes
    }

    fn layout(dir: &Path) -> SourceLayout {
        let system = |name: &str| SystemFile { path: dir.join(name) };
        SourceLayout {
            datadir: dir.to_path_buf(),
            data_home: dir.to_path_buf(),
            system_files: vec![system("ibdata1"), system("ibdata2")],
            undo_dir: dir.to_path_buf(),
            directories: vec![],
            redo_dir: dir.join("#innodb_redo"),
            page_size: PageSize::DEFAULT,
        }
    }

    fn instance() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for schema in ["db", "empty", "mysql", "#innodb_temp", "we@0020ird"] {
            fs::create_dir(at(schema)).unwrap();
        }
        fs::write(at("ibdata1"), page0(0, 0x4800, 3)).unwrap();
        fs::write(at("ibdata2"), vec![0; 16384 * 2 + 100]).unwrap();
        fs::write(at("undo_001"), page0(0xFFFF_FFEF, 0, 2)).unwrap();
        fs::write(at("db/t.ibd"), page0(5, 0x4021, 7)).unwrap();
        fs::write(at("we@0020ird/t#p#p0.ibd"), page0(6, 0x4021, 7)).unwrap();
        fs::write(at("ibtmp1"), page0(0xFFFF_FFFD, 0x1000, 1)).unwrap();
        fs::write(at("#innodb_temp/temp_1.ibt"), b"junk").unwrap();
        for name in
            ["db/m.MYD", "db/m.MYI", "db/m_1.sdi", "mysql/general_log.CSV", "db/core", "db/t.cfg", "db/#sql1_8_0.MYD"]
        {
            fs::write(at(name), b"x").unwrap();
        }
        dir
    }

    #[test]
    fn an_undo_tablespace_that_is_not_finished_is_refused() {
        let dir = instance();
        let note = dir.path().join("undo_3_trunc.log");
        fs::write(&note, [&76_845_412_u32.to_be_bytes()[..], &[0; 100]].concat()).unwrap();
        plan_copy(&layout(dir.path()), &[]).unwrap();
        fs::write(&note, [0; 16384]).unwrap();
        let error = plan_copy(&layout(dir.path()), &[]).unwrap_err();
        assert!(matches!(&error, CaptureError::UndoUnderConstruction { path } if *path == note), "{error}");
    }

    #[test]
    fn everything_is_found_and_nothing_else() {
        let dir = instance();
        let plan = plan_copy(&layout(dir.path()), &[]).unwrap();
        let ids: Vec<u32> = plan.spaces.iter().map(|space| space.space.0).collect();
        assert_eq!(ids, [0, 5, 6, 0xFFFF_FFEF]);
        let system = &plan.spaces[0];
        assert_eq!(system.pieces.len(), 2);
        assert_eq!((system.pieces[1].first_page, system.pieces[1].pages), (PageNo(3), 2));
        assert_eq!(system.pages(), 5);
        let names: Vec<_> = plan.files.iter().filter_map(|file| file.relative.clone()).collect();
        assert_eq!(names, [&b"db/m.MYD"[..], b"db/m.MYI", b"db/m_1.sdi", b"mysql/general_log.CSV"]);
        assert!(plan.has_non_transactional());
        assert_eq!(plan.directories, [&b"db"[..], b"empty", b"mysql", b"we@0020ird"]);
    }

    #[test]
    fn log_tables_do_not_count_as_non_transactional() {
        let dir = instance();
        for name in ["db/m.MYD", "db/m.MYI"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert!(!plan_copy(&layout(dir.path()), &[]).unwrap().has_non_transactional());
    }

    #[test]
    fn a_table_that_a_user_made_in_a_system_schema_is_a_users_table() {
        let dir = instance();
        for name in ["db/m.MYD", "db/m.MYI"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        for name in ["mysql/general_log.MYD", "mysql/slow_log.MYI"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert!(!plan_copy(&layout(dir.path()), &[]).unwrap().has_non_transactional(), "logs of another engine");
        for schema in ["mysql", "sys"] {
            fs::create_dir_all(dir.path().join(schema)).unwrap();
            let own = dir.path().join(schema).join("general_log_2025.MYD");
            fs::write(&own, b"x").unwrap();
            let plan = plan_copy(&layout(dir.path()), &[]).unwrap();
            let found: Vec<_> = plan.files.iter().filter(|file| file.kind == FileKind::NonTransactional).collect();
            assert_eq!(found.iter().map(|file| &file.path).collect::<Vec<_>>(), [&own]);
            fs::remove_file(own).unwrap();
        }
    }

    #[test]
    fn registered_files_are_added_or_missed() {
        let (dir, outside) = (instance(), tempfile::tempdir().unwrap());
        let path = outside.path().join("g.ibd");
        let file = RegisteredFile { space: SpaceId(9), path: path.clone() };
        let missing = plan_copy(&layout(dir.path()), std::slice::from_ref(&file)).unwrap_err();
        assert!(matches!(missing, CaptureError::MissingFile { space: SpaceId(9), .. }));
        fs::write(&path, page0(9, 0x4800, 1)).unwrap();
        let plan = plan_copy(&layout(dir.path()), &[file]).unwrap();
        assert!(plan.spaces.iter().any(|space| space.space == SpaceId(9) && space.pieces[0].relative.is_none()));
    }

    #[test]
    fn a_left_over_copy_is_not_taken_for_the_file_in_use() {
        let (dir, outside) = (instance(), tempfile::tempdir().unwrap());
        let used = outside.path().join("t.ibd");
        let file = RegisteredFile { space: SpaceId(5), path: used.clone() };
        // The server may know a file by an older path; the id decides.
        plan_copy(&layout(dir.path()), std::slice::from_ref(&file)).unwrap();
        fs::write(&used, page0(5, 0x4021, 7)).unwrap();
        let error = plan_copy(&layout(dir.path()), &[file]).unwrap_err();
        assert!(matches!(error, CaptureError::DuplicateSpace { space: SpaceId(5), .. }), "{error}");
        let link = outside.path().join("link.ibd");
        std::os::unix::fs::symlink(dir.path().join("db/t.ibd"), &link).unwrap();
        plan_copy(&layout(dir.path()), &[RegisteredFile { space: SpaceId(5), path: link }]).unwrap();
    }

    #[test]
    fn two_files_of_one_id_are_refused() {
        let dir = instance();
        fs::write(dir.path().join("db/copy.ibd"), page0(5, 0x4021, 7)).unwrap();
        let error = plan_copy(&layout(dir.path()), &[]).unwrap_err();
        assert!(matches!(error, CaptureError::DuplicateSpace { space: SpaceId(5), .. }));
    }

    #[test]
    fn directories_outside_are_searched_and_links_are_not_counted_twice() {
        let (dir, outside) = (instance(), tempfile::tempdir().unwrap());
        fs::create_dir(outside.path().join("db")).unwrap();
        fs::write(outside.path().join("db/far.ibd"), page0(11, 0x4421, 7)).unwrap();
        let mut layout = layout(dir.path());
        layout.directories = vec![outside.path().to_path_buf(), outside.path().to_path_buf()];
        let plan = plan_copy(&layout, &[]).unwrap();
        let far = plan.spaces.iter().find(|space| space.space == SpaceId(11)).unwrap();
        assert_eq!(far.pieces[0].relative, None);
    }
}
