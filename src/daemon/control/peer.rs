//! Who is at the other end of the control socket.

use tokio::net::UnixStream;

use crate::record::Actor;

/// By the peer's credentials.
pub(super) fn actor(stream: &UnixStream) -> Actor {
    of_uid(stream.peer_cred().map_or(u32::MAX, |c| c.uid()), String::new())
}

/// Who runs this process, and what he typed.
pub fn caller(command: String) -> Actor {
    of_uid(rustix::process::getuid().as_raw(), command)
}

fn of_uid(uid: u32, command: String) -> Actor {
    // A user of another user namespace shows as the overflow id.
    let user = (uid != 65_534 && uid != u32::MAX).then(|| user_name(uid)).flatten();
    Actor { uid, user, command }
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
