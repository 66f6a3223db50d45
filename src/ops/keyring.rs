//! The file of the server's keys, as a verb is given it.

use std::path::Path;

use crate::innodb::keyring::Keyring;
use crate::ops::error::{Error, ErrorKind};

/// Reads the data file of the server's `component_keyring_file`.
pub fn read(path: &Path) -> Result<Keyring, Error> {
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|error| {
        Error::new(ErrorKind::KeyMissing, format!("cannot read the keyring {}", path.display())).caused_by(error)
    })?);
    Keyring::parse(&bytes).map_err(|error| {
        Error::new(ErrorKind::KeyMissing, format!("{} is no file of component_keyring_file", path.display()))
            .caused_by(error)
            .advise("name the data file of component_keyring_file with --keyring-file")
    })
}

/// Reads it where one was named.
pub fn read_if_named(path: Option<&Path>) -> Result<Option<Keyring>, Error> {
    path.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_keyring_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        assert!(read_if_named(None).unwrap().is_none());
        for text in [None, Some("{\"version\":"), Some("[client]\n")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let error = read_if_named(Some(&path)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::KeyMissing, "{text:?}");
            assert!(error.message.contains(&path.display().to_string()), "{error}");
        }
        std::fs::write(&path, r#"{"version":"1.0","elements":[]}"#).unwrap();
        assert!(read_if_named(Some(&path)).unwrap().is_some());
    }
}
