//! `run`: the daemon, in the foreground.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Context, Exit};
use crate::audit::doctor;
use crate::daemon;
use crate::daemon::control::Examine;

/// Keep every target's token fresh, in the foreground
///
/// Serves until SIGTERM; SIGHUP or `tokenferry reload` takes the schedule again. A refused schedule does not
/// stop it: the one that was accepted last is served, and `status` exits 1 until the file is mended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tokenferry run /etc/tokenferry/schedule.yaml")]
pub struct Run {
    /// The schedule file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// As the daemon's start.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let schedule = context.schedule(self.file.as_ref());
        let (examined, places) = (schedule.clone(), context.places.clone());
        let examine: Examine = Arc::new(move |probe| {
            let (schedule, places) = (examined.clone(), places.clone());
            Box::pin(async move { serde_json::json!(doctor::within(schedule, places, probe).await) })
        });
        daemon::run(schedule, context.places.clone(), examine).await.map_err(Exit::from)
    }
}
