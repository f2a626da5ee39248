//! What is wrong with a place, said before anything is minted for it.

use std::time::Duration;

use rustix::fs::{Access, AtFlags, accessat};

use super::acl::{self, Acl};
use super::blame::{blame, local};
use super::{FileSpec, account, folder, held, lane};
use crate::sink::Failure;

/// Everything about the host that would make a put at this place fail, each with its way out; empty where
/// nothing does. Writes nothing.
pub async fn look(spec: &FileSpec, timeout: Duration) -> Vec<String> {
    let mut problems = Vec::new();
    let (parent, name) = match super::parts(&spec.path) {
        Ok(parts) => parts,
        Err(failure) => return vec![failure.message],
    };
    let mut note = |found: Result<(), Failure>| problems.extend(found.err().map(|failure| failure.message));
    let wish = account::wish(spec).await;
    let known = wish.clone().unwrap_or(account::Wish { mode: spec.mode.0, uid: None, gid: None, acl: Acl::default() });
    note(wish.map(drop));
    let at = parent.clone();
    let work = lane::run(timeout, &at, move || match folder::find(&parent)? {
        None => folder::unmakeable(&parent)?.map_or(Ok(()), Err),
        Some(folder) => {
            // By the effective ids, and read-only mounts and sandboxes are seen as well.
            accessat(&folder.fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                .map_err(|errno| blame("write in", &folder.path.join(""), errno))?;
            held::stat(&folder, &name, &known)?;
            if known.acl.is_empty() && acl::shuts_out(&folder.fd, known.mode) {
                let (mode, path) = (known.mode, folder.path.display());
                return Err(local(format!(
                    "the default ACL of {path} names readers whom the mode {mode:04o} shuts out: write the mode \"0640\", or `readers`"
                )));
            }
            Ok(())
        }
    });
    note(work.await);
    problems
}
