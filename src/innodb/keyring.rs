//! The file of `component_keyring_file`: master keys by name (MySQL 9.7; tablespace-files reference, section 9).
//!
//! ```text
//!   {"version":"1.0","elements":[{"user":"","data_id":"INNODBKey-<uuid>-<id>","data_type":"AES","data":"<hex>", …}]}
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use zeroize::Zeroize;

use super::FormatError;

/// AES keys of 256 bits by their name in the keyring. Wiped when dropped, never printed.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: BTreeMap<String, [u8; 32]>,
}

#[derive(Deserialize)]
struct File {
    version: String,
    elements: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    data_id: String,
    data_type: String,
    data: String,
}

impl Keyring {
    /// Reads the file's content. Entries that are not AES keys of 256 bits are left out: nothing of InnoDB uses them.
    pub fn parse(json: &[u8]) -> Result<Self, FormatError> {
        let what = "keyring file";
        // The parser's message could quote a key, so only the place of the fault is passed on.
        let file: File = serde_json::from_slice(json).map_err(|error| FormatError::Invalid {
            what,
            why: format!(
                "not the JSON that component_keyring_file writes, at line {} column {}",
                error.line(),
                error.column()
            ),
        })?;
        if file.version != "1.0" && file.version != "1.1" && file.version != "2.0" {
            return Err(FormatError::Unsupported { what, found: format!("of version {}", file.version) });
        }
        let mut keys = BTreeMap::new();
        for mut element in file.elements {
            let mut key = [0_u8; 32];
            if element.data_type == "AES" && hex::decode_to_slice(&element.data, &mut key).is_ok() {
                let _ = keys.insert(element.data_id, key);
            }
            key.zeroize();
            element.data.zeroize();
        }
        Ok(Self { keys })
    }

    /// The key of this name.
    pub fn key(&self, data_id: &str) -> Option<&[u8; 32]> {
        self.keys.get(data_id)
    }

    /// The InnoDB master key `id` that the server `uuid` made.
    pub fn master_key(&self, uuid: &str, id: u32) -> Option<&[u8; 32]> {
        self.key(&format!("INNODBKey-{uuid}-{id}"))
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        for key in self.keys.values_mut() {
            key.zeroize();
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("names", &self.keys.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_name_and_never_printed() {
        let json = format!(
            r#"{{"version":"1.0","elements":[
                {{"user":"","data_id":"INNODBKey-u-1","data_type":"AES","data":"{}","extension":[]}},
                {{"user":"","data_id":"note","data_type":"SECRET","data":"00","extension":[]}}]}}"#,
            "ab".repeat(32)
        );
        let keyring = Keyring::parse(json.as_bytes()).unwrap();
        assert_eq!(keyring.master_key("u", 1), Some(&[0xab; 32]));
        assert_eq!(keyring.master_key("u", 2), None);
        assert_eq!(keyring.key("note"), None);
        assert!(!format!("{keyring:?}").contains("abab"));
    }

    #[test]
    fn other_files_are_refused_without_being_quoted() {
        let error = Keyring::parse(b"topsecret").unwrap_err().to_string();
        assert!(!error.contains("topsecret"), "{error}");
        assert!(Keyring::parse(br#"{"version":"9","elements":[]}"#).is_err());
    }
}
