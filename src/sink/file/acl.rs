//! Named readers by POSIX ACL (acl(5)), as the kernel keeps it: the attribute `system.posix_acl_access`.
//!
//! With `readers` the ACL is set whole: owner and others as the mode says, the group as the mode says, each reader
//! with `r`, and a mask that lets all of them through. What the folder's default ACL would hand down is replaced: it
//! would let others read, or, under a mode without group bits, shut the readers out by its mask.

use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;
use serde::Deserialize;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// `posix_acl_xattr.h`: version, then tag, permissions and id of each entry, little-endian.
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;
const READ: u16 = 4;
/// Entries need 8 bytes each; the kernel takes 64 KiB at the most.
const LARGEST: usize = 64 << 10;
/// Some sixty readers.
const USUAL: usize = 512;

/// One of `readers`: `user:NAME` or `group:NAME`, by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A user.
    User(String),
    /// A group.
    Group(String),
}

impl<'de> Deserialize<'de> for Reader {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let sound = |name: &str| !name.is_empty() && !name.contains(|c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control());
        match text.split_once(':') {
            Some(("user", name)) if sound(name) => Ok(Self::User(name.into())),
            Some(("group", name)) if sound(name) => Ok(Self::Group(name.into())),
            _ => Err(serde::de::Error::custom(format_args!("`{text}` is no reader: write such as user:ci or group:deploy"))),
        }
    }
}

/// Ids of the readers; none where the mode alone counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Acl {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Acl {
    /// Of these ids, each once, in the kernel's order.
    pub(super) fn new(mut users: Vec<u32>, mut groups: Vec<u32>) -> Self {
        for ids in [&mut users, &mut groups] {
            ids.sort_unstable();
            ids.dedup();
        }
        Self { users, groups }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// The mode as `stat` shows it: where an ACL stands, the mask takes the place of the group's bits (acl(5)).
    pub(super) fn shown(&self, mode: u32) -> u32 {
        if self.is_empty() { mode } else { mode | 0o040 }
    }

    fn bytes(&self, mode: u32) -> Vec<u8> {
        let bits = |shift: u32| u16::try_from(mode >> shift & 7).unwrap_or_default();
        let named = |tag: u16, ids: &[u32]| ids.iter().map(|id| (tag, READ, *id)).collect::<Vec<_>>();
        let entries = [
            vec![(USER_OBJ, bits(6), NOBODY)],
            named(USER, &self.users),
            vec![(GROUP_OBJ, bits(3), NOBODY)],
            named(GROUP, &self.groups),
            vec![(MASK, bits(3) | READ, NOBODY), (OTHER, bits(0), NOBODY)],
        ];
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, bits, id) in entries.concat() {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&bits.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// Sets it on a file that has its owner and mode. To be called last: a change of the mode would change the mask.
    pub(super) fn set(&self, file: impl AsFd, mode: u32) -> Result<(), Errno> {
        if self.is_empty() { Ok(()) } else { fsetxattr(file, ACCESS, &self.bytes(mode), XattrFlags::empty()) }
    }

    /// Whether the file has exactly this one. Where none is wished, any is wrong, except what a folder hands down
    /// to each new file.
    pub(super) fn stands(&self, file: impl AsFd, folder: impl AsFd, mode: u32) -> bool {
        match read(file, ACCESS) {
            Ok(found) if !self.is_empty() => found == Some(self.bytes(mode)),
            Ok(None) => true,
            Ok(Some(_)) => read(folder, DEFAULT).is_ok_and(|handed_down| handed_down.is_some()),
            Err(_) => self.is_empty(),
        }
    }
}

/// Whether the folder hands an ACL with named readers down whom this mode would shut out.
pub(super) fn shuts_out(folder: impl AsFd, mode: u32) -> bool {
    let named = |bytes: &[u8]| {
        bytes[4.min(bytes.len())..].chunks_exact(8).any(|entry| matches!(u16::from_le_bytes([entry[0], entry[1]]), USER | GROUP))
    };
    mode & 0o040 == 0 && read(folder, DEFAULT).ok().flatten().is_some_and(|acl| named(&acl))
}

/// `None` where there is none, or the file system knows none.
fn read(file: impl AsFd, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    // Each file is asked, and next to none has one: what is zeroed, copied and wiped for the answer shows in a profile.
    let mut some = [0; USUAL];
    let found = match fgetxattr(&file, name, &mut some[..]) {
        Ok(length) => Ok(some[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut all = vec![0; LARGEST];
            fgetxattr(&file, name, &mut all[..]).map(|length| all[..length].to_vec())
        }
        Err(errno) => Err(errno),
    };
    match found {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_has_the_kernels_form() {
        let acl = Acl::new(vec![1000, 7, 7], vec![50]);
        let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
        let expected = [
            vec![2, 0, 0, 0],
            entry(1, 6, NOBODY),
            entry(2, 4, 7),
            entry(2, 4, 1000),
            entry(4, 0, NOBODY),
            entry(8, 4, 50),
            entry(16, 4, NOBODY),
            entry(32, 0, NOBODY),
        ];
        assert_eq!(acl.bytes(0o600), expected.concat());
        assert_eq!((acl.shown(0o600), Acl::default().shown(0o600)), (0o640, 0o600));
    }
}
