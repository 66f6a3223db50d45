//! Registered as a consumer of the redo log: the server keeps redo until this backup has it.
//!
//! ```text
//!   register ── position = checkpoint of that moment ── advance(lsn) … ── unregister, or the connection ends
//! ```
//! The registration hangs on the connection, and there is one in a server. A consumer that does not advance ends up
//! stalling every writer of the server, so the caller gives it up in time; if he dies, the server takes it back.

use super::error::{MysqlError, code};
use super::kept::Kept;
use super::options::ConnectOptions;
use super::session::Session;
use crate::innodb::lsn::Lsn;

/// How an attempt to register ended.
#[derive(Debug)]
pub enum Registration {
    /// Registered, until it is dropped.
    Registered(RedoConsumer),
    /// Somebody else is: there can be only one.
    TakenByAnother,
    /// This server has no such function.
    NotAvailable,
}

/// A registration. It has its own connection, which is kept alive while nobody calls.
#[derive(Debug)]
pub struct RedoConsumer {
    kept: Kept,
}

impl RedoConsumer {
    /// Registers.
    pub async fn register(options: &ConnectOptions) -> Result<Registration, MysqlError> {
        let act = "register as redo consumer";
        let mut session = Session::connect(options).await?;
        let row = match session.row(act, "SELECT innodb_redo_log_consumer_register()").await {
            Ok(row) => row,
            Err(error) if error.server_code() == Some(code::FUNCTION_DOES_NOT_EXIST) => {
                return Ok(Registration::NotAvailable);
            }
            Err(error) => return Err(error),
        };
        if row.text_or_empty(0) == "0" {
            return Ok(Registration::Registered(Self { kept: Kept::new(session, "keep the redo consumer") }));
        }
        session.close().await;
        Ok(Registration::TakenByAnother)
    }

    /// Lets the server overwrite redo below `lsn`. One that the server finds too old is no error.
    pub async fn advance(&mut self, lsn: Lsn) -> Result<(), MysqlError> {
        let mut session = self.kept.lock().await;
        session.row("advance as redo consumer", &format!("SELECT innodb_redo_log_consumer_advance({lsn})")).await?;
        Ok(())
    }

    /// Gives the registration back. It is gone in any case.
    pub async fn unregister(self) {
        // Ending the connection would do; asking first makes it happen before this returns.
        let sql = "SELECT innodb_redo_log_consumer_unregister()";
        let _ = self.kept.lock().await.row("unregister as redo consumer", sql).await;
        self.kept.close().await;
    }
}
