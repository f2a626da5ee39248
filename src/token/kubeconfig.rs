//! A kubeconfig with a token in it: written whole, merged into one that somebody else keeps, and read back.

mod edit;
mod tree;

use base64::Engine;
use zeroize::Zeroizing;

use tree::{Node, Value};

/// One cluster, context and user: what one token needs of a kubeconfig.
#[derive(Clone)]
pub struct Entries {
    /// Name of the cluster's entry.
    pub cluster: String,
    /// URL of the API server.
    pub server: String,
    /// Its CA certificates, PEM; those of the reader's host when absent.
    pub ca: Option<Vec<u8>>,
    /// Namespace of the context.
    pub namespace: String,
    /// Name of the user's entry.
    pub user: String,
    /// Name of the context's entry.
    pub context: String,
    /// The token.
    pub token: Zeroizing<String>,
}

/// The file cannot be merged into. Says where and why, never quotes: a kubeconfig holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unmergeable(String);

/// One entry of one of the lists: `name` beside the settings under `inner`.
struct Entry<'e> {
    list: &'static str,
    name: &'e str,
    inner: &'static str,
    fields: Vec<(&'static str, &'e str)>,
}

impl Entries {
    /// A kubeconfig with nothing else in it.
    pub fn whole(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(16 << 10));
        text.push_str("apiVersion: v1\nkind: Config\n");
        let ca = self.ca();
        for entry in self.entries(ca.as_deref()) {
            text.push_str(entry.list);
            text.push_str(":\n");
            text.push_str(&entry.block("", "\n"));
        }
        text.push_str("current-context: ");
        text.push_str(&quoted(&self.context));
        text.push('\n');
        text
    }

    /// What these bytes become: our entries set, everything else as it stands, byte for byte.
    ///
    /// # Errors
    /// [`Unmergeable`] where it is no kubeconfig that can be changed without touching more.
    pub fn merged(&self, held: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unmergeable> {
        let text = std::str::from_utf8(held).map_err(|_| Unmergeable("it is no UTF-8 text".into()))?;
        let ca = self.ca();
        edit::merged(text, &self.entries(ca.as_deref()), &self.context, &self.whole()).map(|text| Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn ca(&self) -> Option<String> {
        self.ca.as_ref().map(|pem| base64::engine::general_purpose::STANDARD.encode(pem))
    }

    fn entries<'e>(&'e self, ca: Option<&'e str>) -> [Entry<'e>; 3] {
        let mut cluster = vec![("server", self.server.as_str())];
        cluster.extend(ca.map(|ca| ("certificate-authority-data", ca)));
        [
            Entry { list: "clusters", name: &self.cluster, inner: "cluster", fields: cluster },
            Entry {
                list: "contexts",
                name: &self.context,
                inner: "context",
                fields: vec![("cluster", &self.cluster), ("namespace", &self.namespace), ("user", &self.user)],
            },
            Entry { list: "users", name: &self.user, inner: "user", fields: vec![("token", &self.token)] },
        ]
    }
}

impl Entry<'_> {
    /// As an element of a list in block style.
    fn block(&self, indent: &str, newline: &str) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(8 << 10));
        for part in [indent, "- name: ", &quoted(self.name), newline, indent, "  ", self.inner, ":", newline] {
            text.push_str(part);
        }
        for (key, value) in &self.fields {
            for part in [indent, "    ", key, ": ", &quoted(value), newline] {
                text.push_str(part);
            }
        }
        text
    }

    /// As an element of a list in flow style, which is JSON.
    fn flow(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(8 << 10));
        for part in ["{\"name\": ", &quoted(self.name), ", \"", self.inner, "\": "] {
            text.push_str(part);
        }
        text.push_str(&flow(&self.fields));
        text.push('}');
        text
    }
}

/// Fields in flow style.
fn flow(fields: &[(&'static str, &str)]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(8 << 10));
    for (index, (key, value)) in fields.iter().enumerate() {
        for part in [if index == 0 { "{\"" } else { ", \"" }, key, "\": ", &quoted(value)] {
            text.push_str(part);
        }
    }
    text.push('}');
    text
}

/// A JSON text is a double-quoted scalar of YAML 1.2 (§7.3.1) too.
fn quoted(text: &str) -> Zeroizing<String> {
    Zeroizing::new(serde_json::Value::from(text).to_string())
}

/// Every user's token in a kubeconfig, that of the current context first; none where it is no kubeconfig.
pub fn tokens(text: &str) -> Vec<Zeroizing<String>> {
    let Ok(root) = tree::parse(text) else { return Vec::new() };
    let named = |list: &str, name: &str| -> Option<Node> {
        let elements = root.get(list)?.elements();
        elements.iter().find(|element| element.get("name").and_then(Node::text) == Some(name)).cloned()
    };
    let current = root.get("current-context").and_then(Node::text).and_then(|name| named("contexts", name));
    let user = current.as_ref().and_then(|context| context.get("context")?.get("user")?.text());
    let mut first = Vec::new();
    let mut rest = Vec::new();
    for element in root.get("users").map(Node::elements).unwrap_or_default() {
        let Some(token) = element.get("user").and_then(|user| user.get("token")).and_then(Node::text) else { continue };
        let is_current = user.is_some() && element.get("name").and_then(Node::text) == user;
        if is_current { &mut first } else { &mut rest }.push(Zeroizing::new(token.to_owned()));
    }
    first.append(&mut rest);
    first
}

/// Whether the value is a map or list that holds nothing, or nothing itself.
fn is_blank(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar(_) => false,
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests;
