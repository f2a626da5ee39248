//! The schedules that are measured: many targets alike.

use std::fmt::Write;
use std::path::Path;

use super::servers::NAMESPACE;

/// Where the token of each target goes.
#[derive(Debug, Clone)]
pub enum Deliver {
    /// A file `tN` below the folder `out`, which stands in this one.
    Files(std::path::PathBuf),
    /// The field `token` of a secret in the store `store`, key-value version 2.
    Vault,
    /// A secret of its own in the store `store`.
    Aws,
}

impl Deliver {
    fn place(&self, number: usize) -> String {
        match self {
            Self::Files(folder) => format!("file: {{path: {}/out/t{number}}}", folder.display()),
            Self::Vault => format!("vault: {{store: store, mount: secret, path: bench/t{number}, key: token}}"),
            Self::Aws => format!("awsSecretsManager: {{store: store, secretId: bench/t{number}}}"),
        }
    }
}

/// What a schedule says.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Keys of the cluster: `embedded: {}`, `kubeconfig: …`.
    pub cluster: String,
    /// The store, where there is one.
    pub store: Option<String>,
    /// How long a token lives.
    pub duration: &'static str,
    /// How long records are kept, and how large a file of them becomes.
    pub keep: &'static str,
    /// A label of the first target.
    pub label: Option<String>,
    /// Where the tokens go.
    pub deliver: Deliver,
    /// How many targets.
    pub targets: usize,
    /// How many accounts they share.
    pub accounts: usize,
}

impl Wanted {
    /// Of an API server; each of the accounts is one target's, or several ones'.
    pub fn of_server(kubeconfig: &Path, in_flight: usize, folder: &Path, targets: usize, accounts: usize) -> Self {
        let cluster = format!("kubeconfig: {}, limits: {{inFlight: {in_flight}}}", kubeconfig.display());
        Self { cluster, duration: "1h", accounts, ..Self::embedded(folder, targets) }
    }

    /// Of a cluster that signs with a key of its own, for a day: nothing falls due meanwhile.
    pub fn embedded(folder: &Path, targets: usize) -> Self {
        Self {
            cluster: "embedded: {}".into(),
            store: None,
            duration: "24h",
            keep: "keep: 400d",
            label: None,
            deliver: Deliver::Files(folder.to_owned()),
            targets,
            accounts: targets,
        }
    }

    /// Writes it to `schedule.yaml` of that folder: in one file, or the targets in so many included ones.
    pub fn write(&self, folder: &Path, included: usize) {
        let here = folder.display();
        let mut text = format!("version: 1\nclusters: {{bench: {{{}}}}}\n", self.cluster);
        if let Some(store) = &self.store {
            let _ = writeln!(text, "stores: {{store: {{{store}}}}}");
        }
        let _ = writeln!(text, "records: {{directory: {here}/records, {}}}\ncontrol: {{socket: {here}/control.sock}}", self.keep);
        let _ = writeln!(text, "defaults: {{cluster: bench, duration: {}, prove: false}}", self.duration);
        if included == 0 {
            text.push_str("targets:\n");
            self.list(&mut text, 0..self.targets);
        } else {
            text.push_str("include: [targets.d/*.yaml]\n");
            std::fs::create_dir_all(folder.join("targets.d")).expect("room is left");
            for part in 0..included {
                self.write_part(folder, included, part);
            }
        }
        std::fs::write(folder.join("schedule.yaml"), text).expect("room is left");
    }

    /// Changes its first target so that there is nothing to do for it, and writes the file again that has it.
    pub fn change_one(&mut self, label: &str, folder: &Path, included: usize) {
        self.label = Some(label.to_owned());
        if included == 0 {
            self.write(folder, 0);
        } else {
            self.write_part(folder, included, 0);
        }
    }

    fn write_part(&self, folder: &Path, included: usize, part: usize) {
        let each = self.targets.div_ceil(included);
        let mut text = String::new();
        self.list(&mut text, part * each..self.targets.min((part + 1) * each));
        std::fs::write(folder.join(format!("targets.d/{part:04}.yaml")), text).expect("room is left");
    }

    fn list(&self, text: &mut String, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let account = number % self.accounts;
            let place = self.deliver.place(number);
            let label = self.label.as_ref().filter(|_| number == 0).map(|label| format!("labels: {{changed: \"{label}\"}}, "));
            let label = label.unwrap_or_default();
            let _ = writeln!(text, "- {{name: t{number}, serviceAccount: {NAMESPACE}/account-{account}, {label}deliver: [{{{place}}}]}}");
        }
    }
}
