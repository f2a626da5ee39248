//! A program that we start and may have to end: alone in its process group, with nothing to read but what it is told, no
//! more variables than it needs, and an output that is drained to its end but kept only in part.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::{Failure, Said};
use crate::token::mask;

/// Bytes of each output that are kept, the last ones.
const KEPT: usize = 2048;
/// Characters of it that are recorded.
const SHOWN: usize = 600;
/// From the polite end to the hard one.
const GRACE: Duration = Duration::from_secs(2);
/// What a program's own children may still write after its end.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Where programs are found when we were given no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command to its end, which comes after `timeout` at the latest, and that of its process group with it. `input`
/// stands on its standard input, to be read or left.
///
/// # Errors
/// [`Failure`]: it cannot be started, does not end in time, or ends with another code than 0.
pub(super) async fn run(
    command: &[String],
    variables: &[(&str, OsString)],
    input: Option<&[u8]>,
    timeout: Duration,
) -> Result<Said, Failure> {
    let Some((program, arguments)) = command.split_first() else { return Err(Failure("there is no command".into())) };
    let mut built = Command::new(program);
    built.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()));
    built.envs(variables.iter().map(|(name, value)| (name, value))).current_dir("/");
    built.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    built.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = built.spawn().map_err(|error| Failure(format!("{program} cannot be started: {error}")))?;
    let mut group = Group::of(&child);
    let (mut out, mut err) = (Tail::default(), Tail::default());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ended = {
        let deadline = tokio::time::Instant::now() + timeout;
        let reading = async { tokio::join!(drain(stdout, &mut out), drain(stderr, &mut err), feed(stdin, input)) };
        let reading = futures_util::FutureExt::fuse(reading);
        tokio::pin!(reading);
        let ended = tokio::select! {
            ended = tokio::time::timeout_at(deadline, child.wait()) => ended,
            // Its outputs are closed; it may go on without them.
            _ = &mut reading => tokio::time::timeout_at(deadline, child.wait()).await,
        };
        if ended.is_err() {
            group.signal(Signal::TERM);
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
        }
        // What it left behind in its group ends with it.
        group.end();
        if ended.is_err() {
            reap(&mut child).await;
        }
        if !futures_util::future::FusedFuture::is_terminated(&reading) {
            let _ = tokio::time::timeout(LAST_WORDS, reading).await;
        }
        ended
    };
    let said = said(&out, &err);
    match ended {
        Err(_) => Err(failed(program, &format!("did not end within {} s and was killed", timeout.as_secs_f32()), said)),
        Ok(Err(error)) => Err(failed(program, &format!("was lost: {error}"), said)),
        Ok(Ok(status)) if status.success() => Ok(said),
        Ok(Ok(status)) => Err(failed(program, &words(status), said)),
    }
}

async fn reap(child: &mut Child) {
    if let Err(error) = child.wait().await {
        tracing::debug!(%error, "a killed hook could not be waited for");
    }
}

fn failed(program: &str, what: &str, said: Said) -> Failure {
    Failure(match said {
        Some(said) => format!("{program} {what}: {said}"),
        None => format!("{program} {what}"),
    })
}

fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
    }
}

/// The process group of a child: killed when this is dropped, whatever ended the work.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::debug!(%error, "the process group of a hook cannot be signalled");
        }
    }

    fn end(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last bytes of an output.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    left_out: bool,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > KEPT {
            self.bytes.drain(..self.bytes.len() - KEPT);
            self.left_out = true;
        }
    }
}

/// Who does not read it has no use for it.
async fn feed(pipe: Option<ChildStdin>, input: Option<&[u8]>) {
    let (Some(mut pipe), Some(input)) = (pipe, input) else { return };
    if let Err(error) = pipe.write_all(input).await {
        tracing::debug!(%error, "a command left what it was told unread");
    }
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Tail) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        tail.take(&buffer[..read]);
    }
}

/// What it wrote, fit for a record: standard error first, one line, masked, bounded.
fn said(out: &Tail, err: &Tail) -> Said {
    let mut parts = Vec::new();
    for tail in [err, out] {
        let text = String::from_utf8_lossy(&tail.bytes);
        // The first line may be the rest of one, and half a token has no shape to know it by.
        let whole = if tail.left_out { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
        let plain: String = whole.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let words = mask::mask(&plain).split_whitespace().collect::<Vec<_>>().join(" ");
        if !words.is_empty() {
            parts.push(words);
        }
    }
    let text = parts.join(" | ");
    (!text.is_empty()).then(|| if text.chars().count() > SHOWN { text.chars().take(SHOWN).chain(['…']).collect() } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str) -> Tail {
        let mut tail = Tail::default();
        tail.take(text.as_bytes());
        tail
    }

    #[test]
    fn output_is_bounded_masked_and_one_line() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        let text = said(&tail("out\n"), &tail(&format!("bad {jwt}\n\u{1b}[31mline\n"))).unwrap();
        assert!(!text.contains("c2lnbmF0dXJl") && text.ends_with("| out") && !text.contains('\n'), "{text}");
        assert!(said(&tail(&"word ".repeat(2000)), &tail("")).is_none_or(|t| t.chars().count() <= SHOWN + 1));
        assert_eq!(said(&tail(" \n"), &tail("")), None);
    }

    #[test]
    fn a_token_that_the_cut_goes_through_is_not_shown() {
        let jwt = format!("eyJhbGciOiJFUzI1NiJ9.{}.c2lnbmF0dXJl", "A".repeat(KEPT));
        let text = said(&tail(&format!("{jwt}\nend\n")), &tail("")).unwrap();
        assert_eq!(text, "end");
    }

    #[tokio::test]
    async fn a_child_that_ends_is_told_by_its_code_and_its_words() {
        let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let second = Duration::from_secs(20);
        assert_eq!(run(&shell("echo fine"), &[], None, second).await, Ok(Some("fine".into())));
        let failure = run(&shell("echo oh >&2; exit 3"), &[], None, second).await.unwrap_err();
        assert_eq!(failure.0, "sh ended with code 3: oh");
        assert!(run(&["/nonexistent".into()], &[], None, second).await.unwrap_err().0.contains("cannot be started"));
    }
    #[tokio::test]
    async fn what_it_is_told_is_read_whole_or_left_and_neither_hangs() {
        let told = "x".repeat(1 << 20);
        let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let limit = Duration::from_secs(20);
        assert_eq!(run(&shell("wc -c"), &[], Some(told.as_bytes()), limit).await, Ok(Some((1 << 20).to_string())));
        assert_eq!(run(&shell("exit 0"), &[], Some(told.as_bytes()), limit).await, Ok(None));
        let failure = run(&shell("sleep 60"), &[], Some(told.as_bytes()), Duration::from_millis(200)).await.unwrap_err();
        assert!(failure.0.contains("did not end within 0.2 s"), "{failure}");
    }
}
