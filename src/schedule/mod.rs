//! What should be fresh, and when? The schedule file as written, the plan that it means, and the times
//! that follow. All pure: texts and variables come in, nothing is opened.

pub mod alerts;
pub mod change;
pub mod check;
pub mod choice;
pub mod cron;
pub mod encrypt;
pub mod file;
pub mod foreign;
pub mod format;
pub mod hooks;
pub mod measure;
pub mod own;
pub mod pattern;
pub mod plan;
pub mod problem;
pub mod proof;
pub mod schema;
pub mod timing;
pub mod yaml;

pub use change::Change;
pub use check::{Sources, include_patterns, plan};
pub use plan::{Compliance, Plan, RecordsSpec, Rotate, Target, Terms, WhenRemoved, Window};
pub use problem::{Problem, Severity};
