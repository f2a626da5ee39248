//! The last line against leaks: token-shaped text is taken out of whatever is about to be shown.

use std::borrow::Cow;

/// Placeholder until the filter of the files branch is merged.
pub fn mask(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}
