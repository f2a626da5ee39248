//! `host`: what a schedule needs of this host, as files for systemd and polkit.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::print;
use super::{Context, Exit};
use crate::audit::host::{self, Files};
use crate::daemon::{read, whole};

/// Show what the schedule needs of this host, or install it
///
/// The tmpfiles.d lines for the folders of its tokens (setgid folders and default ACLs for readers), a drop-in of the
/// unit for folders outside /run/tokenferry and /var/lib/tokenferry, and a polkit rule for exactly the units and verbs
/// of its hooks. --apply writes them, makes the folders and tells systemd; the service is restarted by you.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry host                          what would be installed
  sudo tokenferry host --apply && sudo systemctl restart tokenferry
  tokenferry host --apply --root ./image   into the tree of an image")]
pub struct Host {
    /// The schedule
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write the files, make the folders and tell systemd
    #[arg(long)]
    apply: bool,
    /// Write below this folder and run nothing: for images and packages
    #[arg(long, value_name = "DIR", requires = "apply")]
    root: Option<PathBuf>,
    /// The unit that the drop-in is for
    #[arg(long, value_name = "UNIT", default_value = "tokenferry.service")]
    unit: String,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table", conflicts_with = "apply")]
    output: print::Output,
}

impl Host {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where the schedule is refused, 4 where files cannot be written for want of rights, 1 where systemd
    /// refuses them.
    pub fn run(&self, context: &Context) -> Result<(), Exit> {
        let accepted = read::read(&context.schedule(self.file.as_ref())).map_err(|problems| Exit::refused(&problems))?;
        let files = host::files(&accepted.plan);
        for note in &files.notes {
            print::talk(&format!("note: {note}"));
        }
        if self.apply {
            return self.install(&files);
        }
        if self.output == print::Output::Json {
            return print::json(&files);
        }
        let parts = self.places(&files).into_iter().filter(|(_, text)| !text.is_empty());
        let text: Vec<String> = parts.map(|(path, text)| format!("==> {} <==\n{text}", path.display())).collect();
        if text.is_empty() {
            print::talk("the schedule needs nothing beyond what the package brings");
            return Ok(());
        }
        print::data(&text.join("\n"))
    }

    fn places<'f>(&self, files: &'f Files) -> [(PathBuf, &'f str); 3] {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        [
            (root.join("etc/tmpfiles.d/tokenferry-schedule.conf"), files.tmpfiles.as_str()),
            (root.join("etc/systemd/system").join(format!("{}.d", self.unit)).join("50-schedule.conf"), files.unit.as_str()),
            (root.join("etc/polkit-1/rules.d/50-tokenferry.rules"), files.polkit.as_str()),
        ]
    }

    fn install(&self, files: &Files) -> Result<(), Exit> {
        let mut changed = Vec::new();
        for (path, text) in self.places(files) {
            if put(&path, text)? {
                print::data(&format!("{}\n", path.display()))?;
                changed.push(path);
            }
        }
        if self.root.is_some() || changed.is_empty() {
            if changed.is_empty() {
                print::talk("all is installed already");
            }
            return Ok(());
        }
        let [(tmpfiles, text), ..] = self.places(files);
        if !text.is_empty() {
            order("systemd-tmpfiles", &["--create", &tmpfiles.display().to_string()])?;
        }
        order("systemctl", &["daemon-reload"])?;
        print::talk(&format!("now: systemctl restart {} (fresh tokens are kept, nothing is minted)", self.unit));
        Ok(())
    }
}

/// Writes a file whole, or removes one that is needed no more; false where it stands already.
fn put(path: &Path, text: &str) -> Result<bool, Exit> {
    let told = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied { 4 } else { 1 };
        Exit { code, message: Some(format!("{}: {error}{}", path.display(), if code == 4 { "; run it as root" } else { "" })) }
    };
    match std::fs::read_to_string(path) {
        Ok(have) if have == text => return Ok(false),
        Ok(_) if text.is_empty() => return std::fs::remove_file(path).map(|()| true).map_err(told),
        Err(error) if text.is_empty() && error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(told(error)),
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(told)?;
    }
    whole::write(path, text.as_bytes(), 0o644).map_err(told)?;
    Ok(true)
}

fn order(program: &str, arguments: &[&str]) -> Result<(), Exit> {
    let said = Command::new(program).args(arguments).output().map_err(|error| Exit::own(format!("{program}: {error}")))?;
    if said.status.success() {
        return Ok(());
    }
    Err(Exit::own(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&said.stderr).trim())))
}
