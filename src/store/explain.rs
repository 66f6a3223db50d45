//! Turns the errors of `object_store` into what to do next and one line that a person understands.
//!
//! ```text
//!   object_store::Error ──► Class   missing, exists, changed, denied, again (worth another try), final
//!                      └──► Cause   "503 Service Unavailable: SlowDown: reduce your request rate"
//! ```
//!
//! The crate keeps its HTTP status private, so it is read from the text of the error that carries it.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::util::names::printable;

const STATUS: &str = "non-2xx status code: ";
const LONGEST: usize = 300;

/// Why a request failed, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    text: String,
}

impl Cause {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

/// What a failure means for the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing is there.
    Missing,
    /// The bucket itself is not there.
    NoBucket,
    /// Something is there already.
    Exists,
    /// It is no longer what it was.
    Changed,
    /// Not allowed.
    Denied,
    /// The store cannot do such a thing.
    Unsupported,
    /// May well work the next time.
    Again,
    /// Will not work the next time either.
    Final,
}

/// Sorts a failure.
pub(super) fn classify(error: &Error) -> Class {
    let text = whole_text(error);
    match error {
        _ if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") => Class::NoBucket,
        _ if text.contains("InvalidAccessKeyId") => Class::Denied,
        Error::NotFound { .. } => missing(&text),
        Error::AlreadyExists { .. } => Class::Exists,
        Error::Precondition { .. } | Error::NotModified { .. } => Class::Changed,
        // Short-lived credentials are renewed by the client; the request that met their end is tried again.
        _ if text.contains("ExpiredToken") || text.contains("TokenRefreshRequired") => Class::Again,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Class::Denied,
        Error::NotImplemented { .. } | Error::NotSupported { .. } => Class::Unsupported,
        Error::Generic { store: "LocalFileSystem", .. } => classify_local(error),
        Error::Generic { .. } => classify_remote(error, &text),
        _ => Class::Final,
    }
}

/// "404 Not Found", unless it is something else than the object that was not found: an account, a user. To take that
/// for a missing object could mean to take a committed backup for none.
fn missing(text: &str) -> Class {
    const OBJECTS: [&str; 6] =
        ["NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound", "BlobNotFound", "ResourceNotFound"];
    match element(text, "Code").or_else(|| element(text, "code")) {
        Some(code) if !OBJECTS.contains(&code.as_str()) => Class::Final,
        _ => Class::Missing,
    }
}

fn classify_local(error: &Error) -> Class {
    match deepest(error).downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => Class::Denied,
        Some(std::io::ErrorKind::Interrupted) => Class::Again,
        _ => Class::Final,
    }
}

fn classify_remote(error: &Error, text: &str) -> Class {
    if let Some(status) = status_of(text) {
        // Listings and multipart calls report these without a variant of their own.
        return match status {
            401 | 403 => Class::Denied,
            404 => missing(text),
            409 => Class::Exists,
            412 => Class::Changed,
            501 => Class::Unsupported,
            408 | 425 | 429 | 500.. => Class::Again,
            _ => Class::Final,
        };
    }
    // Neither certificates nor names of settings get better by waiting.
    if text.contains("certificate") || is_without_credentials(text) {
        return Class::Final;
    }
    if text.contains("redirect") {
        return Class::Final;
    }
    match find::<HttpError>(error).map(HttpError::kind) {
        Some(HttpErrorKind::Decode) => Class::Final,
        // The network; or an error in the body of a successful answer ("200 OK", then SlowDown); or one cut short.
        _ => Class::Again,
    }
}

/// Says in one line what happened.
pub(super) fn explain(error: &Error) -> Cause {
    let text = whole_text(error);
    if is_without_credentials(&text) {
        return Cause::new("no credentials were found in the environment, nor on this machine's metadata service");
    }
    if let Some((_, answer)) = text.split_once(STATUS) {
        return Cause::new(explain_answer(answer));
    }
    if text.contains("incorrectly configured region") {
        return Cause::new("the store redirects elsewhere: wrong region, or wrong endpoint for this bucket");
    }
    let deepest = clip(&deepest(error).to_string());
    let to = host_of(&text).map(|host| format!(" to {host}")).unwrap_or_default();
    Cause::new(match find::<HttpError>(error).map(HttpError::kind) {
        Some(HttpErrorKind::Connect) => format!("cannot connect{to}: {deepest}"),
        Some(HttpErrorKind::Timeout) => format!("the request{to} timed out: {deepest}"),
        Some(HttpErrorKind::Interrupted | HttpErrorKind::Request) => format!("the connection{to} broke: {deepest}"),
        _ => deepest,
    })
}

/// "403 Forbidden: <?xml…><Code>AccessDenied</Code>…" as "403 Forbidden: AccessDenied: …".
fn explain_answer(answer: &str) -> String {
    let (status, body) = answer.split_once(": ").unwrap_or((answer, ""));
    let mut parts = vec![clip(status)];
    let code = element(body, "Code").or_else(|| element(body, "code"));
    let message = element(body, "Message").or_else(|| json_message(body));
    parts.extend(code.into_iter().chain(message).map(|part| clip(&part)));
    if parts.len() == 1 && !body.trim().is_empty() {
        parts.push(clip(body.trim()));
    }
    parts.join(": ")
}

fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn json_message(body: &str) -> Option<String> {
    let json = body.get(body.find('{')?..)?;
    let value = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>().next()?.ok()?;
    let message = value.pointer("/error/message").or_else(|| value.get("message"))?;
    message.as_str().map(str::to_owned)
}

/// No settings were given, so the client asked the address where clouds keep those of a machine.
fn is_without_credentials(text: &str) -> bool {
    text.contains("169.254.169.254") || text.contains("metadata.google.internal")
}

fn status_of(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once(STATUS)?;
    rest.get(..3)?.parse().ok()
}

/// The host in "Error performing PUT http://host:port/path in 3ms".
fn host_of(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("Error performing ")?;
    let (_, rest) = rest.split_once("://")?;
    rest.split(['/', '?', ' ']).next().filter(|host| !host.is_empty() && !host.contains('@'))
}

/// An error with its causes, those left out that only repeat what is there.
pub(super) fn whole_text(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}

fn deepest(error: &Error) -> &(dyn StdError + 'static) {
    let mut at: &(dyn StdError + 'static) = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at
}

fn find<T: StdError + 'static>(error: &Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn clip(text: &str) -> String {
    let shown = printable(text.trim().as_bytes());
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn statuses_decide_whether_to_try_again() {
        let answer = |status: &str| {
            generic(&format!("Error performing PUT http://h:1/b/k in 1ms - Server returned {STATUS}{status}"))
        };
        for again in ["503 Service Unavailable: ", "500 Internal Server Error: x", "429 Too Many Requests: "] {
            assert_eq!(classify(&answer(again)), Class::Again, "{again}");
        }
        for never in ["400 Bad Request: <Code>InvalidArgument</Code>", "405 Method Not Allowed: "] {
            assert_eq!(classify(&answer(never)), Class::Final, "{never}");
        }
        assert_eq!(classify(&answer("403 Forbidden: <Code>AccessDenied</Code>")), Class::Denied);
        assert_eq!(classify(&answer("501 Not Implemented: ")), Class::Unsupported);
        assert_eq!(classify(&answer("400 Bad Request: <Code>ExpiredToken</Code>")), Class::Again);
        assert_eq!(classify(&answer("404 Not Found: <Code>NoSuchBucket</Code>")), Class::NoBucket);
        assert_eq!(classify(&answer("404 Not Found: <Code>NoSuchKey</Code>")), Class::Missing);
        assert_eq!(classify(&answer("404 Not Found: <Code>XAdminUserNotFound</Code>")), Class::Final);
    }

    #[test]
    fn answers_are_said_in_one_line() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>Reduce your\nrate</Message></Error>";
        let error = generic(&format!("Server returned {STATUS}503 Service Unavailable: {body}"));
        assert_eq!(explain(&error).to_string(), r"503 Service Unavailable: SlowDown: Reduce your\x0arate");
        let error = generic(&format!("Server returned {STATUS}401 Unauthorized: {{\"error\":{{\"message\":\"no\"}}}}"));
        assert_eq!(explain(&error).to_string(), "401 Unauthorized: no");
        let error = generic(&format!("Server returned {STATUS}502 Bad Gateway: {}", "x".repeat(5000)));
        assert!(explain(&error).to_string().chars().count() < 400);
    }

    #[test]
    fn missing_credentials_are_said() {
        let error = generic("Error performing PUT http://169.254.169.254/latest/api/token in 5s - HTTP error");
        assert!(explain(&error).to_string().contains("no credentials"));
        assert_eq!(classify(&error), Class::Final);
    }
}
