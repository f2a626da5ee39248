//! Files that are left for others to read: whole or not at all.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes it under another name in the same folder, then gives it its own. No link that somebody laid under the other
/// name is followed.
///
/// # Errors
/// What the file system refused.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    // Past our own umask, which keeps others out of tokens.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_under_the_other_name_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("a.prom"), folder.path().join("victim"));
        std::fs::write(&victim, "token").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(".a.prom.new")).unwrap();
        write(&path, b"x 1\n", 0o644).unwrap();
        assert_eq!((std::fs::read(&victim).unwrap(), std::fs::read(&path).unwrap()), (b"token".to_vec(), b"x 1\n".to_vec()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(!path.is_symlink());
    }
}
