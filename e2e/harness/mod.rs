//! What scenarios stand on. Knows Kubernetes, MySQL and S3, and nothing about how Stillframe works inside.
//!
//! ```text
//!   Space ──► Cluster ──► the API server
//!     ▲
//!     ├── Mysql    a StatefulSet, its SQL, its checksums, replication
//!     ├── Bucket   an S3 server with one bucket
//!     ├── Load     writers in the cluster, and what must hold of what they write
//!     ├── pods     run one to its end, run a command in one, kill a process of one
//!     └── operator its pods and their pages: health, metrics
//! ```

#![allow(dead_code, reason = "not every scenario uses every part")]
#![allow(clippy::print_stderr, reason = "a test tells what it does")]

pub mod bucket;
pub mod cluster;
pub mod dump;
pub mod load;
pub mod mysql;
pub mod objects;
pub mod operator;
pub mod pods;
pub mod space;
pub mod tls;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use bucket::Bucket;
pub use load::Load;
pub use mysql::Mysql;
pub use pods::PodRun;
pub use space::{Space, scenario};

/// The image that is tested.
pub const IMAGE: &str = "docker.io/stillframe/stillframe:e2e";
/// A MySQL server and its clients.
pub const MYSQL_IMAGE: &str = "docker.io/stillframe/e2e-mysql:9";
/// An S3 server.
pub const S3_IMAGE: &str = "docker.io/stillframe/e2e-s3:1";

/// Puts values into a text: `${NAME}` becomes what is given for `NAME`.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text
}

/// Asks again and again until there is an answer. `look` says what it saw when it has none.
pub async fn until<T, F, Fut>(what: &str, within: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Result<T, String>>>,
{
    let started = Instant::now();
    loop {
        let seen = match look().await? {
            Ok(answer) => return Ok(answer),
            Err(seen) => seen,
        };
        if started.elapsed() > within {
            bail!("waited {} s for {what}; last seen: {seen}", within.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Prints a line of a scenario's story, with the seconds since the program started.
pub fn say(line: impl AsRef<str>) {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let at = STARTED.get_or_init(Instant::now).elapsed();
    eprintln!("{:7.1} s  {}", at.as_secs_f64(), line.as_ref());
}
