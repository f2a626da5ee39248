//! What each kind of sink and of store says of itself, in its own file; and the list of them. Nothing else in the
//! program asks which kind a sink or a store is in order to check it, to reach it or to say what it needs.

mod sink;
mod store;

use schemars::JsonSchema;
use serde::Deserialize;

use super::command::CommandSpec;
use super::file::FileSpec;
use super::file::directory::DirectorySpec;
use super::kubernetes::SecretSpec;
use crate::cluster::Limits;

pub(in crate::sink) use sink::calls;
pub use sink::{Ask, Right, Sink, Trace};
pub use store::{Login, Store};

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
            /// A secret in Azure Key Vault.
            azure_key_vault, "azureKeyVault": AzureKeyVault($crate::sink::azure::AzureSpec);
            /// A request to whatever takes it.
            http, "http": Http($crate::sink::http::HttpSpec);
        }
    };
}
pub(crate) use kinds;

/// Gives `$then!` each store that sinks may name, and the system that it belongs to: one line for a new one.
macro_rules! stores {
    ($then:ident) => {
        $then! {
            /// Vault or OpenBao.
            vault, "vault" of "vault": crate::sink::vault::VaultStoreSpec;
            /// AWS Secrets Manager.
            aws_secrets_manager, "awsSecretsManager" of "aws": crate::sink::aws::AwsStoreSpec;
            /// AWS Systems Manager Parameter Store.
            aws_parameter_store, "awsParameterStore" of "aws": crate::sink::aws::parameter::ParameterStoreSpec;
            /// Google Cloud Secret Manager.
            gcp_secret_manager, "gcpSecretManager" of "gcp": crate::sink::gcp::GcpStoreSpec;
            /// Azure Key Vault.
            azure_key_vault, "azureKeyVault" of "azure": crate::sink::azure::AzureStoreSpec;
        }
    };
}

macro_rules! sink_spec {
    ($($(#[$doc:meta])* $field:ident, $kind:literal: $variant:ident($spec:ty);)*) => {
        /// The settings of one sink, as the schedule names it. All but those of a file in a box: a hundred thousand places have
        /// the room of the largest.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum SinkSpec {
            /// A file on this host.
            File(FileSpec),
            /// Several files on this host, switched as one.
            Directory(Box<DirectorySpec>),
            $($(#[$doc])* $variant(Box<$spec>),)*
            /// A key of a Secret in a cluster.
            KubernetesSecret(Box<SecretSpec>),
            /// A program that takes it on its standard input.
            Command(Box<CommandSpec>),
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
                    Self::Directory(spec) => &**spec,
                    $(Self::$variant(spec) => &**spec,)*
                    Self::KubernetesSecret(spec) => &**spec,
                    Self::Command(spec) => &**spec,
                }
            }

            /// The same, where planning completes it.
            pub fn kind_of_mut(&mut self) -> &mut dyn Sink {
                match self {
                    Self::File(spec) => spec,
                    Self::Directory(spec) => &mut **spec,
                    $(Self::$variant(spec) => &mut **spec,)*
                    Self::KubernetesSecret(spec) => &mut **spec,
                    Self::Command(spec) => &mut **spec,
                }
            }
        }
    };
}
kinds!(sink_spec);

macro_rules! store_spec {
    ($($(#[$doc:meta])* $field:ident, $kind:literal of $system:literal: $spec:ty;)*) => {
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

        /// What `rbac --for` calls the system that each of them belongs to; several may belong to one.
        pub const SYSTEMS: &[&str] = &[$($system,)*];

        impl StoreSpec {
            /// The one kind that it is, and its settings.
            pub fn kind_of(&self) -> Option<(&'static str, &dyn Store)> {
                $(if let Some(spec) = &self.$field {
                    return Some(($kind, spec));
                })*
                None
            }

            /// The system whose rights its login has.
            pub fn system(&self) -> Option<&'static str> {
                $(if self.$field.is_some() {
                    return Some($system);
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
