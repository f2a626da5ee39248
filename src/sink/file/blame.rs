//! Words for what an operating system refuses: what failed, on what, and the way out.

use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::sink::{Failure, FailureKind};

/// `cannot WHAT PATH: REASON; WAY OUT`.
pub(super) fn blame(what: &str, path: &Path, errno: Errno) -> Failure {
    let folder = path.parent().unwrap_or(path).display();
    let reason = match errno {
        Errno::NOSPC => format!("the file system of {folder} is full: free blocks or inodes there (df {folder}; df -i {folder})"),
        Errno::DQUOT => format!("the disk quota in {folder} is used up: free some or raise it"),
        Errno::ROFS => {
            format!(
                "the file system of {folder} is read-only here: mount it writable, or name it in ReadWritePaths= of the unit and restart"
            )
        }
        Errno::ACCESS if is_walled(path.parent().unwrap_or(path)) => format!(
            "its mode lets user id {} write in {folder}, but the walls around this process do not: the folder was not there, or was \
             another one, when the process started (systemctl restart tokenferry), or SELinux or AppArmor refuses it",
            ours()
        ),
        Errno::ACCESS | Errno::PERM => format!("user id {} may not: give it the right, or run tokenferry as another user", ours()),
        Errno::NOENT => "it does not exist (any more)".into(),
        Errno::LOOP => "a symbolic link is in the way, and links are not followed".into(),
        Errno::NAMETOOLONG => "the name is too long (a temporary name needs 22 bytes more)".into(),
        Errno::IO => "the disk reports an error: see the kernel's log".into(),
        Errno::MFILE | Errno::NFILE => "too many open files: raise LimitNOFILE= of the unit".into(),
        Errno::STALE => "the network file system has lost it: mount it again".into(),
        Errno::NOTDIR => "a part of the path is no folder".into(),
        other => std::io::Error::from(other).to_string(),
    };
    local(format!("cannot {what} {}: {reason}", path.display()))
}

/// Whether the folder's own mode would let us write there, so that something else does not (Landlock, landlock(7)).
fn is_walled(folder: &Path) -> bool {
    accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// A failure of this host.
pub(super) fn local(message: String) -> Failure {
    Failure::new(FailureKind::Local, message)
}

/// Our effective user id, which this process never changes.
pub(super) fn ours() -> u32 {
    static OURS: LazyLock<u32> = LazyLock::new(|| rustix::process::geteuid().as_raw());
    *OURS
}

/// Our effective group id, likewise.
pub(super) fn our_group() -> u32 {
    static OURS: LazyLock<u32> = LazyLock::new(|| rustix::process::getegid().as_raw());
    *OURS
}
