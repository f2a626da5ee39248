//! What a client is told, and what is said where there can be none.

use super::chain;

/// Certificates as a kubeconfig holds them.
pub(super) fn pem(ders: &[Vec<u8>]) -> Vec<u8> {
    use base64::Engine;
    let mut text = String::new();
    for der in ders {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        for line in body.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap_or_default());
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

/// Whether a `NO_PROXY` list names the host: as itself, as the end of its name, or with `*`.
pub(super) fn spared(list: &str, host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    list.split(',')
        .map(|entry| entry.trim().trim_start_matches('.'))
        .filter(|e| !e.is_empty())
        .any(|entry| entry == "*" || host == entry || host.strip_suffix(entry).is_some_and(|front| front.ends_with('.')))
}

/// What a kubeconfig error may say: kube's own texts, which name keys and files but quote no secret.
pub(super) fn reading(error: &kube::config::KubeconfigError) -> String {
    use kube::config::KubeconfigError as E;
    match error {
        E::ReadConfig(io, _) => io.to_string(),
        E::Parse(_) => "it is no kubeconfig that can be read (its YAML is broken)".into(),
        other => chain(other),
    }
}

/// Why no client can be made, with the way out where it is known.
pub(super) fn explain(source: &str, error: &kube::Error) -> String {
    let text = chain(error);
    let hint = if text.contains("UnsupportedCertVersion") {
        "; its client certificate is X.509 version 1, which rustls refuses: have it issued as version 3"
    } else if text.contains("o CA certificates") || text.contains("no valid") {
        "; name the cluster's CA in the kubeconfig (certificate-authority-data)"
    } else {
        ""
    };
    format!("{source}: {text}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        assert!(spared("localhost, .example.com", Some("api.example.com")));
        assert!(spared("api.example.com", Some("api.example.com")));
        assert!(spared("*", Some("x")));
        assert!(!spared("example.com", Some("badexample.com")));
        assert!(!spared("", Some("x")));
    }
}
