//! The formats that say more than the token: where the API server or a registry is, whose the token is.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use super::{ArgoCdFormat, DockerFormat, FilePart, KubeconfigFormat, Surroundings, Unrenderable, render, time};
use crate::token::kubeconfig::Entries;
use crate::token::payload::{Dress, Part};
use crate::token::template::{self, Names};
use crate::token::{Claims, Payload, Token};

/// As OpenShift's registry calls whoever comes with a token of a ServiceAccount.
const BEARER: &str = "serviceaccount";

/// A token with all that is known of it.
pub(super) struct Given<'a> {
    pub token: &'a Token,
    pub claims: &'a Claims,
    pub surroundings: &'a Surroundings,
}

impl Given<'_> {
    fn server(&self) -> Result<&str, Unrenderable> {
        let missing = || Unrenderable(format!("the address of the cluster `{}` is not known", self.surroundings.cluster));
        self.surroundings.server.as_deref().ok_or_else(missing)
    }

    pub fn kubeconfig(&self, settings: &KubeconfigFormat) -> Result<Payload, Unrenderable> {
        let user = settings.user.as_ref().unwrap_or(&self.surroundings.target);
        let entries = Entries {
            cluster: self.surroundings.cluster.clone(),
            server: self.server()?.to_owned(),
            ca: self.surroundings.ca.clone(),
            namespace: settings.namespace.as_ref().unwrap_or(&self.surroundings.namespace).clone(),
            user: user.clone(),
            context: user.clone(),
            token: Zeroizing::new(self.token.expose().to_owned()),
        };
        Ok(if settings.merge { Payload::merging(entries) } else { Payload::new(entries.whole().as_bytes().to_vec()) })
    }

    /// A Secret of the type `kubernetes.io/dockerconfigjson`; the file of docker's own the same.
    pub fn docker(&self, settings: &DockerFormat) -> Result<Payload, Unrenderable> {
        let username = settings.username.as_deref().unwrap_or(BEARER);
        let token = self.token.expose();
        let auth = Zeroizing::new(STANDARD.encode(Zeroizing::new(format!("{username}:{token}")).as_bytes()));
        let registries: Vec<&str> = match &settings.registry {
            Some(registry) => vec![registry],
            None => self.claims.aud.iter().filter_map(|audience| registry(audience)).collect(),
        };
        if registries.is_empty() {
            return Err(Unrenderable("no audience of the token names a registry: write `dockerConfigJson: {registry: …}`".into()));
        }
        let login = json!({"username": username, "password": token, "auth": *auth});
        let auths: BTreeMap<&str, _> = registries.into_iter().map(|registry| (registry, &login)).collect();
        let part = Part::new(".dockerconfigjson", json!({"auths": auths}).to_string().into_bytes());
        Ok(Payload::of(vec![part], Dress { kind: Some("kubernetes.io/dockerconfigjson"), labels: &[] }))
    }

    /// A Secret as Argo CD declares its clusters.
    pub fn argo_cd(&self, settings: &ArgoCdFormat) -> Result<Payload, Unrenderable> {
        let ca = self.surroundings.ca.as_ref().map(|pem| STANDARD.encode(pem));
        let config = json!({"bearerToken": self.token.expose(), "tlsClientConfig": {"insecure": false, "caData": ca}});
        let text = |name: &str, text: &str| Part::new(name, text.as_bytes().to_vec());
        let mut parts = vec![
            text("config", &Zeroizing::new(config.to_string())),
            text("name", settings.name.as_ref().unwrap_or(&self.surroundings.cluster)),
            text("server", self.server()?),
        ];
        parts.extend(settings.project.iter().map(|project| text("project", project)));
        if !settings.namespaces.is_empty() {
            parts.push(text("namespaces", &settings.namespaces.join(",")));
        }
        Ok(Payload::of(parts, Dress { kind: None, labels: &[("argocd.argoproj.io/secret-type", "cluster")] }))
    }

    pub fn template(&self, text: &str) -> Result<Payload, Unrenderable> {
        let shown = |seconds: Option<i64>| seconds.and_then(time).map(|time| time.to_string()).unwrap_or_default();
        let names = Names {
            token: self.token.expose(),
            expires_at: shown(self.claims.exp),
            issued_at: shown(self.claims.iat),
            target: &self.surroundings.target,
            cluster: &self.surroundings.cluster,
            namespace: &self.surroundings.namespace,
            service_account: &self.surroundings.service_account,
            audiences: &self.claims.aud,
            server: self.surroundings.server.as_deref().unwrap_or_default(),
            ca: std::str::from_utf8(self.surroundings.ca.as_deref().unwrap_or_default()).unwrap_or_default(),
        };
        template::render(text, &names).map(|bytes| Payload::new(bytes.to_vec())).map_err(Unrenderable)
    }

    pub fn files(&self, files: &BTreeMap<String, FilePart>) -> Result<Payload, Unrenderable> {
        let no_ca = || {
            Unrenderable(format!("the kubeconfig of the cluster `{}` names no CA, so there is none to write", self.surroundings.cluster))
        };
        let mut parts = Vec::new();
        for (name, part) in files {
            let bytes = match part {
                FilePart::Token(format) => render(self.token, self.claims, format, self.surroundings)?.expose().to_vec(),
                FilePart::Ca => self.surroundings.ca.clone().ok_or_else(no_ca)?,
                FilePart::Namespace => self.surroundings.namespace.clone().into_bytes(),
            };
            parts.push(Part::new(name, bytes));
        }
        Ok(Payload::of(parts, Dress::default()))
    }
}

/// The host of a registry that an audience names: with a dot or a port, so that it can be one.
pub fn registry(audience: &str) -> Option<&str> {
    let rest = audience.strip_prefix("https://").unwrap_or(audience);
    let host = rest.split('/').next().unwrap_or_default();
    (host.contains(['.', ':']) && !host.contains(char::is_whitespace)).then_some(host)
}
