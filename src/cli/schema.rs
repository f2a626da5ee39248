//! `schema`: the schedule's format for an editor.

use clap::Args;

use super::{Exit, print};
use crate::schedule::schema;

/// Print the schedule's format as JSON Schema
///
/// For editors: with the YAML language server, a first line of the schedule such as
/// `# yaml-language-server: $schema=/usr/local/share/tokenferry/schedule.schema.json` completes and explains each key.
/// What no schema can say (a cron expression, a name that nothing defines, a plan that lets a token expire) is told by
/// `tokenferry check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tokenferry schema > schedule.schema.json\n  tokenferry schema --include > targets.schema.json")]
pub struct Schema {
    /// Of a file under `include`: a list of targets
    #[arg(long)]
    include: bool,
}

impl Schema {
    /// Does it.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn run(self) -> Result<(), Exit> {
        print::json(&if self.include { schema::of_include() } else { schema::of_schedule() })
    }
}
