//! Which credential a kubeconfig gives us, and which files it comes from: the daemon's own token where it lives, else
//! what the chosen user names.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kube::config::{AuthInfo, ExecAuthCluster, Kubeconfig};
use secrecy::{ExposeSecret, SecretString};

use super::plugin;
use crate::token::Token;

/// Tells one content of a file from the next.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

/// The token in that file, while it lives by this host's clock.
pub(super) fn alive(file: &Path) -> Option<Token> {
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(file).ok()?);
    let token = Token::new(text.trim().to_owned());
    let ends = token.claims().ok()?.exp?;
    (ends > jiff::Timestamp::now().as_second()).then_some(token)
}

/// Which files the chosen user depends on. Its token file is read here and trimmed: kube would send
/// a trailing newline along and fail every request, and would notice a change up to a minute late. `own` is the file
/// of the credential that we keep fresh ourselves: while it lives it stands in for whatever the user has, and so does
/// `login`, a token that was got just now, after it.
pub(super) fn adopt_files(
    kubeconfig: &mut Kubeconfig,
    path: &Path,
    context: Option<&str>,
    own: Option<&Path>,
    login: Option<Token>,
) -> Result<Vec<PathBuf>, String> {
    let mut files = vec![path.to_owned()];
    let wanted = context.map(str::to_owned).or_else(|| kubeconfig.current_context.clone());
    let Some(wanted) = wanted else {
        return Err(format!("{}: it has no current-context; name one with `context`", path.display()));
    };
    let Some(found) = kubeconfig.contexts.iter().find(|c| c.name == wanted).and_then(|c| c.context.as_ref()) else {
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|c| c.name.as_str()).collect();
        return Err(format!("{}: it has no context `{wanted}`; it has: {}", path.display(), known.join(", ")));
    };
    let (user, cluster) = (found.user.clone(), found.cluster.clone());
    if let Some(cluster) = kubeconfig.clusters.iter().find(|c| c.name == cluster).and_then(|c| c.cluster.as_ref()) {
        files.extend(cluster.certificate_authority.iter().map(PathBuf::from));
    }
    let Some(named) = kubeconfig.auth_infos.iter_mut().find(|u| Some(&u.name) == user.as_ref()) else {
        let none = format!("{}: its context `{wanted}` names no user that it has", path.display());
        return if login.is_some() { Err(none) } else { Ok(files) };
    };
    let with = |token: &Token| Some(AuthInfo { token: Some(SecretString::from(token.expose().to_owned())), ..AuthInfo::default() });
    if let Some(own) = own {
        files.push(own.to_owned());
        if let Some(token) = alive(own) {
            named.auth_info = with(&token);
            return Ok(files);
        }
    }
    if let Some(token) = login {
        named.auth_info = with(&token);
        return Ok(files);
    }
    let Some(info) = named.auth_info.as_mut() else { return Ok(files) };
    files.extend(info.client_certificate.iter().chain(info.client_key.iter()).map(PathBuf::from));
    if info.token.as_ref().is_some_and(|t| t.expose_secret().trim().is_empty()) {
        info.token = None;
    }
    if info.token.is_none()
        && let Some(file) = info.token_file.take()
    {
        let file = path.parent().unwrap_or(Path::new("/")).join(file);
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: its tokenFile {}: {e}", path.display(), file.display()))?;
        let text = zeroize::Zeroizing::new(text);
        if text.trim().is_empty() {
            return Err(format!("{}: its tokenFile {} is empty", path.display(), file.display()));
        }
        info.token = Some(SecretString::from(text.trim().to_owned()));
        files.push(file);
    }
    Ok(files)
}

/// Runs the chosen user's credential plugin, where it has one, and puts what it gave in its place. When that ends, unix
/// seconds, where it says so.
///
/// # Errors
/// What became of the plugin.
pub(super) async fn plugged(kubeconfig: &mut Kubeconfig, path: &Path, context: Option<&str>) -> Result<Option<i64>, String> {
    let wanted = context.map(str::to_owned).or_else(|| kubeconfig.current_context.clone());
    let chosen = kubeconfig.contexts.iter().find(|c| Some(&c.name) == wanted.as_ref()).and_then(|c| c.context.as_ref());
    let Some((user, cluster)) = chosen.map(|context| (context.user.clone(), context.cluster.clone())) else { return Ok(None) };
    let cluster = kubeconfig.clusters.iter().find(|c| c.name == cluster).and_then(|c| c.cluster.as_ref());
    let cluster = cluster.and_then(|cluster| ExecAuthCluster::try_from(cluster).ok());
    let info = kubeconfig.auth_infos.iter_mut().find(|u| Some(&u.name) == user.as_ref()).and_then(|u| u.auth_info.as_mut());
    let Some(info) = info else { return Ok(None) };
    let Some(exec) = info.exec.clone() else { return Ok(None) };
    let (given, ends) = plugin::run(&exec, path.parent().unwrap_or(Path::new("/")), cluster).await?;
    *info = given;
    Ok(ends)
}

pub(super) fn stamps(files: Vec<PathBuf>) -> Vec<(PathBuf, Stamp)> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &Path| std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.ino(), m.len())));
    files
        .into_iter()
        .map(|path| {
            let at = stamp(&path);
            (path, at)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_loses_its_newline() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t"), "abc\n").unwrap();
        let text =
            "contexts:\n- {name: one, context: {cluster: c, user: u}}\ncurrent-context: one\nusers:\n- {name: u, user: {tokenFile: t}}\n";
        let mut kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        let files = adopt_files(&mut kubeconfig, &folder.path().join("k"), None, None, None).unwrap();
        let token = kubeconfig.auth_infos[0].auth_info.as_ref().unwrap().token.as_ref().unwrap();
        assert_eq!(token.expose_secret(), "abc");
        assert!(files.contains(&folder.path().join("t")));
    }

    fn used(own: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t"), "abc").unwrap();
        std::fs::write(folder.path().join("own"), own).unwrap();
        let text = "contexts:\n- {name: one, context: {cluster: c, user: u}}\ncurrent-context: one\nusers:\n- {name: u, user: {tokenFile: t, client-key: k}}\n";
        let mut kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        let own = folder.path().join("own");
        let files = adopt_files(&mut kubeconfig, &folder.path().join("k"), None, Some(&own), None).unwrap();
        assert!(files.contains(&own), "it has to be noticed when it comes");
        let info = kubeconfig.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(info.client_key.is_none(), info.token.as_ref().unwrap().expose_secret() != "abc", "one credential, not two");
        info.token.as_ref().unwrap().expose_secret().to_owned()
    }

    fn token(ends_in: i64) -> String {
        use base64::Engine;
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let now = jiff::Timestamp::now().as_second();
        let claims = format!(r#"{{"iss":"i","sub":"system:serviceaccount:a:b","aud":["i"],"iat":{},"exp":{}}}"#, now - 60, now + ends_in);
        format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(&claims), part("signature"))
    }

    #[test]
    fn our_own_token_stands_in_while_it_lives_and_the_users_credential_before_and_after() {
        let living = token(60);
        assert_eq!(used(&living), living);
        assert_eq!(used(&token(-1)), "abc");
        assert_eq!(used(""), "abc");
    }
}
