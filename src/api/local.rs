//! What the API asks the node agent of its own process.

/// The node agent of this process.
pub trait LocalAgent: Send + Sync + 'static {}
