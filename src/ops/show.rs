//! `stillframe show`: everything that a manifest says.

use crate::archive::manifest::Manifest;
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::ShowOptions;
use crate::ops::stored;

/// Reads the manifest of one backup.
pub async fn run(ctx: &Context, options: ShowOptions) -> Result<Manifest, Error> {
    ctx.check()?;
    let found = stored::find(&options.store, &options.backup).await?;
    Ok(found.manifest)
}
