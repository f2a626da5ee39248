//! The journal of systemd, by its native protocol (systemd.journal-fields(7), "Journal Export Format" without its
//! cursor fields), each field through the filter that takes tokens out.

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::token::mask::mask;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes of one value; a datagram holds some 200 KiB.
const LONGEST: usize = 64 << 10;

/// Sends each event as one entry.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// Connects to journald.
    ///
    /// # Errors
    /// Where none listens there.
    pub(super) fn connect() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self(socket))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let mut entry = Entry(Vec::with_capacity(256));
        // Levels of syslog (RFC 5424 §6.2.1).
        let priority = match *about.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "5",
            Level::DEBUG => "6",
            Level::TRACE => "7",
        };
        entry.field("PRIORITY", priority);
        entry.field("SYSLOG_IDENTIFIER", "tokenferry");
        entry.field("MODULE", about.target());
        event.record(&mut entry);
        // Nobody is left to be told where the journal does not take it.
        let _ = self.0.send(&entry.0);
    }
}

/// One entry as it is sent.
struct Entry(Vec<u8>);

impl Entry {
    fn field(&mut self, name: &str, value: &str) {
        let masked = mask(value);
        let value = &masked.as_bytes()[..masked.len().min(LONGEST)];
        // What the code calls `target_name`, because `target` means a module in `tracing`.
        let name = if name == "target_name" { "TARGET" } else { name };
        // Names have capital letters, digits and underscores, and none of these first.
        let name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        self.0.extend(name.collect::<String>().trim_start_matches('_').bytes());
        // The form that takes any byte, newlines too: name, newline, length in 64 bits, value, newline.
        self.0.push(b'\n');
        self.0.extend((value.len() as u64).to_le_bytes());
        self.0.extend(value);
        self.0.push(b'\n');
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing to memory does not fail; a value that cannot be shown is shown as far as it goes.
        let _ = write!(text, "{value:?}");
        self.field(field.name(), &text);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let at = entry.iter().position(|b| *b == b'\n').unwrap();
            let name = String::from_utf8(entry[..at].to_vec()).unwrap();
            let length = usize::try_from(u64::from_le_bytes(entry[at + 1..at + 9].try_into().unwrap())).unwrap();
            let value = String::from_utf8(entry[at + 9..at + 9 + length].to_vec()).unwrap();
            assert_eq!(entry[at + 9 + length], b'\n');
            entry = &entry[at + 10 + length..];
            fields.insert(name, value);
        }
        fields
    }

    fn told(event: impl FnOnce()) -> BTreeMap<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::at(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), event);
        let mut entry = vec![0; 256 << 10];
        let count = journald.recv(&mut entry).unwrap();
        fields(&entry[..count])
    }

    #[test]
    fn an_event_is_an_entry_with_its_fields() {
        let entry = told(|| tracing::warn!(target_name = "ci", seq = 7, "two\nlines"));
        let expected = [("PRIORITY", "4"), ("MESSAGE", "two\nlines"), ("TARGET", "ci"), ("SEQ", "7"), ("SYSLOG_IDENTIFIER", "tokenferry")];
        for (name, value) in expected {
            assert_eq!(entry.get(name).map(String::as_str), Some(value), "{entry:?}");
        }
    }

    #[test]
    fn g8_no_token_reaches_the_journal_in_message_or_field() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLWNhbmFyeQ";
        let error = std::io::Error::other(format!("library says {token}"));
        let entry = told(|| tracing::error!(error = %error, plain = token, "it was {token}"));
        assert!(!format!("{entry:?}").contains("eyJ"), "{entry:?}");
        assert!(!format!("{entry:?}").contains("c2lnbmF0dXJlLWNhbmFyeQ"), "{entry:?}");
        assert!(entry["MESSAGE"].contains("[token removed]"), "{entry:?}");
    }
}
