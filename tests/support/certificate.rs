//! Certificates for servers that the tests start.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate signed by itself for `whom` (`DNS:name` or `IP:address`), and its key: `name.pem` and `name.key` in
/// `folder`. It signs no others, as rustls wants it of a server's own.
pub fn self_signed(folder: &Path, name: &str, whom: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=anything", "-addext", &format!("subjectAltName={whom}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}
