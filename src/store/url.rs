//! Where a repository is, as people write it.
//!
//! ```text
//!   file:///backups/mysql        a directory; its parent must exist
//!   s3://bucket/prefix           credentials, region and endpoint come from AWS_…
//!   gs://bucket/prefix           GOOGLE_…
//!   az://container/prefix        AZURE_…
//! ```
//!
//! A URL never carries a secret: what could (a user part, a query) is refused, and no message repeats it. What a
//! cloud is asked for is in `connect`; this file does no I/O.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;

use object_store::path::Path;
use url::Url;

use super::error::StoreError;

/// A repository's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    place: Place,
}

/// The parts of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A directory of this machine.
    Directory(PathBuf),
    /// Part of a bucket.
    Bucket { cloud: Cloud, bucket: String, prefix: String },
}

/// Who runs the bucket, or speaks like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cloud {
    S3,
    Google,
    Azure,
}

impl Cloud {
    const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// The part of a URL before `://`.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

impl StoreUrl {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The path below the bucket or directory that all keys begin with.
    pub(super) fn base(&self) -> Path {
        match &self.place {
            Place::Directory(_) => Path::default(),
            Place::Bucket { prefix, .. } => Path::from(prefix.as_str()),
        }
    }

    /// An object's address, for messages. The key begins with the prefix.
    pub(super) fn of(&self, key: &Path) -> String {
        match &self.place {
            Place::Directory(path) => format!("file://{}/{key}", path.display()),
            Place::Bucket { cloud, bucket, .. } => format!("{}://{bucket}/{key}", cloud.scheme()),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Directory(path) => write!(f, "file://{}", path.display()),
            Place::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            Place::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("a store is given as file:///dir, s3://bucket/prefix, gs:// or az://"));
        };
        if scheme.eq_ignore_ascii_case("file") {
            return Ok(Self { place: Place::Directory(parse_directory(rest)?) });
        }
        let Some(cloud) = Cloud::ALL.into_iter().find(|cloud| scheme.eq_ignore_ascii_case(cloud.scheme())) else {
            return Err(bad("the store's scheme is none of file, s3, gs, az"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') || rest.contains('?') || rest.contains('#') {
            return Err(bad("a store URL carries no credentials, query or fragment: they come from the environment"));
        }
        check_bucket(bucket)?;
        let prefix = prefix.trim_matches('/').to_owned();
        check_prefix(&prefix)?;
        Ok(Self { place: Place::Bucket { cloud, bucket: bucket.to_owned(), prefix } })
    }
}

fn parse_directory(rest: &str) -> Result<PathBuf, StoreError> {
    if !rest.starts_with('/') {
        return Err(bad("a file store is an absolute path with three slashes: file:///dir"));
    }
    if rest.contains('?') || rest.contains('#') {
        return Err(bad("a file URL has no query or fragment; write ? as %3F and # as %23"));
    }
    let path = Url::parse(&format!("file://{rest}")).ok().and_then(|url| url.to_file_path().ok());
    let path = path.ok_or_else(|| bad("the file URL is no path of this system"))?;
    // Messages and keys are text.
    if path.to_str().is_none() {
        return Err(bad("the path of a file store must be valid UTF-8"));
    }
    let path: PathBuf = path.components().collect();
    if path == FilePath::new("/") {
        return Err(bad("the root directory cannot be a store"));
    }
    Ok(path)
}

fn check_bucket(bucket: &str) -> Result<(), StoreError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if bucket.is_empty() {
        return Err(bad("the store URL names no bucket"));
    }
    if bucket.len() > 222 || !bucket.bytes().all(valid) {
        return Err(bad("a bucket's name holds only letters, digits, \"-\", \".\" and \"_\""));
    }
    Ok(())
}

/// Refuses what a store or a proxy on the way would rewrite, so that a prefix has one spelling.
fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._=+@,!()' ".contains(&byte);
    for part in prefix.split('/').filter(|_| !prefix.is_empty()) {
        if part.is_empty() || part == "." || part == ".." {
            return Err(bad("the store's prefix has an empty part, \".\" or \"..\""));
        }
        if !part.bytes().all(valid) {
            return Err(bad("the store's prefix may hold letters, digits, spaces and -._=+@,!()'"));
        }
    }
    Ok(())
}

fn bad(why: &'static str) -> StoreError {
    StoreError::BadUrl { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_they_are_printed() {
        for text in
            ["file:///backups/my sql", "s3://backups", "s3://backups/a/b", "gs://b.example/x", "az://container/p"]
        {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
        assert_eq!("s3://b/p/".parse::<StoreUrl>().unwrap().to_string(), "s3://b/p");
        assert_eq!("file:///a//b/".parse::<StoreUrl>().unwrap().to_string(), "file:///a/b");
        assert_eq!("file:///a%20b".parse::<StoreUrl>().unwrap().to_string(), "file:///a b");
    }

    #[test]
    fn what_is_no_store_is_refused() {
        for bad in [
            "",
            "/backups",
            "backups",
            "file://backups",
            "file:///",
            "file:///..",
            "ftp://a/b",
            "s3://",
            "s3:///prefix",
            "s3://a b/c",
            "s3://a/b//c",
            "s3://a/../c",
            "s3://a/b%2F",
            "s3://a/b\u{e9}",
        ] {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        for text in ["s3://key:hunter2@bucket/p", "az://c/p?sig=hunter2", "gs://b/p#hunter2", "file:///d?hunter2"] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn objects_have_addresses() {
        let url: StoreUrl = "s3://bucket/a/b".parse().unwrap();
        assert_eq!(url.of(&url.base().join("x")), "s3://bucket/a/b/x");
        let url: StoreUrl = "file:///dir".parse().unwrap();
        assert_eq!(url.of(&url.base().join("x")), "file:///dir/x");
    }
}
