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
///
/// Started by a service manager that gives it folders (as the shipped unit does), it and all that it starts can write
/// below those folders and the schedule's alone, by the kernel's Landlock. A reload that needs another folder is refused
/// with the way out: `tokenferry host --apply`, then a restart.
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
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let schedule = context.schedule(self.file.as_ref());
        let (examined, places) = (schedule.clone(), context.places.clone());
        // Before the runtime's threads, which inherit the walls.
        let beginning = daemon::begin(schedule, context.places.clone())?;
        let walls = Arc::clone(&beginning.walls);
        let examine: Examine = Arc::new(move |probe| {
            let (schedule, places, walls) = (examined.clone(), places.clone(), Arc::clone(&walls));
            Box::pin(async move { serde_json::json!(doctor::within(schedule, places, walls, probe).await) })
        });
        super::on_one_thread(async {
            // A task among the others: whoever wakes the runtime's first future does so by a system call, even on its own thread.
            match tokio::spawn(daemon::run(beginning, examine)).await {
                Ok(result) => result.map_err(Exit::from),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        })
    }
}
