//! What can be seen to be wrong with a setting of a sink or a store, before anything is opened; and the rules that
//! several kinds share. Pure.

/// Something that is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The way to it from the settings' own top.
    pub key: Vec<&'static str>,
    /// Whether it would work all the same.
    pub is_warning: bool,
    /// What, and what to write instead.
    pub message: String,
}

impl Flaw {
    /// One with which nothing would work.
    pub fn new(key: &[&'static str], message: impl Into<String>) -> Self {
        Self { key: key.to_vec(), is_warning: false, message: message.into() }
    }

    /// One that is worth a word.
    pub fn warning(key: &[&'static str], message: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::new(key, message) }
    }

    /// What a rule found there.
    pub fn of(key: &[&'static str], found: Result<(), String>) -> Option<Self> {
        found.err().map(|message| Self::new(key, message))
    }

    /// What is wrong with `keepVersions`, where there is a reason for no more than `most`.
    pub fn of_kept(keep: Option<u32>, most: u32, reason: &str) -> Option<Self> {
        match keep {
            Some(0) => Some(Self::new(&["keepVersions"], "the newest version is always kept: write 1 or more")),
            Some(keep) if keep > most => Some(Self::new(&["keepVersions"], format!("{keep} are more than {reason}: write {most} or less"))),
            _ => None,
        }
    }
}

/// The text in backquotes for a message: cut where it is long, so that nothing pasted by mistake is repeated whole.
pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    short = short.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().nth(40).is_some() {
        short = short.chars().take(12).chain("…".chars()).collect();
    }
    format!("`{short}`")
}

/// `https://HOST[:PORT]` and nothing behind. Gives scheme and whether the host is this machine.
pub fn address(text: &str, example: &str) -> Result<(String, bool), String> {
    let bad = |why: &str| Err(format!("{} {why}: write such as {example}", shown(text)));
    let Ok(uri) = text.parse::<http::Uri>() else { return bad("is no address") };
    let found = server(&uri, text, example)?;
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") || text.ends_with('/') || text.contains('#') {
        return bad("has a path");
    }
    Ok(found)
}

/// Scheme and whether the host is this machine, of an address of any path.
pub fn server(uri: &http::Uri, text: &str, example: &str) -> Result<(String, bool), String> {
    let bad = |why: &str| Err(format!("{} {why}: write such as {example}", shown(text)));
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return bad("is no address") };
    if authority.as_str().contains('@') {
        return Err(format!("a user or password stands in the address: secrets are never written in a schedule; write such as {example}"));
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("");
    let usable = port.is_empty() || port.strip_prefix(':').and_then(|digits| digits.parse::<u16>().ok()).is_some_and(|port| port > 0);
    if authority.host().is_empty() || !usable {
        return bad("has no usable host and port");
    }
    let host = authority.host().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    Ok((scheme.to_owned(), here))
}

/// A path inside a store: `ci/deployer`.
pub fn store_path(text: &str) -> Result<(), String> {
    let why = if text.is_empty() {
        "is empty"
    } else if text.starts_with('/') {
        "begins with a slash"
    } else if text.ends_with('/') {
        "ends with a slash"
    } else if text.split('/').any(str::is_empty) {
        "has an empty part between two slashes"
    } else if text.split('/').any(|part| part == ".." || part == ".") {
        "has a `.` or `..` in it"
    } else if text.chars().any(char::is_control) {
        "has a control character in it"
    } else if text.trim() != text {
        "begins or ends with a space"
    } else {
        return Ok(());
    };
    Err(format!("{} {why}: write such as ci/deployer", shown(text)))
}

/// A word that has to be there: a role, a region, a field.
pub fn word(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it is empty: write one, or leave the key out".into());
    }
    if text.chars().any(char::is_control) {
        return Err("a control character stands in it: take it out".into());
    }
    Ok(())
}
