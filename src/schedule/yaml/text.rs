//! Is it a text at all, is it YAML, and where in it does something stand?

use super::{At, START};

/// Most bytes that one file may have.
pub const MAX_BYTES: usize = 64 << 20;

/// A text that is no YAML that we take: where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub at: At,
    /// What is wrong and the way out.
    pub message: String,
}

/// Empty, huge and binary files get a word of their own: a YAML parser's would not help.
pub(super) fn looks_like_text(text: &str) -> Result<(), Broken> {
    let fault = |at, message: &str| Err(Broken { at, message: message.into() });
    if text.len() > MAX_BYTES {
        return fault(START, "the file is larger than 64 MiB: split it with `include`");
    }
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    // 0xc2 begins those beyond ASCII.
    let suspect = |byte: u8| (byte < b' ' && !matches!(byte, b'\n' | b'\r' | b'\t')) || matches!(byte, 0x7f | 0xc2);
    if has_byte(text, suspect)
        && let Some(bytes) = text.find(control)
    {
        return fault(position(text, bytes), "a control character stands here: this is no text file");
    }
    if is_empty(text) {
        return fault(START, "the file is empty: begin with `version: 1`");
    }
    Ok(())
}

/// Whether such a byte stands in it: asked many at a time, where few texts have one that is worth a look at characters.
pub(super) fn has_byte(text: &str, such: impl Fn(u8) -> bool) -> bool {
    text.as_bytes().chunks(64).any(|some| some.iter().fold(false, |any, byte| any | such(*byte)))
}

/// Whether there is nothing but comments.
pub fn is_empty(text: &str) -> bool {
    !text.trim_start_matches('\u{feff}').lines().any(written)
}

/// The first line that is no comment.
fn beginning(text: &str) -> At {
    let line = text.trim_start_matches('\u{feff}').lines().position(written);
    line.map_or(START, |line| At { line: line + 1, column: 1 })
}

fn written(line: &str) -> bool {
    !matches!(line.trim(), "" | "---" | "...") && !line.trim_start().starts_with(['#', '%'])
}

/// Line and column of a byte.
pub fn position(text: &str, byte: usize) -> At {
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    At { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// What to say of a file that is no UTF-8.
pub fn not_utf8(bytes: &[u8]) -> Broken {
    let good = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
    let text = String::from_utf8_lossy(&bytes[..good]);
    Broken { at: position(&text, text.len()), message: "this is no UTF-8 text: save the file as UTF-8".into() }
}

fn place(location: &serde_yaml::Location) -> At {
    let whole = |number| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    At { line: whole(location.line()), column: whole(location.column()) }
}

/// What the YAML parser found, in our words and without the lines around it: they are nobody's business.
pub(super) fn broken(text: &str, error: &serde_yaml::Error) -> Broken {
    use serde_yaml::Error;
    let at = error.location().filter(|found| found.line() > 0).map_or_else(|| beginning(text), |found| place(&found));
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    let message = match cause {
        Error::MultipleDocuments { .. } => {
            "a second document begins here: keep one document in a file, others go under `include`".to_owned()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "the file nests or repeats itself beyond all measure (brackets, anchors, aliases): write it plainly".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => "this alias stands inside the value that it repeats: write it out".to_owned(),
        Error::NullIntoString { .. } => "the key is missing here, or null: write it in quotes".to_owned(),
        cause => {
            let text = cause.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.find(" at line ").map_or(line, |end| &line[..end]);
            let line = line.strip_prefix(&format!("line {} column {}: ", at.line, at.column)).unwrap_or(line);
            if matches!(cause, Error::Message { .. }) { line.to_owned() } else { format!("this is no YAML: {line}") }
        }
    };
    Broken { at, message }
}
