//! `encryptTo`: whether a place can hold what only the holders of a key can read.

use super::Planner;
use super::deliver::{Owner, joined};
use crate::schedule::measure::Bytes;
use crate::schedule::yaml::{Step, Value};
use crate::sink::SinkSpec;
use crate::token::age::Recipient;
use crate::token::{Format, sealed};

impl Planner<'_> {
    /// Checks it for a sink whose settings begin here.
    pub(super) fn encrypted(&mut self, owner: &Owner<'_>, here: &[Step<'_>], sink: &SinkSpec, format: &Format, to: &[Recipient]) {
        let here = joined(here, "encryptTo");
        // What is wrong with a key was said of it.
        let written = &owner.spot.marks.node(owner.spot.node, &here).value;
        if to.is_empty() && matches!(written, Value::List(list) if !list.is_empty()) {
            return;
        }
        let why = match format {
            _ if to.is_empty() => Some("it names nobody: write at least one public key (age1…), or leave it out"),
            Format::Kubeconfig(settings) if settings.merge => {
                Some("entries cannot be merged into a kubeconfig that is encrypted: leave `merge` out, or this")
            }
            _ if sink.kind_of().format().is_some() => {
                Some("its own settings say how the token is written, and that can be read: leave them out, or this")
            }
            Format::ArgoCdCluster(_) => Some("Argo CD reads the Secret as it is and has no key: leave it out"),
            Format::DockerConfigJson(_) if matches!(sink, SinkSpec::KubernetesSecret(_)) => {
                Some("the kubelet reads a registry's login as it is and has no key: leave it out, or choose another format")
            }
            _ => None,
        };
        if let Some(why) = why {
            self.report.error(&owner.spot, &here, why);
            return;
        }
        for (index, recipient) in to.iter().enumerate() {
            if to[..index].contains(recipient) {
                let steps: Vec<Step<'_>> = here.iter().copied().chain([index.into()]).collect();
                self.report.error(&owner.spot, &steps, "this key stands here twice: keep one");
            }
        }
        let Some((store, limit)) = sink.kind_of().limit() else { return };
        let grown = sealed::size(owner.fixed, to.len());
        if owner.fixed <= limit && grown > limit {
            let message = format!(
                "encrypted, the audiences alone make a token of {grown} bytes, more than the {} that {store} holds: write fewer of them, or \
                 fewer keys",
                Bytes(limit)
            );
            self.report.error(&owner.spot, &here, &message);
        }
    }
}
