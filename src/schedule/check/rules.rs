//! What a single value has to look like: names, paths, addresses. Each says what to write instead.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::schedule::measure::shown;
pub use crate::sink::flaw::{address, word};

/// The one variable, for file references.
pub const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// A target's name: `[a-z0-9.-]`, at most 253 characters, letter or digit at both ends.
pub fn target_name(name: &str) -> Result<(), String> {
    if subdomain(name) {
        return Ok(());
    }
    Err(format!(
        "{} is no name of a target: write at most 253 of a-z, 0-9, - and ., beginning and ending with a letter or digit",
        shown(name)
    ))
}

/// Names of clusters and stores; a cluster's is also the name of a folder.
pub fn own_name(name: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.is_empty() && name.len() <= 63 && name.bytes().all(known) && !name.starts_with('.') {
        return Ok(());
    }
    Err(format!("{} is no name: write at most 63 letters, digits, -, _ and .", shown(name)))
}

/// `NAMESPACE/NAME` (RFC 1123: a label of at most 63, a subdomain of at most 253 characters).
pub fn service_account(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if subdomain(namespace) && namespace.len() <= 63 && !namespace.contains('.') && subdomain(name) => {
            Ok((namespace.into(), name.into()))
        }
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Err(format!("{} is no ServiceAccount: namespace and name have a-z, 0-9 and - (names also .)", shown(text)))
        }
        _ => Err(format!("{} names no ServiceAccount: write NAMESPACE/NAME, such as cicd/cicd-deployer", shown(text))),
    }
}

/// A namespace (RFC 1123: a label).
pub fn namespace(name: &str) -> Result<(), String> {
    if subdomain(name) && name.len() <= 63 && !name.contains('.') {
        return Ok(());
    }
    Err(format!("{} is no namespace: write at most 63 of a-z, 0-9 and -", shown(name)))
}

/// A DNS subdomain: what Kubernetes calls most things.
pub fn subdomain(name: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A file that we write: from the schedule's folder where it is relative.
pub fn written_path(base: &Path, path: &Path) -> Result<PathBuf, String> {
    let text = path.to_string_lossy();
    if text.contains("${") {
        return Err("variables stand for file references only, not here: write the path out".into());
    }
    if text.ends_with('/') {
        return Err(format!("{} names a folder: write the file's own path, without the slash at its end", shown(&text)));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!("{} leaves its folder with `..`: write the path out", shown(&text)));
    }
    readable_path(base, path)
}

/// Any path: from the schedule's folder where it is relative.
pub fn readable_path(base: &Path, path: &Path) -> Result<PathBuf, String> {
    let text = path.to_string_lossy();
    if text.is_empty() {
        return Err("the path is empty: write one, such as /run/tokenferry/ci/token".into());
    }
    if text.chars().any(char::is_control) {
        return Err("a control character stands in the path: take it out".into());
    }
    // `a//b` and `a/./b` are the same place as `a/b`
    let whole = base.join(path);
    let mut plain = PathBuf::with_capacity(whole.as_os_str().len());
    plain.extend(whole.components().filter(|part| *part != Component::CurDir));
    Ok(plain)
}

/// A file that we read: variables are filled in.
pub fn reference(base: &Path, path: &Path, variables: &BTreeMap<String, String>) -> Result<PathBuf, String> {
    let (mut text, mut rest) = (String::new(), &*path.to_string_lossy());
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("a `${` is never closed: write `${CREDENTIALS_DIRECTORY}`")?;
        if name != VARIABLE {
            return Err(format!("{} is no variable: only `${{CREDENTIALS_DIRECTORY}}` is known", shown(&format!("${{{name}}}"))));
        }
        let value = variables
            .get(name)
            .ok_or("`${CREDENTIALS_DIRECTORY}` has no value here: run it as a systemd unit with LoadCredential=, or write the path out")?;
        text.push_str(before);
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    readable_path(base, Path::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::flaw::store_path;
    use proptest::prelude::*;

    #[test]
    fn service_accounts_are_namespace_and_name() {
        assert_eq!(service_account("cicd/deploy.er").unwrap(), ("cicd".into(), "deploy.er".into()));
        for text in ["", "cicd", "cicd/", "/x", "a/b/c", "Cicd/x", "a.b/x", "a/-x", "a/x-", "a/x..y"] {
            assert!(service_account(text).is_err(), "{text}");
        }
    }

    #[test]
    fn relative_paths_count_from_their_file_and_are_made_plain() {
        let base = Path::new("/etc/tokenferry");
        assert_eq!(written_path(base, Path::new("out//./token")).unwrap(), Path::new("/etc/tokenferry/out/token"));
        assert_eq!(written_path(base, Path::new("/run/x")).unwrap(), Path::new("/run/x"));
    }

    #[test]
    fn the_one_variable_is_filled_in() {
        let variables = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), "/run/credentials/u".to_owned())]);
        let read = |text: &str, variables| reference(Path::new("/etc"), Path::new(text), variables);
        assert_eq!(read("${CREDENTIALS_DIRECTORY}/kubeconfig", &variables).unwrap(), Path::new("/run/credentials/u/kubeconfig"));
        assert!(read("${HOME}/x", &variables).unwrap_err().contains("only"));
        let none = BTreeMap::new();
        assert!(read("${CREDENTIALS_DIRECTORY}/x", &none).unwrap_err().contains("LoadCredential"));
        assert!(read("${CRED", &variables).is_err());
    }

    #[test]
    fn addresses_have_a_host_and_nothing_behind() {
        assert_eq!(address("https://vault:8200", "").unwrap(), ("https".into(), false));
        assert_eq!(address("http://127.0.0.1:8200", "").unwrap(), ("http".into(), true));
        assert_eq!(address("http://[::1]:8200", "").unwrap(), ("http".into(), true));
        for text in [
            "",
            "vault",
            "vault:8200",
            "https://",
            "https://h/",
            "https://h/v1",
            "https://h?x",
            "https://u:p@h",
            "https://h:0",
            "https://h:99999",
            "https://h:",
        ] {
            assert!(address(text, "x").is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_rules(text in "\\PC{0,30}") {
            let path = Path::new(&text);
            let _ = (service_account(&text), address(&text, ""), store_path(&text), target_name(&text), own_name(&text));
            if let Ok(whole) = written_path(Path::new("/etc"), path) {
                prop_assert!(whole.is_absolute());
                prop_assert!(!whole.components().any(|part| part == Component::ParentDir));
            }
        }
    }
}
