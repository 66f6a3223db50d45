//! What a server is among its kind: for whoever must choose one of several to back up.

use crate::mysql::{Role, ServerRole, Session};
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::ConnectOptions;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleReport {
    /// `server_uuid`.
    pub uuid: String,
    /// It takes writes.
    pub primary: bool,
    /// Why it should not be chosen, although it answers.
    pub unfit: Option<String>,
}

/// Asks one server who it is.
pub async fn run(ctx: &Context, server: ConnectOptions) -> Result<RoleReport, Error> {
    let ask = async {
        let mut session = Session::connect(&server).await?;
        let ServerRole { uuid, role, unfit } = ServerRole::read(&mut session).await?;
        session.close().await;
        Ok(RoleReport { uuid, primary: role == Role::Primary, unfit })
    };
    tokio::select! {
        () = ctx.cancel.cancelled() => Err(Error::cancelled()),
        answer = ask => answer,
    }
}
