//! What a place in Vault and its store say of themselves.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::{LARGEST, VaultAuth, VaultSpec, VaultStore, VaultStoreSpec};
use crate::cluster::Upstream;
use crate::sink::flaw::{Flaw, address, shown, store_path, word};
use crate::sink::kinds::{Ask, Login, Right, Sink, Store, Trace, calls};

impl Sink for VaultSpec {
    fn name(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    fn store(&self) -> Option<&str> {
        Some(&self.store)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let rules = [("mount", store_path(&self.mount)), ("path", store_path(&self.path)), ("key", word(&self.key))];
        let found = rules.into_iter().filter_map(|(key, found)| Flaw::of(&[key], found));
        found.chain(Flaw::of_kept(self.keep_versions, u32::MAX, "")).collect()
    }

    fn limit(&self) -> Option<(&'static str, u64)> {
        Some(("Vault", LARGEST as u64))
    }

    /// The login's paths with capabilities, for KV engines of that version. Other fields are read and kept, so `read`
    /// is needed beside the writing; the custom metadata of version 2 says that the secret is ours.
    fn rights(&self, ask: &Ask<'_>) -> Vec<Right> {
        let writes: &[&'static str] = &["create", "read", "update"];
        let deletes: &[&'static str] = if ask.leaves { &["create", "delete", "read", "update"] } else { writes };
        let right = |resource: String, actions: &[&'static str]| Right { resource, actions: actions.to_vec() };
        if ask.engine == 1 {
            return vec![right(self.name(), deletes)];
        }
        let mut rights = vec![right(format!("{}/data/{}", self.mount, self.path), writes), right(self.metadata_path(), deletes)];
        if self.keep_versions.is_some() {
            rights.push(right(format!("{}/destroy/{}", self.mount, self.path), &["update"]));
        }
        rights
    }

    calls!(super);
}

impl Trace for VaultSpec {
    fn trace(&self) -> Option<Self> {
        Some(Self { keep_versions: None, adopt: false, ..self.clone() })
    }
}

impl Store for VaultStoreSpec {
    fn identity(&self) -> String {
        format!("{} {}", self.address, self.namespace.as_deref().unwrap_or(""))
    }

    fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        match address(&self.address, "https://vault.example.com:8200") {
            Ok((scheme, _)) if scheme == "https" => {}
            Ok((scheme, true)) if scheme == "http" => {}
            Ok((scheme, false)) if scheme == "http" => {
                flaws.push(Flaw::warning(&["address"], "http sends logins and tokens in the clear over the network: write https://"));
            }
            Ok((scheme, _)) => {
                flaws.push(Flaw::new(&["address"], format!("{} is no way to Vault: write https://HOST:PORT", shown(&scheme))));
            }
            Err(message) => flaws.push(Flaw::new(&["address"], message)),
        }
        if let Some(namespace) = &self.namespace {
            flaws.extend(Flaw::of(&["namespace"], store_path(namespace.trim_end_matches('/'))));
        }
        let (mount, role) = match &self.auth {
            VaultAuth::Token(_) => return flaws,
            VaultAuth::AppRole(auth) => (&auth.mount, ("roleId", &auth.role_id)),
            VaultAuth::Kubernetes(auth) | VaultAuth::Jwt(auth) => (&auth.mount, ("role", &auth.role)),
        };
        let way = self.auth.kind();
        if let Some(mount) = mount {
            flaws.extend(Flaw::of(&["auth", way, "mount"], store_path(mount)));
        }
        flaws.extend(Flaw::of(&["auth", way, role.0], word(role.1)));
        flaws
    }

    fn files(&mut self) -> Vec<(Vec<&'static str>, &mut PathBuf)> {
        let mut files: Vec<(Vec<&'static str>, &mut PathBuf)> = self.ca_file.iter_mut().map(|file| (vec!["caFile"], file)).collect();
        match &mut self.auth {
            VaultAuth::Token(auth) => files.push((vec!["auth", "token", "file"], &mut auth.file)),
            VaultAuth::AppRole(auth) => files.push((vec!["auth", "appRole", "secretIdFile"], &mut auth.secret_id_file)),
            VaultAuth::Kubernetes(_) | VaultAuth::Jwt(_) => {}
        }
        files
    }

    fn login(&self) -> Option<Login<'_>> {
        let (VaultAuth::Kubernetes(auth) | VaultAuth::Jwt(auth)) = &self.auth else { return None };
        Some(Login { key: vec!["auth", self.auth.kind()], target: auth.target.as_deref(), file: &auth.token_file })
    }

    fn login_file(&mut self) -> Option<&mut PathBuf> {
        let (VaultAuth::Kubernetes(auth) | VaultAuth::Jwt(auth)) = &mut self.auth else { return None };
        Some(&mut auth.token_file)
    }

    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync> {
        Arc::new(VaultStore::new(name, self.clone(), upstream))
    }

    /// A policy in HCL.
    fn policy(&self, rights: Vec<Right>, _account: Option<&str>) -> String {
        let mut paths: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for right in rights {
            paths.entry(right.resource).or_default().extend(right.actions);
        }
        let mut text = String::new();
        for (path, capabilities) in paths {
            let capabilities: Vec<String> = capabilities.iter().map(|c| format!("\"{c}\"")).collect();
            // Writing to a String does not fail.
            let _ = writeln!(text, "path {} {{\n  capabilities = [{}]\n}}", serde_json::Value::from(path), capabilities.join(", "));
        }
        text
    }
}

impl VaultAuth {
    /// The key that names it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::AppRole(_) => "appRole",
            Self::Kubernetes(_) => "kubernetes",
            Self::Jwt(_) => "jwt",
        }
    }
}
