//! What happened? One JSON line for each event, chained by hash, appended durably; the fold of them is
//! the daemon's state.

pub mod append;
pub mod chain;
pub mod fold;
pub mod line;
pub mod query;

pub use line::{Actor, Kind, Line, Outcome, Proof, Reason, SinkLine};
