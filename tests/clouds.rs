//! The store's conformance suite over an emulator of Azure's store. It needs Node, and npm once, so it is a suite of its own:
//! `make clouds`. `STILLFRAME_AZURITE` may name the emulator's program (`azurite-blob`), and one on the PATH is taken; else
//! `tests/setup/azurite.sh` installs it into the user's cache folder. Google's is not here: no emulator that can be had
//! takes objects as they are written there, by a plain PUT of the XML protocol with `x-goog-if-generation-match`.
//! fake-gcs-server (1.56) answers 400 to it and reads conditions from the query alone; gcp-storage-emulator knows neither
//! that condition nor DELETE.

#![allow(missing_docs, dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stillframe::store::StoreSettings;
use tempfile::TempDir;

mod support {
    #[path = "../support/proxy.rs"]
    pub mod proxy;
    #[path = "../support/s3.rs"]
    pub mod s3;
    #[path = "../support/wait.rs"]
    pub mod wait;
}

#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/help.rs"]
mod help;

use help::{open, quick};
use support::s3::{free_address, wait_for};

/// The account that every Azurite has, with its published key.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

struct Emulator {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Emulator {
    fn start(script: &str, options: impl Fn(SocketAddr, &TempDir) -> Vec<String>) -> Self {
        let script = format!("{}/tests/setup/{script}", env!("CARGO_MANIFEST_DIR"));
        let done = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
        assert!(done.status.success(), "{script} failed");
        let program = PathBuf::from(String::from_utf8(done.stdout).unwrap().trim());
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        std::fs::create_dir_all(folder.path().join("backups")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new(program)
            .args(options(address, &folder))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = wait_for(&mut child, address);
        let emulator = Self { child, address, _folder: folder };
        assert!(started, "{script}'s program does not start");
        emulator
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms() {
    let emulator = Emulator::start("azurite.sh", |address, folder| {
        let port = address.port().to_string();
        let location = folder.path().display().to_string();
        ["--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", &port, "--location", &location]
            .map(str::to_owned)
            .to_vec()
    });
    let settings = StoreSettings::new([
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
        ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
        ("AZURE_STORAGE_ENDPOINT", format!("http://{}/{ACCOUNT}", emulator.address)),
    ]);
    create_container(emulator.address);
    let settings = StoreSettings { lease_valid: Duration::from_secs(15), ..quick(settings) };
    let repository = open("az://backups/some/prefix", settings).await;
    conformance::conforms(&repository, async || tokio::time::sleep(Duration::from_secs(20)).await).await;
}

/// Asks for the container as Azure's protocol signs it; the store itself never makes one.
fn create_container(address: SocketAddr) {
    use aws_lc_rs::hmac;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = format!("x-ms-date:{date}\nx-ms-version:2021-08-06");
    let resource = format!("/{ACCOUNT}/{ACCOUNT}/backups\nrestype:container");
    let text = format!("PUT{}{headers}\n{resource}", "\n".repeat(12));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(KEY).unwrap());
    let signature = BASE64_STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let request = [
        format!("PUT /{ACCOUNT}/backups?restype=container HTTP/1.1"),
        format!("Host: {address}"),
        format!("x-ms-date: {date}"),
        "x-ms-version: 2021-08-06".to_owned(),
        format!("Authorization: SharedKey {ACCOUNT}:{signature}"),
        "Content-Length: 0".to_owned(),
        "Connection: close".to_owned(),
    ];
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "{}\r\n\r\n", request.join("\r\n")).unwrap();
    let answer = std::io::read_to_string(connection).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
