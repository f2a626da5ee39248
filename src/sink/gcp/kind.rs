//! What a secret of Google's and its store say of themselves.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::secret::Place;
use super::{GcpSpec, GcpStore, GcpStoreSpec, LARGEST, of};
use crate::cluster::Upstream;
use crate::sink::flaw::{Flaw, address, server, shown};
use crate::sink::kinds::{Ask, Login, Right, Sink, Store, Trace};
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores};
use crate::token::Payload;

impl Sink for GcpSpec {
    fn name(&self) -> String {
        self.secret_id.clone()
    }

    fn store(&self) -> Option<&str> {
        Some(&self.store)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let id = &self.secret_id;
        let good = (1..=255).contains(&id.len()) && id.bytes().all(known);
        let why = || format!("{} is no name of a secret: write at most 255 letters, digits, - and _, without the project", shown(id));
        let found = (!good).then(|| Flaw::new(&["secretId"], why()));
        found.into_iter().chain(Flaw::of_kept(self.keep_versions, u32::MAX, "")).collect()
    }

    fn limit(&self) -> Option<(&'static str, u64)> {
        Some(("Google Secret Manager", LARGEST as u64))
    }

    fn untried(&self) -> Option<&'static str> {
        Some("a server of the tests that reads Google's own messages")
    }

    fn rights(&self, ask: &Ask<'_>) -> Vec<Right> {
        let Some(store) = &ask.store.gcp_secret_manager else { return Vec::new() };
        let mut actions = vec![
            "secretmanager.secrets.get",
            "secretmanager.secrets.update",
            "secretmanager.versions.access",
            "secretmanager.versions.add",
            "secretmanager.versions.list",
            "secretmanager.versions.disable",
            "secretmanager.versions.destroy",
        ];
        if ask.leaves {
            actions.push("secretmanager.secrets.delete");
        }
        let project = format!("projects/{}", store.project);
        // Conditions know a project by its number alone.
        let secret = format!("projects/{}/secrets/{}", ask.account.unwrap_or("PROJECT_NUMBER"), self.secret_id);
        vec![Right { resource: project, actions: vec!["secretmanager.secrets.create"] }, Right { resource: secret, actions }]
    }

    fn put<'a>(&'a self, payload: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<Put, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            let bytes = payload.expose();
            if bytes.len() > LARGEST {
                let why = format!("`{}` would have {} bytes, and Secret Manager holds {LARGEST} at most", self.secret_id, bytes.len());
                return Err(store.failure(FailureKind::TooLarge, why));
            }
            let attempt = |client| async move { store.place(client, self).set(bytes, &context).await };
            store.attempt(context.timeout, attempt).await
        })
    }

    fn probe<'a>(&'a self, _: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            store.attempt(context.timeout, |client| async move { store.place(client, self).probe(&context).await }).await
        })
    }

    fn held<'a>(&'a self, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Option<Payload>, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            let found = store.attempt(timeout, |client| async move { store.place(client, self).read().await }).await?;
            Ok(found.text.map(|text| Payload::new(text.to_vec())))
        })
    }

    fn remove<'a>(&'a self, ours: Ours<'a>, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Removal, Failure>> {
        Box::pin(async move {
            let store = of(self, stores)?;
            store.attempt(timeout, |client| async move { store.place(client, self).remove(ours).await }).await
        })
    }
}

impl Trace for GcpSpec {
    fn trace(&self) -> Option<Self> {
        Some(Self { keep_versions: None, adopt: false, ..self.clone() })
    }
}

impl GcpStore {
    fn place<'a>(&'a self, client: google_cloud_secretmanager_v1::client::SecretManagerService, spec: &'a GcpSpec) -> Place<'a> {
        Place { client, spec, store: &self.spec, name: self.whole(spec) }
    }
}

impl GcpStoreSpec {
    /// What is wrong with `workloadIdentity`.
    fn federation_flaws(&self) -> Vec<Flaw> {
        const EXAMPLE: &str = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/POOL/providers/PROVIDER";
        const TOKEN_URL: &str = "https://sts.googleapis.com/v1/token";
        let Some(identity) = &self.workload_identity else { return Vec::new() };
        let at = |key, message: String| Flaw::new(&["workloadIdentity", key], message);
        let mut flaws = Vec::new();
        if self.credentials_file.is_some() {
            flaws.push(Flaw::new(&["workloadIdentity"], "credentialsFile and workloadIdentity exclude each other: keep one"));
        }
        if !identity.audience.starts_with("//iam.googleapis.com/projects/") || !identity.audience.contains("/providers/") {
            flaws.push(at(
                "audience",
                format!("{} is no provider of a workload identity pool: write such as {EXAMPLE}", shown(&identity.audience)),
            ));
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.@_".contains(&b));
        if let Some(account) = identity.service_account.as_deref().filter(|account| !account.contains('@') || !plain(account)) {
            let why = format!("{} is no service account: write its address, such as ci@tokens-1.iam.gserviceaccount.com", shown(account));
            flaws.push(at("serviceAccount", why));
        }
        let found = identity.token_url.as_deref().map(|text| match text.parse::<http::Uri>() {
            Ok(uri) => server(&uri, text, TOKEN_URL),
            Err(_) => Err(format!("{} is no address: write such as {TOKEN_URL}", shown(text))),
        });
        match found {
            Some(Ok((scheme, here))) if scheme == "https" || scheme == "http" && here => {}
            Some(Ok(_)) => flaws.push(at("tokenUrl", format!("the token goes there over TLS alone: write such as {TOKEN_URL}"))),
            Some(Err(message)) => flaws.push(at("tokenUrl", message)),
            None => {}
        }
        flaws
    }
}

impl Store for GcpStoreSpec {
    fn identity(&self) -> String {
        format!("{} {:?}", self.project, self.endpoint)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b);
        let mut flaws = Vec::new();
        if self.project.is_empty() || self.project.len() > 63 || !self.project.bytes().all(known) {
            let why = format!("{} is no project: write its id, such as tokens-123456", shown(&self.project));
            flaws.push(Flaw::new(&["project"], why));
        }
        let place = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if let Some(wrong) = self.locations.iter().find(|location| location.is_empty() || !location.bytes().all(place)) {
            flaws.push(Flaw::new(&["locations"], format!("{} is no location: write such as europe-west3", shown(wrong))));
        }
        match self.endpoint.as_deref().map(|text| address(text.trim_end_matches('/'), "https://secretmanager.googleapis.com")) {
            Some(Ok((scheme, here))) if scheme == "https" || scheme == "http" && here => {}
            Some(Ok(_)) => flaws.push(Flaw::new(&["endpoint"], "tokens go there over TLS alone: write https://HOST:PORT")),
            Some(Err(message)) => flaws.push(Flaw::new(&["endpoint"], message)),
            None => {}
        }
        flaws.extend(self.federation_flaws());
        flaws
    }

    fn login(&self) -> Option<Login<'_>> {
        let identity = self.workload_identity.as_ref()?;
        Some(Login { key: vec!["workloadIdentity"], target: identity.target.as_deref(), file: &identity.token_file })
    }

    fn login_file(&mut self) -> Option<&mut PathBuf> {
        self.workload_identity.as_mut().map(|identity| &mut identity.token_file)
    }

    fn files(&mut self) -> Vec<(Vec<&'static str>, &mut PathBuf)> {
        self.credentials_file.iter_mut().map(|file| (vec!["credentialsFile"], file)).collect()
    }

    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync> {
        Arc::new(GcpStore::new(name, self.clone(), upstream))
    }

    /// Roles of the project's own, with the condition under which each is granted: as `gcloud` takes them.
    fn policy(&self, rights: Vec<Right>, _account: Option<&str>) -> String {
        let mut roles: BTreeMap<Vec<&'static str>, Vec<String>> = BTreeMap::new();
        for right in rights {
            let resources = roles.entry(right.actions).or_default();
            if !resources.contains(&right.resource) {
                resources.push(right.resource);
            }
        }
        let mut text = "# ACCOUNT: whom they are for; PROJECT_NUMBER: the number of the project, or say it with --account\n".to_owned();
        for (index, (actions, resources)) in roles.into_iter().enumerate() {
            let role = format!("tokenferry{}", index + 1);
            // Writing to a String does not fail.
            let _ = writeln!(text, "gcloud iam roles create {role} --project={} --permissions={}", self.project, actions.join(","));
            let grant = format!("--role=projects/{}/roles/{role} --member=\"serviceAccount:$ACCOUNT\"", self.project);
            for resource in resources {
                let _ = match resource.split_once("/secrets/") {
                    None => writeln!(text, "gcloud projects add-iam-policy-binding {} {grant} --condition=None", self.project),
                    Some((project, secret)) => writeln!(
                        text,
                        "gcloud projects add-iam-policy-binding {} {grant} --condition='title={secret},expression=resource.name.startsWith(\"{project}/secrets/{secret}/\") || resource.name == \"{project}/secrets/{secret}\"'",
                        self.project
                    ),
                };
            }
        }
        text
    }
}
