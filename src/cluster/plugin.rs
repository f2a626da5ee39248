//! A kubeconfig's credential plugin (client.authentication.k8s.io), such as those of GKE and AKS: run as client-go runs it,
//! and bounded, since it is somebody else's program: in time, in what it says, and ended with all that it started.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use kube::config::{AuthInfo, ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use crate::token::mask;

/// How long one may take; building a client, of which this is a part, may take 30 s.
const WITHIN: Duration = Duration::from_secs(25);
/// Far more than a token or a certificate with its key.
const LARGEST: usize = 1 << 20;
/// As much as is kept of what it complains of.
const COMPLAINT: usize = 8 << 10;

#[derive(Deserialize)]
struct Answer {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Timestamp>,
}

/// Runs it. What it gives, and when that ends, unix seconds, where it says so. `folder` is the kubeconfig's.
///
/// # Errors
/// What became of it, with what it complained of, and no word of what it gave.
pub(super) async fn run(exec: &ExecConfig, folder: &Path, cluster: Option<ExecAuthCluster>) -> Result<(AuthInfo, Option<i64>), String> {
    let program = exec.command.as_deref().filter(|program| !program.is_empty()).ok_or("its credential plugin names no `command`")?;
    let interactive = exec.interactive_mode != Some(ExecInteractiveMode::Never) && std::io::stdin().is_terminal();
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) && !interactive {
        return Err(format!("its credential plugin {program} wants to talk to a person (interactiveMode: Always), and none is here"));
    }
    let mut child = started(exec, program, folder, interactive, cluster)?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let end = || {
        if let Some(group) = group.filter(|_| !interactive) {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    };
    let Some(all) = tokio::time::timeout(WITHIN, outcome(&mut child)).await.ok() else {
        end();
        return Err(format!("its credential plugin {program} did not end within {} s and was killed", WITHIN.as_secs()));
    };
    // What it left running would go on with our files and our name.
    end();
    let (status, said, complaint) = all.map_err(|error| format!("its credential plugin {program}: {error}"))?;
    if said.len() > LARGEST {
        return Err(format!("its credential plugin {program} gave more than {} MiB and was killed", LARGEST >> 20));
    }
    if !status.success() {
        return Err(format!("its credential plugin {program} failed ({status}){}{}", complained(&complaint), hint()));
    }
    given(&said).map_err(|why| format!("its credential plugin {program} {why}{}", complained(&complaint)))
}

fn started(exec: &ExecConfig, program: &str, folder: &Path, interactive: bool, cluster: Option<ExecAuthCluster>) -> Result<Child, String> {
    // As client-go: a path counts from the kubeconfig, a name is looked for in PATH.
    let path = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    let cluster = if exec.provide_cluster_info { cluster } else { None };
    let info = json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": {"interactive": interactive, "cluster": cluster}});
    let mut command = Command::new(path);
    command.args(exec.args.iter().flatten()).stdout(Stdio::piped()).kill_on_drop(true);
    for (name, value) in exec.env.iter().flatten().filter_map(|pair| Some((pair.get("name")?, pair.get("value")?))) {
        command.env(name, value);
    }
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    if interactive {
        command.stdin(Stdio::inherit()).stderr(Stdio::inherit());
    } else {
        command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    }
    command.spawn().map_err(|error| {
        let install = exec.install_hint.as_deref().map(|hint| format!("; {}", short(hint))).unwrap_or_default();
        format!("its credential plugin {program} cannot be started: {error}{install}")
    })
}

/// How it ended, what it gave and what it complained of; more than is read of either is not waited for.
async fn outcome(child: &mut Child) -> std::io::Result<(ExitStatus, Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (said, complaint) = tokio::join!(said(stdout), complaint(stderr));
    let said = said?;
    if said.len() > LARGEST {
        child.kill().await?;
    }
    Ok((child.wait().await?, said, complaint))
}

async fn said(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    if let Some(pipe) = pipe {
        pipe.take(LARGEST as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The end of what it says on standard error: the rest is read, so that it can go on, and forgotten.
async fn complaint(pipe: Option<impl AsyncRead + Unpin>) -> Zeroizing<Vec<u8>> {
    let (mut kept, mut chunk) = (Zeroizing::new(Vec::new()), Zeroizing::new(vec![0; COMPLAINT]));
    let Some(mut pipe) = pipe else { return kept };
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let over = kept.len().saturating_sub(COMPLAINT);
        kept.drain(..over);
    }
    kept
}

fn given(said: &[u8]) -> Result<(AuthInfo, Option<i64>), String> {
    let answer: Answer = serde_json::from_slice(said).map_err(|_| "gave no ExecCredential (JSON) on its standard output".to_owned())?;
    let status = answer.status.ok_or_else(|| "gave an ExecCredential without `status`".to_owned())?;
    let ends = status.expiration_timestamp.map(Timestamp::as_second);
    let token = status.token.map(Zeroizing::new).filter(|token| !token.trim().is_empty());
    let mut info = AuthInfo { token: token.map(|token| SecretString::from(token.trim().to_owned())), ..AuthInfo::default() };
    if let (Some(certificate), Some(key)) = (status.client_certificate_data, status.client_key_data) {
        use base64::Engine;
        let key = Zeroizing::new(key);
        let coded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        info.client_certificate_data = Some(coded(&certificate));
        info.client_key_data = Some(SecretString::from(coded(&key)));
    }
    if info.token.is_none() && info.client_key_data.is_none() {
        return Err("gave an ExecCredential with neither a token nor a certificate".to_owned());
    }
    Ok((info, ends))
}

fn complained(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() { String::new() } else { format!(": {}", short(&text)) }
}

/// The last words of a text, on one line, without what looks like a secret.
fn short(text: &str) -> String {
    let masked = mask::mask(text);
    let words: Vec<&str> = masked.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    let skip = line.chars().count().saturating_sub(300);
    if skip > 0 { format!("…{}", line.chars().skip(skip).collect::<String>()) } else { line }
}

/// Programs of the clouds keep what they got in a home, which a service has not.
fn hint() -> &'static str {
    if std::env::var_os("HOME").is_none() { " (HOME is not set: the drop-in `plugins.conf` gives the daemon one)" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    async fn ran(script: &str, change: impl FnOnce(&mut ExecConfig)) -> Result<(AuthInfo, Option<i64>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut exec = ExecConfig {
            api_version: Some("client.authentication.k8s.io/v1".into()),
            command: Some("./plugin".into()),
            args: None,
            env: None,
            drop_env: None,
            install_hint: None,
            interactive_mode: None,
            provide_cluster_info: false,
            cluster: None,
            other: BTreeMap::new(),
        };
        change(&mut exec);
        run(&exec, folder.path(), None).await
    }

    async fn why(script: &str) -> String {
        ran(script, |_| ()).await.map(|_| ()).unwrap_err()
    }

    #[tokio::test]
    async fn a_plugin_gets_what_client_go_gives_it_and_its_token_is_taken() {
        let script = r#"test "$1" = get -a "$A" = b && echo "$KUBERNETES_EXEC_INFO" | grep -q '"interactive":false' || exit 3
echo '{"kind":"ExecCredential","status":{"token":" abc ","expirationTimestamp":"2030-01-01T00:00:00Z"}}'"#;
        let given = ran(script, |exec| {
            exec.args = Some(vec!["get".into()]);
            exec.env = Some(vec![HashMap::from([("name".into(), "A".into()), ("value".into(), "b".into())])]);
        });
        let (info, ends) = given.await.unwrap();
        assert_eq!((info.token.unwrap().expose_secret(), ends), ("abc", Some(1_893_456_000)));
    }

    #[tokio::test]
    async fn what_a_plugin_does_wrong_is_told_without_a_word_of_its_secrets() {
        assert!(
            why("echo 'login: please run gcloud auth login' >&2; exit 7")
                .await
                .contains("failed (exit status: 7): login: please run gcloud")
        );
        let jwt = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        let said = why(&format!("echo '{jwt}'; echo 'no access for {jwt}' >&2; exit 1")).await;
        assert!(said.contains("no access for [token removed]") && !said.contains("eyJ"), "{said}");
        assert!(why("echo hello").await.contains("gave no ExecCredential (JSON)"));
        assert!(why("echo '{}'").await.contains("without `status`"));
        assert!(why(r#"echo '{"status":{"token":""}}'"#).await.contains("neither a token nor a certificate"));
        let missing = ran("", |exec| {
            exec.command = Some("./none".into());
            exec.install_hint = Some("install\nit".into());
        });
        let missing = missing.await.map(|_| ()).unwrap_err();
        assert!(missing.contains("./none cannot be started: No such file") && missing.ends_with("; install it"), "{missing}");
        let talks = ran("", |exec| exec.interactive_mode = Some(ExecInteractiveMode::Always)).await.map(|_| ()).unwrap_err();
        assert!(talks.contains("interactiveMode: Always"), "{talks}");
    }

    #[tokio::test]
    async fn a_plugin_that_floods_is_ended_and_a_chatty_one_is_not() {
        let begun = std::time::Instant::now();
        assert!(why("exec yes").await.contains("gave more than 1 MiB"));
        assert!(begun.elapsed() < WITHIN);
        let chatty = r#"head -c 3000000 /dev/zero | tr '\0' x >&2; echo '{"status":{"token":"abc"}}'"#;
        assert!(ran(chatty, |_| ()).await.is_ok());
    }

    #[tokio::test]
    async fn what_a_plugin_left_running_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let script = format!(r#"sleep 600 >/dev/null 2>&1 & echo $! >{}; echo '{{"status":{{"token":"abc"}}}}'"#, mark.display());
        assert!(ran(&script, |_| ()).await.is_ok());
        let pid = std::fs::read_to_string(&mark).unwrap();
        let gone = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{pid} runs on");
    }
}
