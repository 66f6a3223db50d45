//! `stillframe pin` and `unpin`: a backup that must not be deleted, by whoever it is.

use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::PinOptions;
use crate::ops::report::PinReport;
use crate::ops::stored;

/// Pins a complete backup, or takes the pin away.
pub async fn run(ctx: &Context, options: PinOptions) -> Result<PinReport, Error> {
    ctx.check()?;
    let repository = stored::open_existing(&options.store).await?;
    let id = repository.resolve(&options.backup).await?;
    ctx.check()?;
    let changed = repository.set_pinned(&id, options.pinned).await?;
    Ok(PinReport { id: id.to_string(), pinned: options.pinned, changed })
}
