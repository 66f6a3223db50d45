//! The tablespace files that the server knows: needs no privilege but PROCESS.
//!
//! `information_schema.FILES` is taken and not `INNODB_DATAFILES`, which lacks `mysql.ibd` (MySQL 9.7). Paths are as
//! the server says them: mostly relative to its data directory. The list can be long, so it is read row by row.

use super::error::MysqlError;
use super::session::Session;
use crate::innodb::ids::SpaceId;

/// Every file of every tablespace but the temporary ones.
pub async fn registered_files(session: &mut Session) -> Result<Vec<(SpaceId, String)>, MysqlError> {
    let act = "list the tablespace files";
    let sql = "SELECT FILE_ID, FILE_NAME FROM information_schema.FILES \
               WHERE ENGINE = 'InnoDB' AND FILE_TYPE <> 'TEMPORARY' AND FILE_NAME IS NOT NULL";
    let mut files = Vec::new();
    session
        .each(act, sql, |row| {
            files.push((SpaceId(row.parse(act, 0)?), row.text_or_empty(1).to_owned()));
            Ok(())
        })
        .await?;
    Ok(files)
}
