//! What each kind of sink and of store says of itself, in its own file; and the list of them. Nothing else in the
//! program asks which kind a sink or a store is in order to check it, to reach it or to say what it needs.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::CommandSpec;
use super::file::FileSpec;
use super::file::directory::DirectorySpec;
use super::flaw::Flaw;
use super::kubernetes::SecretSpec;
use super::{Context, Failure, Ours, Put, Removal, Stores};
use crate::cluster::{Limits, Upstream};
use crate::token::{Format, Payload};

/// Gives `$then!` each sink that is written in a schedule just as it is used: one line for a new one.
macro_rules! kinds {
    ($then:ident) => {
        $then! {
            /// A secret in Vault or OpenBao (key-value 1 or 2).
            vault, "vault": Vault($crate::sink::vault::VaultSpec);
            /// A secret in AWS Secrets Manager.
            aws_secrets_manager, "awsSecretsManager": AwsSecretsManager($crate::sink::aws::AwsSpec);
            /// A parameter of AWS Systems Manager.
            aws_parameter_store, "awsParameterStore": AwsParameterStore($crate::sink::aws::parameter::ParameterSpec);
            /// A secret in Google Cloud Secret Manager.
            gcp_secret_manager, "gcpSecretManager": GcpSecretManager($crate::sink::gcp::GcpSpec);
            /// A request to whatever takes it.
            http, "http": Http($crate::sink::http::HttpSpec);
        }
    };
}
pub(crate) use kinds;

/// Gives `$then!` each store that sinks may name: one line for a new one.
macro_rules! stores {
    ($then:ident) => {
        $then! {
            /// Vault or OpenBao.
            vault, "vault": crate::sink::vault::VaultStoreSpec;
            /// AWS Secrets Manager.
            aws_secrets_manager, "awsSecretsManager": crate::sink::aws::AwsStoreSpec;
            /// AWS Systems Manager Parameter Store.
            aws_parameter_store, "awsParameterStore": crate::sink::aws::parameter::ParameterStoreSpec;
            /// Google Cloud Secret Manager.
            gcp_secret_manager, "gcpSecretManager": crate::sink::gcp::GcpStoreSpec;
        }
    };
}

/// What a sink says of itself, and does.
pub trait Sink: Send + Sync {
    /// Its place within the store or cluster that it writes to, or on this host.
    fn name(&self) -> String;

    /// The store that it needs, by name.
    fn store(&self) -> Option<&str> {
        None
    }

    /// The cluster that it writes to, by name.
    fn cluster(&self) -> Option<&str> {
        None
    }

    /// Under which word its names are one space with those of another kind; none where no other kind writes there.
    fn space(&self) -> Option<&'static str> {
        None
    }

    /// Whether what it holds can be read back.
    fn is_readable(&self) -> bool {
        true
    }

    /// What is wrong with its settings.
    fn flaws(&self) -> Vec<Flaw> {
        Vec::new()
    }

    /// The files that its settings name, each with its key.
    fn files(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        Vec::new()
    }

    /// How the token is written where its own settings say so in place of `format`.
    fn format(&self) -> Option<Format> {
        None
    }

    /// Whose limit it is, and how many bytes a value may have there.
    fn limit(&self) -> Option<(&'static str, u64)> {
        None
    }

    /// How many seconds lie best between two puts at the least, and why.
    fn gap(&self) -> Option<(u64, &'static str)> {
        None
    }

    /// On what it was tried, where that was not the real thing.
    fn untried(&self) -> Option<&'static str> {
        None
    }

    /// What the store's login has to be allowed.
    fn rights(&self, _ask: &Ask<'_>) -> Vec<Right> {
        Vec::new()
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    fn put<'a>(&'a self, payload: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<Put, Failure>>;

    /// Tries whether an attempt would do, and says what was tried.
    ///
    /// # Errors
    /// [`Failure`], as an attempt would give it.
    fn probe<'a>(&'a self, payload: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<String, Failure>>;

    /// What it holds now; `None` where that is nothing, or nobody can tell.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    fn held<'a>(&'a self, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Option<Payload>, Failure>>;

    /// Makes one attempt to take back what is ours there.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    fn remove<'a>(&'a self, ours: Ours<'a>, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Removal, Failure>>;
}

/// What it takes to find again what a sink wrote, without the schedule.
pub trait Trace: Sized {
    /// The settings that name the place; none where nothing can be taken back.
    fn trace(&self) -> Option<Self>;
}

/// What is asked about rights.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The store.
    pub store: &'a StoreSpec,
    /// Whether what stands at the place is taken back one day.
    pub leaves: bool,
    /// Version of Vault's KV engine.
    pub engine: u8,
    /// The account, project or subscription that the store belongs to, where a person said it.
    pub account: Option<&'a str>,
}

/// Something that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// On what.
    pub resource: String,
    /// What.
    pub actions: Vec<&'static str>,
}

/// What the settings of a store say of themselves.
pub trait Store: Send + Sync {
    /// What `rbac --for` calls the system whose rights these are.
    fn system(&self) -> &'static str;

    /// What server or account it is: two stores with the same one are the same place.
    fn identity(&self) -> String;

    /// What is wrong with its settings.
    fn flaws(&self) -> Vec<Flaw>;

    /// The files that its settings name, each with the way to its key; not the one of [`Store::login`].
    fn files(&mut self) -> Vec<(Vec<&'static str>, &mut PathBuf)> {
        Vec::new()
    }

    /// The token that it logs in with, where it does so with one.
    fn login(&self) -> Option<Login<'_>> {
        None
    }

    /// Where planning says in which file that token stands.
    fn login_file(&mut self) -> Option<&mut PathBuf> {
        None
    }

    /// The live store. Nothing is opened before the first put.
    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync>;

    /// Those rights in the system's own language. `account`: as in [`Ask`].
    fn policy(&self, rights: Vec<Right>, account: Option<&str>) -> String;
}

/// A token that a store logs in with.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// The way to the settings that have `tokenFile` or `target`.
    pub key: Vec<&'static str>,
    /// Whose token it is, where we keep it fresh ourselves.
    pub target: Option<&'a str>,
    /// Where it stands.
    pub file: &'a Path,
}

macro_rules! sink_spec {
    ($($(#[$doc:meta])* $field:ident, $kind:literal: $variant:ident($spec:ty);)*) => {
        /// The settings of one sink, as the schedule names it.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum SinkSpec {
            /// A file on this host.
            File(FileSpec),
            /// Several files on this host, switched as one.
            Directory(DirectorySpec),
            $($(#[$doc])* $variant($spec),)*
            /// A key of a Secret in a cluster.
            KubernetesSecret(SecretSpec),
            /// A program that takes it on its standard input.
            Command(CommandSpec),
        }

        /// Keys of a place of which exactly one names the sink.
        pub const SINKS: &[&str] = &["file", "directory", $($kind,)* "kubernetesSecret", "command"];

        impl SinkSpec {
            /// The key that names the sink in a schedule.
            pub fn kind(&self) -> &'static str {
                match self {
                    Self::File(_) => "file",
                    Self::Directory(_) => "directory",
                    $(Self::$variant(_) => $kind,)*
                    Self::KubernetesSecret(_) => "kubernetesSecret",
                    Self::Command(_) => "command",
                }
            }

            /// What it says of itself.
            pub fn kind_of(&self) -> &dyn Sink {
                match self {
                    Self::File(spec) => spec,
                    Self::Directory(spec) => spec,
                    $(Self::$variant(spec) => spec,)*
                    Self::KubernetesSecret(spec) => spec,
                    Self::Command(spec) => spec,
                }
            }

            /// The same, where planning completes it.
            pub fn kind_of_mut(&mut self) -> &mut dyn Sink {
                match self {
                    Self::File(spec) => spec,
                    Self::Directory(spec) => spec,
                    $(Self::$variant(spec) => spec,)*
                    Self::KubernetesSecret(spec) => spec,
                    Self::Command(spec) => spec,
                }
            }
        }
    };
}
kinds!(sink_spec);

macro_rules! store_spec {
    ($($(#[$doc:meta])* $field:ident, $kind:literal: $spec:ty;)*) => {
        /// One entry of `stores`: exactly one kind of store, with limits beside it.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[schemars(rename = "Store")]
        pub struct StoreSpec {
            $($(#[$doc])* pub $field: Option<$spec>,)*
            /// The most that we ask of it at once and per second.
            #[serde(default)]
            pub limits: Limits,
        }

        /// Keys of a store of which exactly one says what it is.
        pub const STORES: &[&str] = &[$($kind,)*];

        impl StoreSpec {
            /// The one kind that it is, and its settings.
            pub fn kind_of(&self) -> Option<(&'static str, &dyn Store)> {
                $(if let Some(spec) = &self.$field {
                    return Some(($kind, spec));
                })*
                None
            }

            /// The same, where planning completes it.
            pub fn kind_of_mut(&mut self) -> Option<(&'static str, &mut dyn Store)> {
                $(if let Some(spec) = &mut self.$field {
                    return Some(($kind, spec));
                })*
                None
            }
        }
    };
}
stores!(store_spec);
