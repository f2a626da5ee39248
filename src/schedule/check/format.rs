//! `format`, and places that have settings for it: directories and commands.

use super::deliver::{Owner, joined};
use super::{Planner, rules};
use crate::schedule::file::{CommandFile, DirectoryFile};
use crate::schedule::measure::{Seconds, shown};
use crate::schedule::problem::Severity;
use crate::schedule::yaml::Step;
use crate::sink::SinkSpec;
use crate::sink::command::{CommandSpec, TIMEOUT};
use crate::sink::file::FileSpec;
use crate::sink::file::directory::DirectorySpec;
use crate::token::Format;
use crate::token::render::{FilePart, registry};

/// Longest that a program may take, in seconds: a rotation waits for it.
const LONGEST_COMMAND: u64 = 600;

impl Planner<'_> {
    /// Whether a format can be made for the target and written to that kind of sink.
    pub(super) fn format(&mut self, owner: &Owner<'_>, here: &[Step<'_>], kind: &str, format: &Format) {
        let mut say = |key: Option<&str>, message: &str| {
            let steps: Vec<Step<'_>> = here.iter().copied().chain(key.map(Step::Key)).collect();
            self.report.error(&owner.spot, &steps, message);
        };
        match format {
            Format::ArgoCdCluster(_) if kind != "kubernetesSecret" => {
                say(None, "argoCdCluster is a Secret of several keys: deliver it to a kubernetesSecret");
            }
            Format::Kubeconfig(settings) => {
                if settings.merge && kind != "file" {
                    say(Some("kubeconfig"), "a kubeconfig can be merged into in a `file` alone: leave `merge` out");
                }
                if let Some(namespace) = settings.namespace.as_deref().filter(|name| !rules::subdomain(name) || name.contains('.')) {
                    say(Some("kubeconfig"), &format!("{} is no namespace: write a-z, 0-9 and -", shown(namespace)));
                }
                if let Some(Err(message)) = settings.user.as_deref().map(rules::word) {
                    say(Some("kubeconfig"), &message);
                }
            }
            Format::DockerConfigJson(settings) => match &settings.registry {
                Some(host) if registry(host) != Some(host) => {
                    say(
                        Some("dockerConfigJson"),
                        &format!("{} is no registry: write its host alone, such as registry.example.com", shown(host)),
                    );
                }
                None if !owner.audiences.iter().any(|audience| registry(audience).is_some()) => {
                    say(None, "no audience names a registry: write `{dockerConfigJson: {registry: registry.example.com}}`");
                }
                _ => {}
            },
            _ => {}
        }
        if owner.embedded == Some(true) && format.needs_cluster() {
            say(None, "an embedded cluster has no API server, so there is no address to write: choose another format, or a real cluster");
        }
    }

    pub(super) fn directory(&mut self, owner: &Owner<'_>, here: &[Step<'_>], file: &DirectoryFile) -> Option<(SinkSpec, Format)> {
        let path = file.path.to_string_lossy();
        let spec = FileSpec {
            path: path.trim_end_matches('/').into(),
            mode: file.mode,
            owner: file.owner.clone(),
            group: file.group.clone(),
            readers: file.readers.clone(),
        };
        let files: std::collections::BTreeMap<String, FilePart> =
            file.files.iter().map(|(name, part)| (name.clone(), part.0.clone())).collect();
        for (name, part) in &files {
            let here = joined(&joined(here, "files"), name);
            if name.is_empty()
                || name.starts_with("..")
                || name == "."
                || name.len() > 200
                || name.contains(|c: char| c == '/' || c.is_control())
            {
                let message = format!("{} is no name of a file here: write one without / that does not begin with ..", shown(name));
                self.report.error(&owner.spot, &here, &message);
            }
            if let FilePart::Token(format) = part {
                self.format(owner, &here, "directory", format);
            }
        }
        if !files.values().any(|part| matches!(part, FilePart::Token(_))) {
            self.report.error(&owner.spot, &joined(here, "files"), "no file has the token: write such as `token: raw`");
        }
        if owner.embedded == Some(true) && files.values().any(|part| *part == FilePart::Ca) {
            let message = "an embedded cluster has no CA: write `files: {token: raw, namespace: namespace}`";
            self.report.error(&owner.spot, &joined(here, "files"), message);
        }
        let files_as = self.file(owner, here, &spec)?;
        Some((SinkSpec::Directory(Box::new(DirectorySpec { files_as, files: files.clone() })), Format::Files(files)))
    }

    pub(super) fn command(&mut self, owner: &Owner<'_>, here: &[Step<'_>], file: &CommandFile) -> Option<SinkSpec> {
        let program = file.command.first().map_or("", String::as_str);
        let words = joined(here, "command");
        if program.is_empty() {
            self.report.error(&owner.spot, &words, "the command is empty: write a list, such as [glab, variable, update, KUBE_TOKEN]");
        } else if program.contains('/') && !program.starts_with('/') {
            let message = format!("{} is a relative path: write it from / on, or the name alone for PATH to find", shown(program));
            self.report.error(&owner.spot, &words, &message);
        } else if program.contains(' ') && file.command.len() == 1 {
            let message = "no shell takes the command apart: write a list with one word each, such as [glab, variable, update, KUBE_TOKEN]";
            self.report.error(&owner.spot, &words, message);
        }
        if file.command.iter().any(|word| word.contains('\0')) {
            self.report.error(&owner.spot, &words, "a zero byte stands in the command: take it out");
        }
        if file.command.iter().any(|word| word.starts_with("eyJ")) {
            self.report.say(&owner.spot, &words, Severity::Error, "a token stands in the command: it comes on standard input, never here");
        }
        let timeout = file.timeout.map_or(TIMEOUT.as_secs(), |timeout| timeout.0);
        if timeout == 0 || timeout > LONGEST_COMMAND {
            let message = format!("{} is no time for a command: write 1s to {}", Seconds(timeout), Seconds(LONGEST_COMMAND));
            self.report.error(&owner.spot, &joined(here, "timeout"), &message);
        }
        let command = CommandSpec { command: file.command.clone(), timeout: std::time::Duration::from_secs(timeout) };
        Some(SinkSpec::Command(Box::new(command)))
    }
}
