//! What has to be undone however this process ends: a shell holds the other end of a pipe, and undoes it when the
//! pipe closes, which the kernel does even for a killed process.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A folder, with what was made in it, removed in the end.
pub struct Folder {
    path: PathBuf,
    keeper: Child,
}

/// Lets a script make something in `$1` (its last command says whether it could), waits, and undoes it.
const KEEPER: &str = "trap '' INT TERM HUP; undo() { eval \"$3\"; rm -rf -- \"$1\"; }; \
    if (eval \"$2\") >&2; then echo made; read -r _; undo \"$@\"; else undo \"$@\"; exit 1; fi";

impl Folder {
    /// An empty one below `parent`.
    pub fn new(parent: &Path) -> Self {
        Self::with(parent, ":", ":").expect("nothing can fail in an empty folder")
    }

    /// One in memory.
    pub fn in_memory() -> Self {
        Self::new(&memory())
    }

    /// One in which a shell script made something, which another one undoes. Both have the folder as `$1`.
    ///
    /// # Errors
    /// Where the first script fails; what it says goes to our standard error.
    pub fn with(parent: &Path, make: &str, undo: &str) -> Result<Self, String> {
        let folder =
            tempfile::Builder::new().prefix("tokenferry-bench-").tempdir_in(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        let path = folder.keep();
        let mut shell = Command::new("sh");
        // A group of its own: an interrupt from the keyboard is for us.
        shell.args(["-c", KEEPER, "keeper"]).arg(&path).args([make, undo]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut keeper = shell.spawn().map_err(|e| format!("sh: {e}"))?;
        let mut said = String::new();
        let read = keeper.stdout.take().map(|out| BufReader::new(out).read_line(&mut said));
        if said == "made\n" {
            return Ok(Self { path, keeper });
        }
        let ended = keeper.wait();
        Err(format!("making {} failed: {read:?}, {ended:?}", path.display()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It cannot be told to anybody, and the keeper has said why.
        let _ = self.keeper.wait();
    }
}

/// A tmpfs, as /run is on hosts with systemd.
pub fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// A command whose process ends with ours.
pub fn bound(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The same on one core, where one is named.
pub fn bound_on(core: Option<usize>, program: &Path) -> Command {
    let Some(core) = core else { return bound(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A process that is killed when its owner is done with it.
pub struct Bound(pub Child);

impl Drop for Bound {
    fn drop(&mut self) {
        // Ended already, unless something else went wrong first.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
