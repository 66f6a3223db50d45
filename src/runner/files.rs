//! Files of what variables hold: an ephemeral container can mount no Secret.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::api::runner::FileOfVariable;
use crate::ops::{Error, ErrorKind};

/// Makes them, for this user alone.
pub(super) fn make(files: &[FileOfVariable]) -> Result<(), Error> {
    files.iter().try_for_each(|file| make_one(file, std::env::var_os(&file.variable)))
}

fn make_one(file: &FileOfVariable, value: Option<std::ffi::OsString>) -> Result<(), Error> {
    let missing = || Error::new(ErrorKind::Usage, format!("the variable {} is not set", file.variable));
    let value = value.ok_or_else(missing)?;
    let path = Path::new(&file.path);
    let failed = |error| Error::new(ErrorKind::LocalIo, format!("cannot write {}", file.path)).caused_by(error);
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut made = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    made.write_all(value.as_encoded_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_becomes_a_file_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/password");
        let file = FileOfVariable { variable: "X".into(), path: path.to_string_lossy().into_owned() };
        let error = make_one(&file, None).unwrap_err();
        assert!(error.message.contains("X is not set"), "{error}");
        make_one(&file, Some("hunter2\n".into())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hunter2\n", "as it is");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(make_one(&file, Some("other".into())).unwrap_err().kind, ErrorKind::LocalIo, "never over another");
    }
}
