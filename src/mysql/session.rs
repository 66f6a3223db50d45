//! One connection to the server, used for one purpose and then closed.
//!
//! ```text
//!   connect ─ login ─ SET ROLE, SET SESSION ──► statement ─ statement ─ … ──► close
//!                                                  └ each limited in time; one that is given up takes the
//!                                                    connection with it, so no answer is ever taken for another's
//! ```
//! Never pooled, never reset and never reconnected: locks hang on a connection. A connection left alone for
//! [`WAIT_TIMEOUT_SECONDS`] is closed by the server, so that a peer that died without a word keeps no lock for long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Opts, ServerError, Value};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::error::{MysqlError, code};
use super::options::{ConnectOptions, SslMode};

/// How long the server keeps a silent connection.
pub(super) const WAIT_TIMEOUT_SECONDS: usize = 30;
/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// How long a statement may take, unless told.
const STATEMENT_PATIENCE: Duration = Duration::from_mins(1);
/// How long a farewell may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub struct Session {
    conn: Option<Conn>,
    id: u32,
    endpoint: String,
}

impl fmt::Debug for Session {
    /// The driver's own form would show the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.endpoint).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and logs in.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, MysqlError> {
        options.check()?;
        let act = format!("connect to {} as {}", options.endpoint, options.user);
        let made = timeout(CONNECT_PATIENCE, connect(options, &act)).await;
        let conn = made.unwrap_or_else(|_| Err(gave_up(&act, CONNECT_PATIENCE)))?;
        let mut session = Self { id: conn.id(), conn: Some(conn), endpoint: options.endpoint.to_string() };
        session.prepare().await?;
        Ok(session)
    }

    /// The server's number for this connection.
    pub fn connection_id(&self) -> u32 {
        self.id
    }

    /// Asks whether the server is still there.
    pub async fn ping(&mut self) -> Result<(), MysqlError> {
        let act = "ping the server";
        self.limited(act, PING_PATIENCE, Command::Ping).await?.map_err(|error| sort(act, error.into()))
    }

    /// Says goodbye. The connection is gone in any case.
    pub async fn close(mut self) {
        self.shut().await;
    }

    /// As `close`, for one that cannot be moved; no statement can follow.
    pub(super) async fn shut(&mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = timeout(CLOSE_PATIENCE, conn.disconnect()).await;
        }
    }

    /// Ends another connection of the same user, over a new one. One that is gone already is no error.
    pub async fn kill(options: &ConnectOptions, id: u32) -> Result<(), MysqlError> {
        let mut session = Self::connect(options).await?;
        session.end("KILL", id).await?;
        session.close().await;
        Ok(())
    }

    /// Ends the statement that another connection of the same user runs, not the connection.
    pub(super) async fn kill_query(&mut self, id: u32) -> Result<(), MysqlError> {
        self.end("KILL QUERY", id).await
    }

    async fn end(&mut self, how: &str, id: u32) -> Result<(), MysqlError> {
        match self.try_statement(&format!("end connection {id}"), &format!("{how} {id}"), STATEMENT_PATIENCE).await? {
            Ok(()) | Err(Refusal { code: code::NO_SUCH_THREAD, .. }) => Ok(()),
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    /// Makes what follows independent of the account's and the server's defaults.
    async fn prepare(&mut self) -> Result<(), MysqlError> {
        let act = "prepare the session";
        // Privileges may come by roles that are not on by default.
        self.execute(act, "SET ROLE ALL").await?;
        let settings = format!(
            "SET SESSION wait_timeout={WAIT_TIMEOUT_SECONDS}, autocommit=1, lock_wait_timeout=3, max_execution_time=0, \
             sql_mode='', completion_type=NO_CHAIN"
        );
        self.execute(act, &settings).await?;
        // In a group, reading must not wait for what the group has yet to apply.
        let eventual = "SET SESSION group_replication_consistency='EVENTUAL'";
        match self.try_statement(act, eventual, STATEMENT_PATIENCE).await? {
            Ok(()) | Err(Refusal { code: code::UNKNOWN_SYSTEM_VARIABLE, .. }) => Ok(()),
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    /// Runs a statement without a result; `act` completes "cannot …".
    pub(super) async fn execute(&mut self, act: &str, sql: &str) -> Result<(), MysqlError> {
        let answer = self.limited(act, STATEMENT_PATIENCE, Command::Statement(sql)).await?;
        answer.map_err(|error| sort(act, error.into()))
    }

    /// Runs a statement that the server may refuse: the refusal is an answer. The connection lives on.
    pub(super) async fn try_statement(
        &mut self,
        act: &str,
        sql: &str,
        patience: Duration,
    ) -> Result<Result<(), Refusal>, MysqlError> {
        match self.limited(act, patience, Command::Statement(sql)).await? {
            Ok(()) => Ok(Ok(())),
            Err(error) => match sort(act, error.clone().into()) {
                lost @ MysqlError::Connection { .. } => Err(lost),
                _ => Ok(Err(Refusal { act: act.to_owned(), code: error.code, error })),
            },
        }
    }

    /// All rows of a result that is known to be small.
    pub(super) async fn rows(&mut self, act: &str, sql: &str) -> Result<Vec<Record>, MysqlError> {
        let mut rows = Vec::new();
        self.each(act, sql, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// The only row of a result.
    pub(super) async fn row(&mut self, act: &str, sql: &str) -> Result<Record, MysqlError> {
        let rows = self.rows(act, sql).await?;
        rows.into_iter().next().ok_or_else(|| MysqlError::failed(act, "the server gave no row"))
    }

    /// Hands over the rows of a result one by one, as they come.
    pub(super) async fn each<F>(&mut self, act: &str, sql: &str, mut take: F) -> Result<(), MysqlError>
    where
        F: FnMut(Record) -> Result<(), MysqlError>,
    {
        // What is not read to its end would be in front of the next answer: the connection is put back only then.
        let mut conn = Held(Some(self.take(act)?));
        let Some(inner) = conn.0.as_mut() else { return Err(gave_up(act, STATEMENT_PATIENCE)) };
        let outcome = async {
            let begun = timeout(STATEMENT_PATIENCE, inner.query_iter(sql)).await;
            let mut result = begun.map_err(|_| gave_up(act, STATEMENT_PATIENCE))?.map_err(|e| sort(act, e))?;
            loop {
                let next = timeout(STATEMENT_PATIENCE, result.next()).await;
                let Some(row) = next.map_err(|_| gave_up(act, STATEMENT_PATIENCE))?.map_err(|e| sort(act, e))? else {
                    return Ok(());
                };
                take(Record::new(act, row)?)?;
            }
        }
        .await;
        // A taker that failed left rows behind: such a connection is of no more use either.
        let refused =
            |error: &MysqlError| error.server_code().is_some() || matches!(error, MysqlError::Privileges { .. });
        if outcome.as_ref().err().is_none_or(refused) {
            self.conn = conn.0.take();
        }
        outcome
    }

    fn take(&mut self, act: &str) -> Result<Conn, MysqlError> {
        self.conn.take().ok_or_else(|| MysqlError::connection(act, "the connection was given up earlier"))
    }

    /// Runs a command to its end or for as long as `patience`. A refusal of the server is an answer.
    async fn limited(
        &mut self,
        act: &str,
        patience: Duration,
        command: Command<'_>,
    ) -> Result<Result<(), ServerError>, MysqlError> {
        // Taken out while in use: a caller who drops this future drops the connection, with whatever it waited for.
        let mut conn = Held(Some(self.take(act)?));
        let Some(inner) = conn.0.as_mut() else { return Err(gave_up(act, patience)) };
        let work = async {
            match command {
                Command::Ping => inner.ping().await,
                Command::Statement(sql) => inner.query_drop(sql).await,
            }
        };
        let answer = match timeout(patience, work).await.map_err(|_| gave_up(act, patience))? {
            Ok(()) => Ok(()),
            Err(mysql_async::Error::Server(error)) => Err(error),
            Err(error) => return Err(sort(act, error)),
        };
        self.conn = conn.0.take();
        Ok(answer)
    }
}

/// What needs no more of an answer than yes or no.
enum Command<'a> {
    Ping,
    Statement(&'a str),
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            abandon(conn);
        }
    }
}

/// A connection that is closed at once when dropped.
struct Held(Option<Conn>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            abandon(conn);
        }
    }
}

/// Closes the socket now. The driver's own drop would first spawn a task that says goodbye, for which a runtime that
/// is shutting down has no time; but one that was left in the middle of a command it just closes.
fn abandon(mut conn: Conn) {
    let _ = conn.ping().now_or_never();
    drop(conn);
}

fn sort(act: &str, error: mysql_async::Error) -> MysqlError {
    MysqlError::of_statement(act, error)
}

fn gave_up(act: &str, patience: Duration) -> MysqlError {
    MysqlError::connection(act, format!("no answer within {} s", patience.as_secs()))
}

async fn connect(options: &ConnectOptions, act: &str) -> Result<Conn, MysqlError> {
    let refused = |error| MysqlError::connection(act, error);
    if !options.wants_tls() {
        return login(options.driver_options(false).await?).await.map_err(refused);
    }
    match login(options.driver_options(true).await?).await {
        Err(error) if options.ssl.mode == SslMode::Preferred && has_no_tls(&error) => {
            login(options.driver_options(false).await?).await.map_err(refused)
        }
        outcome => outcome.map_err(refused),
    }
}

fn has_no_tls(error: &LoginError) -> bool {
    matches!(error, LoginError::Driver(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)))
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error(transparent)]
    Driver(mysql_async::Error),
    #[error("the server's greeting or key is not what it should be")]
    Malformed,
}

/// Logs in, in a task of its own: the driver panics on some malformed greetings and keys, which come from whoever
/// answers at the address.
async fn login(options: Opts) -> Result<Conn, LoginError> {
    let task = AbortOnDropHandle::new(tokio::spawn(Conn::new(options)));
    task.await.map_err(|_| LoginError::Malformed)?.map_err(LoginError::Driver)
}

/// What the server said no to.
#[derive(Debug)]
pub(super) struct Refusal {
    act: String,
    /// The server's error code.
    pub code: u16,
    error: ServerError,
}

impl Refusal {
    pub(super) fn into_error(self) -> MysqlError {
        MysqlError::of_statement(&self.act, mysql_async::Error::Server(self.error))
    }
}

/// A row, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record(Vec<Option<String>>);

impl Record {
    fn new(act: &str, row: mysql_async::Row) -> Result<Self, MysqlError> {
        let fields = row.unwrap_raw().into_iter().map(|value| match value {
            None | Some(Value::NULL) => Ok(None),
            Some(Value::Bytes(bytes)) => String::from_utf8(bytes)
                .map(Some)
                .map_err(|_| MysqlError::failed(act, "the server's answer is not UTF-8")),
            Some(other) => Ok(Some(other.as_sql(true))),
        });
        Ok(Self(fields.collect::<Result<_, _>>()?))
    }

    /// A column's text; `None` for NULL and for a column that is not there.
    pub(super) fn text(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(Option::as_deref)
    }

    /// A column's text, or the empty text.
    pub(super) fn text_or_empty(&self, column: usize) -> &str {
        self.text(column).unwrap_or_default()
    }

    /// A column as a value that is read from text.
    pub(super) fn parse<T: FromStr>(&self, act: &str, column: usize) -> Result<T, MysqlError> {
        let text = self.text_or_empty(column);
        text.parse().map_err(|_| MysqlError::failed(act, format!("cannot understand {text:?} in column {column}")))
    }
}
