//! Programs of others that make and look at what we ship, installed by `tests/tools/tools`.

use std::path::PathBuf;
use std::process::Command;

use super::daemon::tool;

fn script(arguments: &[&str]) -> String {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/tools");
    tool(Command::new(script).args(arguments)).trim().to_owned()
}

/// The variable PATH with cargo's plug-ins that make packages.
pub fn path() -> String {
    script(&["install", "cargo-deb", "cargo-generate-rpm", "cargo-cyclonedx"]);
    format!("{}:{}", script(&["path"]), std::env::var("PATH").unwrap())
}

/// The folder in which the YAML language server stands.
pub fn editor() -> PathBuf {
    script(&["install", "language-server"]);
    script(&["editor"]).into()
}
