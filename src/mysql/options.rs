//! Where the server is and how to log in: values, and what the driver is told.
//!
//! ```text
//!   socket ───────────────────────────► never TLS: the bytes do not leave the machine
//!   TCP ──► disabled        ──────────► plain; the password goes hashed, or sealed with the server's RSA key
//!           preferred       ──► TLS, whoever the peer is; plain where the server has none
//!           required        ──► TLS, whoever the peer is
//!           verify-ca       ──► TLS, certificate chain checked against --ssl-ca
//!           verify-identity ──► TLS, chain and host name checked
//! ```
//! The password file is read once for all sessions made of the same options (it may be a pipe), kept in memory that
//! is cleared, and never shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::error::MysqlError;
use super::session::WAIT_TIMEOUT_SECONDS;

/// A password longer than this is no password but the wrong file.
const MAX_PASSWORD_BYTES: usize = 4096;

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl Endpoint {
    /// The port of a MySQL server, unless told.
    pub const DEFAULT_PORT: u16 = 3306;
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How much TLS is asked for, as MySQL's own clients name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never.
    Disabled,
    /// Where the server has it.
    #[default]
    Preferred,
    /// Or fail. Nobody looks whose certificate it is.
    Required,
    /// And the certificate must come from the given authority.
    VerifyCa,
    /// And it must be made out to the host.
    VerifyIdentity,
}

impl SslMode {
    /// How the modes are written.
    pub const NAMES: &'static [&'static str] = &["disabled", "preferred", "required", "verify-ca", "verify-identity"];
    const ALL: [Self; 5] = [Self::Disabled, Self::Preferred, Self::Required, Self::VerifyCa, Self::VerifyIdentity];
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::VerifyCa => "verify-ca",
            Self::VerifyIdentity => "verify-identity",
        })
    }
}

/// Returned for a word that is no TLS mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of disabled, preferred, required, verify-ca, verify-identity")]
pub struct UnknownSslMode(String);

impl FromStr for SslMode {
    type Err = UnknownSslMode;

    /// Takes MySQL's own spelling too: any case, `_` for `-`.
    fn from_str(text: &str) -> Result<Self, UnknownSslMode> {
        let word = text.to_ascii_lowercase().replace('_', "-");
        Self::ALL.into_iter().find(|mode| mode.to_string() == word).ok_or_else(|| UnknownSslMode(text.to_owned()))
    }
}

/// TLS of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SslOptions {
    /// How much of it.
    pub mode: SslMode,
    /// Certificates of the authorities to trust, PEM.
    pub ca: Option<PathBuf>,
    /// This client's certificate, PEM.
    pub cert: Option<PathBuf>,
    /// The key to it, PEM.
    pub key: Option<PathBuf>,
    /// The name that the certificate must be made out to, where it is not the host.
    pub server_name: Option<String>,
}

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The account's name.
    pub user: String,
    /// A file that holds the password; one trailing line end is not part of it.
    pub password_file: Option<PathBuf>,
    /// TLS.
    pub ssl: SslOptions,
    password: Password,
}

impl ConnectOptions {
    /// Options without password and TLS settings; set the fields that differ.
    pub fn new(endpoint: Endpoint, user: impl Into<String>) -> Self {
        Self {
            endpoint,
            user: user.into(),
            password_file: None,
            ssl: SslOptions::default(),
            password: Password::default(),
        }
    }

    /// Refuses combinations that cannot be kept. For the front of a verb, and again before each connection.
    pub fn check(&self) -> Result<(), MysqlError> {
        let ssl = &self.ssl;
        let refuse = |why: &str| Err(MysqlError::connection(format!("connect to {}", self.endpoint), why.to_owned()));
        match (&self.endpoint, ssl.mode) {
            (Endpoint::Socket(_), SslMode::Disabled | SslMode::Preferred) => return Ok(()),
            (Endpoint::Socket(_), mode) => {
                return refuse(&format!("--ssl-mode {mode} is for TCP; a socket carries no TLS here"));
            }
            (Endpoint::Tcp { .. }, SslMode::VerifyCa | SslMode::VerifyIdentity) if ssl.ca.is_none() => {
                return refuse(&format!("--ssl-mode {} needs --ssl-ca", ssl.mode));
            }
            (Endpoint::Tcp { .. }, _) => {}
        }
        match (&ssl.cert, &ssl.key) {
            (Some(_), None) | (None, Some(_)) => refuse("--ssl-cert and --ssl-key go together"),
            _ => Ok(()),
        }
    }

    /// What the driver is told: with TLS or without.
    pub(super) async fn driver_options(&self, with_tls: bool) -> Result<Opts, MysqlError> {
        let builder = OptsBuilder::default()
            .user(Some(self.user.as_str()))
            .pass(self.password.get(self.password_file.as_deref()).await?)
            // A connection that moves to the socket by itself is not the one that was asked for.
            .prefer_socket(Some(false))
            .stmt_cache_size(Some(0))
            .wait_timeout(Some(WAIT_TIMEOUT_SECONDS))
            .tcp_keepalive(Some(std::time::Duration::from_secs(10)))
            .tcp_nodelay(true);
        let builder = match &self.endpoint {
            Endpoint::Socket(path) => {
                let path = path.to_str().ok_or_else(|| {
                    MysqlError::connection(format!("connect to {}", self.endpoint), "the path is not UTF-8")
                })?;
                builder.socket(Some(path))
            }
            Endpoint::Tcp { host, port } => {
                let tls = with_tls.then(|| self.tls());
                builder.ip_or_hostname(host.as_str()).tcp_port(*port).ssl_opts(tls)
            }
        };
        Ok(builder.into())
    }

    /// True where the first attempt is with TLS.
    pub(super) fn wants_tls(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp { .. }) && self.ssl.mode != SslMode::Disabled
    }

    fn tls(&self) -> SslOpts {
        let ssl = &self.ssl;
        let identity = match (&ssl.cert, &ssl.key) {
            (Some(cert), Some(key)) => Some(ClientIdentity::new(cert.clone().into(), key.clone().into())),
            _ => None,
        };
        let options = SslOpts::default().with_client_identity(identity);
        let trusted = || ssl.ca.iter().map(|path| path.clone().into()).collect::<Vec<_>>();
        match ssl.mode {
            SslMode::Disabled | SslMode::Preferred | SslMode::Required => {
                options.with_danger_accept_invalid_certs(true)
            }
            SslMode::VerifyCa => options
                .with_root_certs(trusted())
                .with_disable_built_in_roots(true)
                .with_danger_skip_domain_validation(true)
                .with_danger_tls_hostname_override(Some(NAME_OF_NOBODY)),
            SslMode::VerifyIdentity => {
                let options = options.with_root_certs(trusted()).with_disable_built_in_roots(true);
                match &ssl.server_name {
                    Some(name) => options.with_danger_tls_hostname_override(Some(name.clone())),
                    None => options,
                }
            }
        }
    }
}

/// The host name that is asked for under `verify-ca`.
///
/// The driver (mysql_async 0.37) forgives a wrong name, if told to, by looking for the word `NotValidForName` in the
/// text of the error of rustls. With rustls 0.23 that error is another variant, whose text does not hold the word,
/// but does hold the name that was asked for. So the name is the word. The chain of certificates is checked before
/// the name, and no other error quotes the name, so nothing else is forgiven. Integration tests hold both halves.
const NAME_OF_NOBODY: &str = "NotValidForName";

/// The password, read when first needed. Clones share it.
#[derive(Clone, Default)]
struct Password(Arc<OnceCell<Zeroizing<String>>>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Password {
    async fn get(&self, file: Option<&Path>) -> Result<Option<&str>, MysqlError> {
        let Some(file) = file else { return Ok(None) };
        let password = self.0.get_or_try_init(|| read_password(file)).await?;
        Ok(Some(password.as_str()))
    }
}

async fn read_password(file: &Path) -> Result<Zeroizing<String>, MysqlError> {
    let act = || format!("read the password file {}", file.display());
    let bytes = Zeroizing::new(tokio::fs::read(file).await.map_err(|error| MysqlError::connection(act(), error))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| MysqlError::connection(act(), "it is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.len() > MAX_PASSWORD_BYTES {
        return Err(MysqlError::connection(act(), "it is too large for a password"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(mode: SslMode) -> ConnectOptions {
        let mut options = ConnectOptions::new(Endpoint::Tcp { host: "db".to_owned(), port: 3306 }, "backup");
        options.ssl.mode = mode;
        options
    }

    #[test]
    fn modes_are_read_as_printed_and_as_mysql_prints_them() {
        for name in SslMode::NAMES {
            assert_eq!(name.parse::<SslMode>().unwrap().to_string(), *name);
        }
        assert_eq!("VERIFY_CA".parse(), Ok(SslMode::VerifyCa));
        assert!("verify".parse::<SslMode>().is_err());
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert!(tcp(SslMode::VerifyCa).check().is_err(), "no authority to verify against");
        assert!(tcp(SslMode::Required).check().is_ok());
        let mut half = tcp(SslMode::Required);
        half.ssl.cert = Some("/c".into());
        assert!(half.check().is_err(), "a certificate without its key");
        let mut socket = ConnectOptions::new(Endpoint::Socket("/s".into()), "backup");
        assert!(socket.check().is_ok());
        socket.ssl.mode = SslMode::Required;
        assert!(socket.check().is_err(), "no TLS over a socket");
    }

    #[tokio::test]
    async fn the_password_is_read_once_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "geheim \r\n").unwrap();
        let mut options = tcp(SslMode::Disabled);
        options.password_file = Some(path.clone());
        assert_eq!(options.driver_options(false).await.unwrap().pass(), Some("geheim "));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(options.clone().driver_options(false).await.unwrap().pass(), Some("geheim "));
        assert!(!format!("{options:?}").contains("geheim"));

        options.password = Password::default();
        let error = options.driver_options(false).await.unwrap_err();
        assert!(error.to_string().contains("password file"), "{error}");
    }
}
