//! What several verbs have in common on the command line, and how texts become values.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::ops::options::{AccountPassword, ConnectOptions, Endpoint, ExternalFiles, SslMode, SslOptions, StoreUrl};
use crate::ops::{Error, ErrorKind};
use crate::util::units::{parse_bytes, parse_duration};

/// More threads than this help nobody, and a slip of the finger should not start a million.
const MOST_THREADS: usize = 1024;

/// `--store`.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// Where backups are: file:///dir, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix
    // A text here and not a StoreUrl: whoever puts a password into a URL must not find it in clap's message.
    #[arg(long = "store", value_name = "URL", env = "STILLFRAME_STORE", hide_env_values = true)]
    url: String,
}

impl StoreArgs {
    /// The store.
    pub(super) fn url(&self) -> Result<StoreUrl, Error> {
        self.url.parse().map_err(|error| {
            Error::new(ErrorKind::Usage, "--store does not name a store")
                .caused_by(error)
                .advise("file:///dir, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
        })
    }
}

/// `--store` and the backup's name.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The backup: a name (the newest complete one of it) or an id, as stillframe list shows them
    #[arg(value_name = "NAME")]
    pub(super) backup: String,
}

impl BackupArgs {
    /// The store.
    pub(super) fn store(&self) -> Result<StoreUrl, Error> {
        self.store.url()
    }
}

/// `--encryption-key-file`, for reading.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// A file with a key that opens the backup; may be given several times
    #[arg(long = "encryption-key-file", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

/// How to reach the server.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct ServerArgs {
    /// The server's socket
    #[arg(long, value_name = "PATH", required_unless_present = "host", conflicts_with = "host")]
    socket: Option<PathBuf>,
    /// The server's host, for TCP
    #[arg(long, value_name = "HOST", required_unless_present = "socket")]
    host: Option<String>,
    /// The server's TCP port
    #[arg(long, value_name = "PORT", default_value_t = Endpoint::DEFAULT_PORT, conflicts_with = "socket")]
    port: u16,
    /// The account; stillframe grants prints the SQL that makes it
    #[arg(long, value_name = "USER")]
    user: String,
    /// A file that holds the account's password (one line feed at its end is not part of it)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// As MySQL's own clients: disabled, preferred, required, verify-ca or verify-identity. No mode sends a password
    /// in clear
    #[arg(long, value_name = "MODE", default_value_t)]
    ssl_mode: SslMode,
    /// The authority that signed the server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    ssl_ca: Option<PathBuf>,
    /// The account's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "ssl_key")]
    ssl_cert: Option<PathBuf>,
    /// The key to --ssl-cert, PEM
    #[arg(long, value_name = "FILE", requires = "ssl_cert")]
    ssl_key: Option<PathBuf>,
    /// The name that the server's certificate must carry, where it is not the host's
    #[arg(long, value_name = "NAME")]
    ssl_server_name: Option<String>,
}

impl ServerArgs {
    /// The same as the engine wants it.
    pub(super) fn connect_options(self) -> ConnectOptions {
        let endpoint = match (self.socket, self.host) {
            (Some(path), _) => Endpoint::Socket(path),
            (None, host) => Endpoint::Tcp { host: host.unwrap_or_default(), port: self.port },
        };
        let mut options = ConnectOptions::new(endpoint, self.user);
        options.password_file = self.password_file;
        options.ssl = SslOptions {
            mode: self.ssl_mode,
            ca: self.ssl_ca,
            cert: self.ssl_cert,
            key: self.ssl_key,
            server_name: self.ssl_server_name,
        };
        options
    }
}

/// One of a choice's names.
pub(super) fn choice<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// One of the names of something whose errors are plain texts.
pub(super) fn words<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// A size that is not 0.
pub(super) fn size(text: &str) -> Result<u64, String> {
    match parse_bytes(text) {
        Ok(0) => Err("must be more than 0".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// A size per second: `50M`, `50M/s`.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    size(text.strip_suffix("/s").unwrap_or(text))
}

/// How long DDL may wait; the one word means forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget(pub(super) Option<Duration>);

/// A time, or `unlimited`.
pub(super) fn budget(text: &str) -> Result<Budget, String> {
    match text {
        "unlimited" => Ok(Budget(None)),
        _ => time(text).map(|time| Budget(Some(time))),
    }
}

/// A time.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// A number of threads.
pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse::<NonZeroUsize>().map_err(|_| "must be a number from 1 on".to_owned())?;
    if number.get() <= MOST_THREADS { Ok(number) } else { Err(format!("may be {MOST_THREADS} at most")) }
}

/// A parser of an account and the file with its password.
pub(super) fn account_password() -> impl TypedValueParser<Value = AccountPassword> {
    clap::builder::OsStringValueParser::new().try_map(|text: OsString| parse_account_password(&text))
}

/// `USER[@HOST]=FILE`: the file may have any name, the host has no `@`.
fn parse_account_password(text: &OsStr) -> Result<AccountPassword, String> {
    let mut sides = text.as_bytes().splitn(2, |byte| *byte == b'=');
    let (account, file) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
    let account = std::str::from_utf8(account).map_err(|_| "the account is not UTF-8".to_owned())?;
    let (user, host) = match account.rsplit_once('@') {
        Some((user, host)) => (user, Some(host)),
        None => (account, None),
    };
    if user.is_empty() || host == Some("") || file.is_empty() {
        return Err("it should be USER=FILE or USER@HOST=FILE".to_owned());
    }
    let password_file = PathBuf::from(OsStr::from_bytes(file));
    Ok(AccountPassword { user: user.to_owned(), host: host.map(str::to_owned), password_file })
}

/// `keep`, `inside`, or pairs of directories.
pub(super) fn external_files() -> impl TypedValueParser<Value = ExternalFiles> {
    clap::builder::OsStringValueParser::new().try_map(|text: OsString| parse_external_files(&text))
}

/// `OLD=NEW[,OLD=NEW…]` as bytes: a path may hold any. A backslash takes a comma, `=` or backslash as it is.
fn parse_external_files(text: &OsStr) -> Result<ExternalFiles, String> {
    match text.as_bytes() {
        b"keep" => return Ok(ExternalFiles::Keep),
        b"inside" => return Ok(ExternalFiles::Inside),
        _ => {}
    }
    let mut pairs = Vec::new();
    let mut sides = vec![Vec::new()];
    let mut bytes = text.as_bytes().iter().copied();
    loop {
        match bytes.next() {
            Some(b'\\') => last(&mut sides).extend(bytes.next()),
            Some(b'=') => sides.push(Vec::new()),
            end @ (Some(b',') | None) => {
                pairs.push(pair(std::mem::replace(&mut sides, vec![Vec::new()]))?);
                if end.is_none() {
                    return Ok(ExternalFiles::Map(pairs));
                }
            }
            Some(other) => last(&mut sides).push(other),
        }
    }
}

fn last(sides: &mut Vec<Vec<u8>>) -> &mut Vec<u8> {
    if sides.is_empty() {
        sides.push(Vec::new());
    }
    let at = sides.len() - 1;
    &mut sides[at]
}

fn pair(sides: Vec<Vec<u8>>) -> Result<(PathBuf, PathBuf), String> {
    let mut paths = sides.into_iter().map(|side| PathBuf::from(OsString::from_vec(side)));
    let (Some(old), Some(new), None) = (paths.next(), paths.next(), paths.next()) else {
        return Err("must be keep, inside or OLD=NEW[,OLD=NEW...]".to_owned());
    };
    if !old.is_absolute() || !new.is_absolute() {
        return Err("both sides of OLD=NEW must be absolute paths".to_owned());
    }
    Ok((old, new))
}

/// What is wrong with an argument that carries a password, if one does. Looked at before anything else reads the
/// arguments, so that no message can repeat it.
pub(super) fn refuse_password(arguments: &[OsString]) -> Result<(), Error> {
    for argument in arguments.iter().skip(1).map(|argument| argument.as_bytes()) {
        if argument == b"--" {
            break;
        }
        let long = argument == b"--password" || argument.starts_with(b"--password=");
        let short = argument.starts_with(b"-p");
        if long || short {
            let message = "a password is not taken from the command line: other users of this machine could read it";
            let advice = "write it into a file that only you can read, and name that with --password-file";
            return Err(Error::new(ErrorKind::Usage, message).advise(advice));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Result<ExternalFiles, String> {
        parse_external_files(OsStr::new(text))
    }

    #[test]
    fn external_files_as_people_write_them() {
        assert_eq!(files("keep"), Ok(ExternalFiles::Keep));
        assert_eq!(files("inside"), Ok(ExternalFiles::Inside));
        let map = ExternalFiles::Map(vec![("/a".into(), "/b".into()), ("/c,d=e\\".into(), "/f".into())]);
        assert_eq!(files(r"/a=/b,/c\,d\=e\\=/f"), Ok(map));
        for bad in ["", "elsewhere", "/a", "/a=", "a=/b", "/a=b", "/a=/b=/c", "/a=/b,", ",/a=/b", "/a=/b\\"] {
            let outcome = files(bad);
            // A lone backslash at the end escapes nothing.
            assert!(outcome.is_err() || bad.ends_with('\\'), "{bad}: {outcome:?}");
        }
    }

    #[test]
    fn accounts_as_people_write_them() {
        let parse = |text: &str| parse_account_password(OsStr::new(text));
        let account = |user: &str, host: Option<&str>, file: &str| {
            let password_file = PathBuf::from(file);
            Ok(AccountPassword { user: user.to_owned(), host: host.map(str::to_owned), password_file })
        };
        assert_eq!(parse("root=/p"), account("root", None, "/p"));
        assert_eq!(parse("root@%=/p=q@r"), account("root", Some("%"), "/p=q@r"));
        assert_eq!(parse("a@b@10.0.0.0/255.0.0.0=p"), account("a@b", Some("10.0.0.0/255.0.0.0"), "p"));
        for bad in ["", "root", "root=", "=p", "root@=p", "@h=p"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_any_bytes_can_be_mapped() {
        let outcome = parse_external_files(OsStr::from_bytes(b"/a\xff=/b")).unwrap();
        let ExternalFiles::Map(pairs) = outcome else { panic!("{outcome:?}") };
        assert_eq!(pairs[0].0.as_os_str().as_bytes(), b"/a\xff");
    }

    #[test]
    fn numbers() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert!(size("0").is_err() && size("x").is_err());
        assert_eq!(rate("50M"), Ok(50 << 20));
        assert_eq!(rate("50M/s"), Ok(50 << 20));
        assert_eq!(budget("unlimited"), Ok(Budget(None)));
        assert_eq!(budget("90"), Ok(Budget(Some(Duration::from_secs(90)))));
        assert!(budget("never").is_err());
        assert_eq!(threads("4").map(NonZeroUsize::get), Ok(4));
        assert!(threads("0").is_err() && threads("1025").is_err() && threads("-1").is_err());
    }

    #[test]
    fn passwords_are_refused_without_being_repeated() {
        let refuse = |list: &[&str]| refuse_password(&list.iter().map(OsString::from).collect::<Vec<_>>());
        for bad in [&["x", "backup", "--password=geheim"][..], &["x", "--password", "geheim"], &["x", "-pgeheim"]] {
            let error = refuse(bad).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Usage);
            assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        }
        assert!(refuse(&["x", "backup", "--password-file=f", "--parallel", "2"]).is_ok());
        assert!(refuse(&["-p", "list"]).is_ok(), "the program's own name");
        assert!(refuse(&["x", "show", "--", "-p"]).is_ok());
    }
}
