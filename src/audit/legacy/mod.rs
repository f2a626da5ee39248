//! `legacy`: tokens without an end, or with one that is far off. Where they are, who hangs on them, and how they end
//! without breaking anybody: found (`scan`), seen in the audit log (`uses`), replaced (`target`), disabled, observed,
//! deleted with a backup (`stage` decides, `change` does it, `backup` keeps it), and back.
//!
//! No token byte is in what is shown or kept here, the backup excepted, which is encrypted before it is written.

pub mod backup;
pub mod change;
pub mod find;
pub mod plan;
pub mod references;
pub mod scan;
pub mod stage;
pub mod target;
pub mod tokens;
pub mod uses;

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::trail::Survey;
use crate::cluster::pages::Gap;
pub use references::How;
pub use tokens::Form;
pub use uses::Use;

/// Places where such a token may be and that nobody looks at: the day of the last use tells of them.
pub const UNSEEN: [&str; 4] = [
    "copies outside the cluster: in files, CI variables, vaults",
    "custom resources that name a Secret",
    "ConfigMaps, and environment variables with the token written into them",
    "the packed releases of Helm",
];

/// Why a token is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A Secret of the type `kubernetes.io/service-account-token`: its token has no end.
    TokenSecret,
    /// Another Secret with a copy of a legacy token: it dies with the Secret that it was copied from.
    Copy,
    /// Another Secret with a token that has no end and is no legacy token: something else than the API server signed it.
    Endless,
    /// Another Secret with a token that lives longer than it should.
    Long,
}

/// An account by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether the account of a token is in this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Whereabouts {
    /// It is that very account.
    Here,
    /// None of that name: the token is refused, or of another cluster.
    Gone,
    /// One of that name with another UID: it was made anew and the token is refused, or the token is of another cluster.
    Another,
    /// It could not be asked for.
    Unknown,
}

/// An object that a token is bound to: it ends with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// `pod`, `secret` or `node`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// Somebody who names the Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// `Deployment`, `Pod`, `Pods of ReplicaSet`, `ServiceAccount`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How.
    pub how: How,
    /// How many pods, where they are counted.
    pub count: u64,
    /// Whether it runs no more and never will.
    pub past: bool,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = if self.count > 1 { format!(" ×{}", self.count) } else { String::new() };
        write!(f, "{} {}{count} ({})", self.kind, self.name, self.how.word())
    }
}

/// A token that should not live as long as it does, without the token.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Find {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// The key of its data, where it is not a token Secret.
    pub key: Option<String>,
    /// What stands there.
    pub form: Form,
    /// Why it is here.
    pub kind: Kind,
    /// The Secret that it was copied from.
    pub copy_of: Option<Name>,
    /// Whose token it is.
    pub account: Option<Name>,
    /// Whether that account is in this cluster.
    pub account_is: Whereabouts,
    /// UID of the account.
    #[serde(skip)]
    pub account_uid: Option<String>,
    /// When the Secret was made.
    pub created: Option<Timestamp>,
    /// Whether the account lists the Secret as its own: then it was made by itself, before Kubernetes 1.24.
    pub auto_generated: bool,
    /// The day of the last use, as the API server noted it.
    pub last_used: Option<String>,
    /// Since which day the API server refuses it.
    pub invalid_since: Option<String>,
    /// When `legacy disable` did that.
    pub disabled_at: Option<Timestamp>,
    /// The day of the last use before that.
    pub used_before: Option<String>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Seconds of life that it was given.
    pub lifetime: Option<i64>,
    /// What it ends with, beside its account.
    pub bound_to: Option<Bound>,
    /// For whom it is; empty for the API server.
    pub audiences: Vec<String>,
    /// Its identity.
    pub jti: Option<String>,
    /// Who names the Secret.
    pub references: Vec<Reference>,
    /// Pods of the account that have a short-lived token of it mounted.
    pub bound_pods: u64,
    /// Who used it, by the audit log.
    pub uses: Vec<Use>,
    /// Uses by more callers than are kept apart.
    pub more_uses: u64,
}

impl Find {
    /// A find of which only the place is known.
    pub fn at(namespace: &str, secret: &str, kind: Kind) -> Self {
        Self {
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            key: None,
            form: Form::Raw,
            kind,
            copy_of: None,
            account: None,
            account_is: Whereabouts::Unknown,
            account_uid: None,
            created: None,
            auto_generated: false,
            last_used: None,
            invalid_since: None,
            disabled_at: None,
            used_before: None,
            issued_at: None,
            expires_at: None,
            lifetime: None,
            bound_to: None,
            audiences: Vec::new(),
            jti: None,
            references: Vec::new(),
            bound_pods: 0,
            uses: Vec::new(),
            more_uses: 0,
        }
    }

    /// Where it stands: `NAMESPACE/SECRET`, and the key where there are several.
    pub fn place(&self) -> String {
        match &self.key {
            Some(key) => format!("{}/{} ({key})", self.namespace, self.secret),
            None => format!("{}/{}", self.namespace, self.secret),
        }
    }

    /// Those who hang on the Secret now.
    pub fn live(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|reference| !reference.past)
    }
}

/// What was found in a cluster, and what is missing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Token by token, by namespace and Secret.
    pub finds: Vec<Find>,
    /// Since which day the cluster notes the use of legacy tokens.
    pub tracked_since: Option<String>,
    /// What the audit log covers.
    pub log: Option<Survey>,
    /// What could not be read, and why.
    pub missing: Vec<String>,
    /// What is never looked at.
    pub unseen: [&'static str; 4],
    /// Questions without their whole answer.
    #[serde(skip)]
    pub gaps: Vec<Gap>,
    /// Whether no Secret could be read for want of rights.
    #[serde(skip)]
    pub forbidden: bool,
}

impl Inventory {
    /// Why it is not known who hangs on a Secret, where it is not.
    pub fn blind(&self) -> Option<&Gap> {
        self.gaps.iter().find(|gap| !matches!(gap.resource.as_str(), "secrets" | "configmaps"))
    }
}
