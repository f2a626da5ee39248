//! What happened? One JSON line for each event, chained by hash, appended durably; the fold of them is
//! the daemon's state.
//!
//! `line` is one event, `chain` binds it to the one before, `append` writes, `fold` turns lines into
//! state (of which `hex` and `rare` keep a hundred thousand small), `files` and `query` read. Nothing here holds token bytes.

pub mod append;
pub mod chain;
mod files;
pub mod fleet;
pub mod fold;
pub mod hex;
pub mod hook;
pub mod leave;
pub mod line;
pub mod marker;
pub mod mended;
mod moment;
pub mod monitored;
pub mod query;
pub mod rare;
pub mod sink;
mod text;

pub use append::{Appended, Health, OpenError, Opened, Options, Writer, open};
pub use fleet::FleetLine;
pub use fold::{Detour, HookState, Leaver, MarkerState, PlaceState, ReadError, State, TargetState, Trouble, read};
pub use hex::Hex;
pub use hook::{Heard, HookLine};
pub use leave::{LeaveLine, Parting};
pub use line::{Actor, Kind, Line, Mended, OVERFLOW, Outcome, Proof, Reason, SinkLine, Standing, Through, word};
pub use marker::{Asked, MarkerLine, Verified};
pub use monitored::{MonitoredLine, Verdict};
pub use rare::{Blank, Rare};
