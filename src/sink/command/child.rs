//! The program while it runs: a process group of its own, a small environment, its output heard but not believed.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::CommandSpec;
use crate::sink::{Failure, FailureKind};
use crate::token::Payload;
use crate::token::mask::mask;

/// Bytes of output that are kept, from its end; the rest is read and forgotten, so that a flood blocks nobody.
const KEPT: usize = 64 << 10;
/// Characters of it that a message has.
const SHOWN: usize = 400;
/// What is passed on of our own environment: where programs and their settings are, never a credential of ours.
const PASSED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "XDG_CONFIG_HOME", "SSL_CERT_FILE"];
/// Where `PATH` is not set.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the pipes of a program that ended are listened to: what it left behind may hold them open.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Runs the program with the payload on its standard input.
pub(super) async fn run(spec: &CommandSpec, payload: &Payload, target: &str) -> Result<(), Failure> {
    let mut child = spawn(spec, target)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let said = [child.stdout.take().map(listen), child.stderr.take().map(listen)];
    let ended = tokio::time::timeout(spec.timeout, feed_and_wait(&mut child, payload)).await;
    drop(group);
    let (fed, status) = match ended {
        Ok((fed, status)) => (fed, Some(status)),
        Err(_) => {
            // Killed with its group; this reaps it.
            let _ = child.wait().await;
            (Ok(()), None)
        }
    };
    let said = heard(said).await;
    let said = without_secrets(&said, payload);
    let why = match status {
        None => (FailureKind::Unavailable, format!("did not end within {} s and was killed", spec.timeout.as_secs_f64())),
        Some(Err(error)) => (FailureKind::Local, format!("cannot be waited for: {error}")),
        Some(Ok(status)) if status.success() => match fed {
            Ok(()) => return Ok(()),
            Err(error) => (FailureKind::Refused, format!("ended well but did not read the token from its standard input ({error})")),
        },
        Some(Ok(status)) => (kind(status), ending(status)),
    };
    let (kind, why) = why;
    let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
    Err(Failure::new(kind, format!("`{}` {why}{said}", spec.shown())))
}

fn spawn(spec: &CommandSpec, target: &str) -> Result<Child, Failure> {
    let local = |message: String| Failure::new(FailureKind::Local, message);
    let (program, arguments) = spec.command.split_first().ok_or_else(|| local("the command has no words".into()))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("TOKENFERRY_TARGET", target);
    command.envs(PASSED.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => local(format!("there is no program `{program}`: write its path, or install it")),
        io::ErrorKind::PermissionDenied => local(format!("`{program}` is no program that this user may run (chmod +x)")),
        _ => local(format!("`{program}` cannot be run: {error}")),
    })
}

/// A process group, killed when dropped: nothing of it outlives the attempt, given up or not.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Usually nobody is left in it.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn feed_and_wait(child: &mut Child, payload: &Payload) -> (io::Result<()>, io::Result<ExitStatus>) {
    let stdin = child.stdin.take();
    let feed = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        stdin.write_all(payload.expose()).await?;
        stdin.shutdown().await
    };
    // A program may end before it has read all; then nobody takes the rest.
    tokio::join!(feed, child.wait())
}

/// The end of what comes through a pipe.
fn listen(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; KEPT]);
    tokio::spawn(async move {
        while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..length]);
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
        }
        kept
    })
}

async fn heard(pipes: [Option<JoinHandle<Vec<u8>>>; 2]) -> String {
    let mut text = String::new();
    for mut pipe in pipes.into_iter().flatten() {
        match tokio::time::timeout(AFTERWARDS, &mut pipe).await {
            Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes.unwrap_or_default())),
            Err(_) => pipe.abort(),
        }
    }
    text
}

/// The end of what was said, on one line; whatever is or repeats the payload is taken out, and what looks like any
/// other credential too.
fn without_secrets(said: &str, payload: &Payload) -> String {
    let mut said = said.to_owned();
    for part in payload.parts() {
        let coded = base64::engine::general_purpose::STANDARD.encode(part.expose());
        for secret in [&*String::from_utf8_lossy(part.expose()), coded.as_str()] {
            // Whole lines first, then the parts of a JWT, which may be said by themselves.
            for secret in secret.lines().chain(secret.split('.')).map(str::trim).filter(|part| part.len() >= 8) {
                said = said.replace(secret, "[token removed]");
            }
        }
    }
    let said = mask(&said);
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let surplus = line.chars().count().saturating_sub(SHOWN);
    let cut: String = line.chars().skip(surplus).filter(|c| !c.is_control()).collect();
    if surplus > 0 { format!("…{cut}") } else { cut }
}

/// sysexits(3): the request is wrong, or may not be made; to try it again soon would not help.
fn kind(status: ExitStatus) -> FailureKind {
    match status.code() {
        Some(64 | 65 | 77 | 78) => FailureKind::Refused,
        Some(126 | 127) => FailureKind::Local,
        _ => FailureKind::Unavailable,
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_loses_the_payload_in_every_coding_and_is_cut() {
        let payload = Payload::new(b"opaque-secret-1".to_vec());
        let coded = base64::engine::general_purpose::STANDARD.encode(b"opaque-secret-1");
        let said = without_secrets(&format!("a opaque-secret-1\nb {coded}\x1b c"), &payload);
        assert_eq!(said, "a [token removed] b [token removed] c");
        let long = without_secrets(&"x ".repeat(4000), &payload);
        assert!(long.starts_with('…') && long.chars().count() == SHOWN + 1, "{long}");
    }
}
