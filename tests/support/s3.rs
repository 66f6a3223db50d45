//! A real S3 server (versitygw) over a temporary folder, with one bucket. Stopped when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const ACCESS_KEY: &str = "stillframe-test";
const SECRET_KEY: &str = "stillframe-test-secret";
const START_TIME: Duration = Duration::from_mins(1);
const START_TRIES: u32 = 5;

/// The name of the bucket that is there.
pub const BUCKET: &str = "backups";

/// A running server.
pub struct S3Server {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    scheme: &'static str,
}

impl S3Server {
    /// Starts one that speaks plain HTTP.
    pub fn start() -> Self {
        Self::launch("http", &[])
    }

    /// Starts one that speaks HTTPS with this certificate and key (PEM files).
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        Self::launch("https", &["--cert", certificate, "--key", key])
    }

    fn launch(scheme: &'static str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).unwrap();
        std::fs::create_dir_all(folder.path().join("sidecar")).unwrap();
        for _ in 0..START_TRIES {
            let address = free_address();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut child = Command::new(program())
                .args(["--port", &address.to_string(), "--quiet"])
                .args(options)
                // Not every file system of temporary folders takes extended attributes.
                .args(["posix", "--sidecar"])
                .args([folder.path().join("sidecar"), folder.path().join("data")])
                .envs([("ROOT_ACCESS_KEY", ACCESS_KEY), ("ROOT_SECRET_KEY", SECRET_KEY)])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            if wait_for(&mut child, address) {
                return Self { child, address, folder, scheme };
            }
            // Somebody else took the port between asking for it and using it.
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("versitygw does not start: {}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// A store's URL below the bucket.
    #[allow(clippy::unused_self, reason = "it is this server's bucket")]
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The environment that reaches it.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.endpoint())
    }

    /// The folder whose files are the bucket's objects.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment that reaches the server by another address, such as a proxy's.
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until somebody listens there; false if the process ended or it takes too long.
pub fn wait_for(child: &mut Child, address: SocketAddr) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < START_TIME {
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// The program, installed at the first use.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/setup/versitygw.sh");
        let done = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(done.status.success(), "{script} failed");
        PathBuf::from(String::from_utf8(done.stdout).unwrap().trim())
    })
}
