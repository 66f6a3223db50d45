//! How far a verb is. The verbs call this; what a person or a cluster sees of it is the front end's business.

/// Listens to a running verb. Called from many threads, often: implementations must be quick and never block.
pub trait Progress: Send + Sync {
    /// A new step begins. Bytes count from zero again, and the total is unknown until told.
    fn step(&self, name: &str);

    /// This step will move so many bytes. May be corrected while it runs.
    fn total(&self, bytes: u64);

    /// So many more bytes are done.
    fn advance(&self, bytes: u64);

    /// How far the captured redo is behind the server's.
    fn redo_lag(&self, bytes: u64);

    /// A line that a person should see: a warning, a decision taken.
    fn message(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _name: &str) {}
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn redo_lag(&self, _bytes: u64) {}
    fn message(&self, _text: &str) {}
}
