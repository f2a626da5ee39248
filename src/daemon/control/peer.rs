//! Who is at the other end of the control socket.

use http::HeaderMap;
use tokio::net::UnixStream;

use crate::record::{Actor, OVERFLOW};

/// The header in which a command gives its user's name: all that is left where a user namespace hides him.
pub(super) const HEADER: &str = "tokenferry-user";
/// Characters of such a name.
const LONGEST: usize = 64;

/// By the peer's credentials.
pub(super) fn actor(stream: &UnixStream) -> Actor {
    of_uid(stream.peer_cred().map_or(u32::MAX, |c| c.uid()), String::new())
}

/// Who runs this process, and what he typed.
pub fn caller(command: String) -> Actor {
    of_uid(rustix::process::getuid().as_raw(), command)
}

/// The name of who runs this process, to be given to a daemon.
pub(super) fn own_name() -> Option<String> {
    caller(String::new()).user.filter(|name| is_name(name))
}

/// The same caller with what he says of himself, where the kernel does not say it.
pub(super) fn with_word(actor: Actor, headers: &HeaderMap) -> Actor {
    let says = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|name| is_name(name)).map(str::to_owned);
    Actor { says: says.filter(|_| actor.uid == OVERFLOW), ..actor }
}

/// What useradd(8) takes for a name, and what directories give.
fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@$".contains(&byte))
}

fn of_uid(uid: u32, command: String) -> Actor {
    // A user of another user namespace shows as the overflow id.
    let user = (uid != OVERFLOW && uid != u32::MAX).then(|| user_name(uid)).flatten();
    Actor { uid, user, says: None, command }
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(uid: u32, says: &str) -> Actor {
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), says.parse().unwrap())]);
        with_word(of_uid(uid, String::new()), &headers)
    }

    #[test]
    fn what_a_caller_says_of_himself_counts_only_where_the_kernel_hides_him_and_is_shown_as_said() {
        assert_eq!((word(0, "admin").who(), word(0, "admin").says), ("root".into(), None));
        assert_eq!(word(4_000_000, "admin").who(), "uid 4000000");
        assert_eq!(word(OVERFLOW, "admin").who(), "unknown, who says `admin`");
        for odd in ["", "a b", "a`b", "é", &"a".repeat(65)] {
            assert_eq!(word(OVERFLOW, odd).who(), "unknown", "{odd}");
        }
    }
}
