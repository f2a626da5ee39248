//! What a secret of Azure's and its store say of themselves.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;

use super::earlier::MOST;
use super::secret::Place;
use super::{AzureAuth, AzureSpec, AzureStore, AzureStoreSpec, LARGEST, of};
use crate::cluster::Upstream;
use crate::sink::flaw::{Flaw, address, shown, word};
use crate::sink::kinds::{Ask, Login, Right, Sink, Store, Trace};
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores};
use crate::token::Payload;

/// What a vault's address should look like.
const EXAMPLE: &str = "https://tokens.vault.azure.net";

impl Sink for AzureSpec {
    /// Key Vault makes no difference between great and small letters.
    fn name(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    fn store(&self) -> Option<&str> {
        Some(&self.store)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let name = &self.name;
        let good = (1..=127).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let why = || format!("{} is no name of a secret: write at most 127 letters, digits and -", shown(name));
        let found = (!good).then(|| Flaw::new(&["name"], why()));
        // Together with the newest.
        let most = MOST as u32 + 1;
        found.into_iter().chain(Flaw::of_kept(self.keep_versions, most, "a secret's tags have room for")).collect()
    }

    fn limit(&self) -> Option<(&'static str, u64)> {
        Some(("Azure Key Vault", LARGEST as u64))
    }

    fn untried(&self) -> Option<&'static str> {
        Some("a server of the tests that holds requests to the documented API")
    }

    fn rights(&self, ask: &Ask<'_>) -> Vec<Right> {
        if ask.store.azure_key_vault.is_none() {
            return Vec::new();
        }
        let mut actions = vec![
            "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
            "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            "Microsoft.KeyVault/vaults/secrets/update/action",
        ];
        if ask.leaves {
            actions.push("Microsoft.KeyVault/vaults/secrets/delete");
        }
        vec![Right { resource: self.name.clone(), actions }]
    }

    fn put<'a>(&'a self, payload: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<Put, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            let text = std::str::from_utf8(payload.expose()).map_err(|_| {
                let what = format!("`{}` takes text and the payload is not UTF-8: choose another `format`", self.name);
                store.failure(FailureKind::Refused, what)
            })?;
            if text.len() > LARGEST {
                let why = format!("`{}` would have {} bytes, and Azure Key Vault holds {LARGEST} at most", self.name, text.len());
                return Err(store.failure(FailureKind::TooLarge, why));
            }
            let context = &context;
            store.attempt(context.timeout, |wire| async move { Place { wire, spec: self }.set(text, context).await }).await
        })
    }

    fn probe<'a>(&'a self, _: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move {
            let (store, context) = (of(self, stores)?, &context);
            store.attempt(context.timeout, |wire| async move { Place { wire, spec: self }.probe(context).await }).await
        })
    }

    fn held<'a>(&'a self, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Option<Payload>, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            let found = store.attempt(timeout, |wire| async move { Place { wire, spec: self }.read().await }).await?;
            Ok(found.and_then(|current| current.text).map(|text| Payload::new(text.as_bytes().to_vec())))
        })
    }

    fn remove<'a>(&'a self, ours: Ours<'a>, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Removal, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            store.attempt(timeout, |wire| async move { Place { wire, spec: self }.remove(ours).await }).await
        })
    }
}

impl Trace for AzureSpec {
    fn trace(&self) -> Option<Self> {
        Some(Self { keep_versions: None, adopt: false, ..self.clone() })
    }
}

impl AzureStoreSpec {
    /// The vault's name and the domain of its cloud: `tokens` and `vault.azure.net`.
    fn parts(&self) -> Option<(&str, &str)> {
        let host = self.address.strip_prefix("https://")?.split(':').next()?;
        host.split_once('.').filter(|(_, domain)| domain.contains('.') && host.parse::<std::net::IpAddr>().is_err())
    }

    /// For which service the login is.
    pub(super) fn resource(&self) -> String {
        let own = || format!("https://{}", self.parts().map(|(_, domain)| domain).unwrap_or_default().to_ascii_lowercase());
        self.resource.clone().unwrap_or_else(own)
    }

    /// Where we log in.
    pub(super) fn authority(&self) -> String {
        let cloud = self.parts().map(|(_, domain)| domain.to_ascii_lowercase());
        let own = match cloud.as_deref() {
            Some("vault.azure.cn") => "https://login.chinacloudapi.cn",
            Some("vault.usgovcloudapi.net") => "https://login.microsoftonline.us",
            _ => "https://login.microsoftonline.com",
        };
        self.authority.clone().unwrap_or_else(|| own.to_owned())
    }
}

/// What is wrong with an address: nothing of ours goes anywhere without TLS.
fn wrong(key: &'static str, text: &str, example: &str) -> Option<Flaw> {
    match address(text, example) {
        Ok((scheme, _)) if scheme == "https" => None,
        Ok(_) => Some(Flaw::new(&[key], format!("logins and tokens go there over TLS alone: write such as {example}"))),
        Err(message) => Some(Flaw::new(&[key], message)),
    }
}

/// What is wrong with the ids of a login.
fn unnamed(way: &'static str, tenant: &str, client: &str) -> Vec<Flaw> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let mut flaws = Vec::new();
    if tenant.is_empty() || !tenant.bytes().all(known) {
        let why = format!("{} is no tenant: write its id, or its domain", shown(tenant));
        flaws.push(Flaw::new(&["auth", way, "tenantId"], why));
    }
    flaws.extend(Flaw::of(&["auth", way, "clientId"], word(client)));
    flaws
}

impl Store for AzureStoreSpec {
    fn identity(&self) -> String {
        self.address.to_ascii_lowercase()
    }

    fn flaws(&self) -> Vec<Flaw> {
        let mut flaws: Vec<Flaw> = wrong("address", &self.address, EXAMPLE).into_iter().collect();
        if flaws.is_empty() && self.resource.is_none() && self.parts().is_none() {
            let why = "it does not tell for which service the login is: write `resource` too, such as https://vault.azure.net";
            flaws.push(Flaw::new(&["address"], why));
        }
        flaws.extend(self.authority.as_deref().and_then(|text| wrong("authority", text, "https://login.microsoftonline.com")));
        flaws.extend(self.resource.as_deref().and_then(|text| wrong("resource", text, "https://vault.azure.net")));
        match &self.auth {
            AzureAuth::WorkloadIdentity(auth) => flaws.extend(unnamed("workloadIdentity", &auth.tenant_id, &auth.client_id)),
            AzureAuth::ClientSecret(auth) => flaws.extend(unnamed("clientSecret", &auth.tenant_id, &auth.client_id)),
            AzureAuth::ManagedIdentity(auth) => {
                let client = auth.client_id.as_deref();
                flaws.extend(client.and_then(|client| Flaw::of(&["auth", "managedIdentity", "clientId"], word(client))));
            }
        }
        flaws
    }

    fn files(&mut self) -> Vec<(Vec<&'static str>, &mut PathBuf)> {
        let mut files: Vec<(Vec<&'static str>, &mut PathBuf)> = self.ca_file.iter_mut().map(|file| (vec!["caFile"], file)).collect();
        if let AzureAuth::ClientSecret(auth) = &mut self.auth {
            files.push((vec!["auth", "clientSecret", "secretFile"], &mut auth.secret_file));
        }
        files
    }

    fn login(&self) -> Option<Login<'_>> {
        let AzureAuth::WorkloadIdentity(auth) = &self.auth else { return None };
        Some(Login { key: vec!["auth", "workloadIdentity"], target: auth.target.as_deref(), file: &auth.token_file })
    }

    fn login_file(&mut self) -> Option<&mut PathBuf> {
        let AzureAuth::WorkloadIdentity(auth) = &mut self.auth else { return None };
        Some(&mut auth.token_file)
    }

    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync> {
        Arc::new(AzureStore::new(name, self.clone(), upstream))
    }

    /// Custom roles, and the commands that assign each on its secrets alone, as `az` takes them.
    fn policy(&self, rights: Vec<Right>, account: Option<&str>) -> String {
        let vault = self.parts().map_or("VAULT", |(name, _)| name);
        let subscription = account.unwrap_or("$SUBSCRIPTION");
        let mut text = "# ASSIGNEE: the object id of the login".to_owned();
        text.push_str(if account.is_none() { "; SUBSCRIPTION: the subscription's id, or say it with --account\n" } else { "\n" });
        let _ = writeln!(text, "VAULT=$(az keyvault show --subscription \"{subscription}\" --name {vault} --query id --output tsv)");
        let kinds: BTreeSet<&Vec<&str>> = rights.iter().map(|right| &right.actions).collect();
        for actions in kinds {
            let role = if actions.iter().any(|action| action.ends_with("/delete")) { "tokenferry delete" } else { "tokenferry" };
            let scope = format!("/subscriptions/{subscription}");
            let definition =
                json!({"Name": role, "Description": "Keeps tokens in secrets fresh", "DataActions": actions, "AssignableScopes": [scope]});
            // Writing to a String does not fail. Double quotes, so that the shell knows the subscription.
            let quoted = definition.to_string().replace('"', "\\\"");
            let _ = writeln!(text, "az role definition create --role-definition \"{quoted}\"");
            let secrets: BTreeSet<&String> = rights.iter().filter(|right| right.actions == *actions).map(|right| &right.resource).collect();
            for secret in secrets {
                let assign = "az role assignment create --assignee-object-id \"$ASSIGNEE\" --assignee-principal-type ServicePrincipal";
                let _ = writeln!(text, "{assign} --role \"{role}\" --scope \"$VAULT/secrets/{secret}\"");
            }
        }
        text
    }
}
