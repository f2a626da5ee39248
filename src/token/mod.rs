//! What is it? The token, what it says, and the bytes that are delivered.
//!
//! Nothing here knows a sink, a cluster or the network.

pub mod age;
pub mod claims;
pub mod extract;
pub mod kubeconfig;
pub mod mask;
pub mod payload;
pub mod render;
pub mod sealed;
pub mod signature;
pub mod template;
pub mod wipe;

use zeroize::Zeroizing;

pub use claims::{Claims, NotAToken};
pub use extract::{candidates, extract};
pub use payload::Payload;
pub use render::{Format, Surroundings, render};

/// A bearer token. It can be read with [`Token::expose`] and in no other way: it has no `Debug`,
/// `Display`, `Clone` or `Serialize`, and its memory is wiped when it is dropped.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes the text over. White space at the ends is not part of a token (RFC 6750 §2.1).
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        if text.trim().len() == text.len() { Self(text) } else { Self(Zeroizing::new(text.trim().to_owned())) }
    }

    /// The token's text, for the one place that has to send or write it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the token says of itself; the signature is not looked at.
    ///
    /// # Errors
    /// [`NotAToken`] where the text is no JWT with a JSON payload; never quotes the text.
    pub fn claims(&self) -> Result<Claims, NotAToken> {
        Claims::of(self.expose())
    }
}
