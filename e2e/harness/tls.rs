//! Certificates of an authority of our own, made by the machine's `openssl`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// An authority, and a server's key pair that it signed. All in PEM.
pub struct Certificates {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Certificates {
    /// Makes an authority, and a certificate for one host.
    pub fn make(host: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("stillframe-e2e-tls-{}-{host}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let made = Self::make_in(&folder, host);
        std::fs::remove_dir_all(&folder)?;
        made
    }

    fn make_in(folder: &Path, host: &str) -> Result<Self> {
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(folder, &format!("req -x509 {new_key} -keyout ca.key -out ca.crt -days 2 -subj /CN=e2e-authority"))?;
        openssl(
            folder,
            &format!("req {new_key} -keyout key.pem -out request.pem -subj /CN=e2e -addext subjectAltName=DNS:{host}"),
        )?;
        openssl(
            folder,
            "x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy -days 2 -out crt.pem",
        )?;
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        Ok(Self { authority: read("ca.crt")?, certificate: read("crt.pem")?, key: read("key.pem")? })
    }
}

fn openssl(folder: &Path, arguments: &str) -> Result<()> {
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().context("run openssl")?;
    ensure!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
