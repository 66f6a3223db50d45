//! `stillframe delete`: one backup goes, first out of reach and then out of the store.

use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::DeleteOptions;
use crate::ops::report::{DeleteReport, Removal};
use crate::ops::stored;
use crate::store;

/// Deletes a backup. Where the store keeps objects in spite of it, the report says so.
pub async fn run(ctx: &Context, options: DeleteOptions) -> Result<DeleteReport, Error> {
    ctx.check()?;
    let repository = stored::open_existing(&options.store).await?;
    let id = repository.resolve(&options.backup).await?;
    ctx.check()?;
    let result = repository.delete(&id).await?.into();
    Ok(DeleteReport { id: id.to_string(), result })
}

impl From<store::Removal> for Removal {
    fn from(removal: store::Removal) -> Self {
        match removal {
            store::Removal::Removed => Self::Removed,
            store::Removal::Retained => Self::Retained,
        }
    }
}
