//! The copy of the tablespaces: capture's windows become the archive's frames.
//!
//! ```text
//!   copier worker ─ Window (4 MiB of verified pages) ─► PackSink ─ FrameInput ─► PackWriter ─► store
//! ```
//! One sink and one open pack for each worker, so that no lock is shared on the way.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::archive::StreamId;
use crate::archive::frame::FrameInput;
use crate::archive::writer::{ArchiveWriter, PackWriter};
use crate::capture::{self, CopyObserver, CopyOptions, CopyPlan, CopySummary, SinkError, Window, WindowSink};
use crate::ops::error::Error;
use crate::ops::progress::Progress;

/// Copies all tablespaces of `plan`. Blocks; belongs on a thread of its own.
pub fn copy(
    plan: &CopyPlan,
    options: &CopyOptions,
    writer: &ArchiveWriter,
    progress: Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<CopySummary, Error> {
    let sinks = (0..options.parallel.get())
        .map(|_| Box::new(PackSink { pack: writer.pack_writer() }) as Box<dyn WindowSink>)
        .collect();
    progress.total(plan.space_bytes());
    Ok(capture::copy_spaces(plan, options, sinks, &Observer { progress }, cancel)?)
}

struct PackSink {
    pack: PackWriter,
}

impl WindowSink for PackSink {
    fn window(&mut self, window: &Window<'_>) -> Result<(), SinkError> {
        let frame = FrameInput {
            stream: StreamId::Space(window.space),
            window_no: window.window_no,
            unit_size: window.page_size.bytes(),
            bytes: window.pages,
            zero: window.zero,
        };
        self.pack.frame(&frame)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(self.pack.finish()?)
    }
}

struct Observer {
    progress: Arc<dyn Progress>,
}

impl CopyObserver for Observer {
    fn bytes_read(&self, bytes: u64) {
        self.progress.advance(bytes);
    }
}
