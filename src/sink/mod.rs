//! Where does it go? One file for each kind of sink, its own settings on top; `delivery` brings a
//! payload to all places of a target.
//!
//! A sink makes one attempt and classifies its own failure. It knows neither targets nor the time of day.

mod anew;
pub mod aws;
pub mod azure;
pub mod command;
pub mod delivery;
pub mod file;
pub mod flaw;
pub mod gcp;
pub mod http;
pub mod kinds;
pub mod kubernetes;
pub mod leftover;
pub mod manners;
pub mod store;
pub mod vault;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::token::age::Recipient;
use crate::token::{Format, Payload};

pub use kinds::{SINKS, STORES, SYSTEMS, SinkSpec, StoreSpec};
pub use leftover::Leftover;
pub use manners::{Manners, Ours};
pub use store::Stores;

/// One element of `deliver`: a sink with what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it goes.
    pub sink: SinkSpec,
    /// How the token is written there.
    pub format: Format,
    /// Whose keys alone open what is written there; nobody's, and everybody can read it.
    pub encrypt_to: Vec<Recipient>,
    /// Whether a failure here fails the rotation.
    pub required: bool,
    /// Where it goes while this place is unavailable, in order.
    pub fallback: Vec<Place>,
    /// What becomes of the copy in a fallback once this place has the token.
    pub when_paid: WhenPaid,
}

/// `whenPaid`: what becomes of the copy in a fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhenPaid {
    /// It is removed once the place has held for a while.
    #[default]
    Remove,
    /// It stays, and ends by itself.
    Keep,
}

impl Place {
    /// The file on this host that holds the token and nobody else's, where there is one.
    pub fn file(&self) -> Option<PathBuf> {
        match &self.sink {
            SinkSpec::File(spec) if !self.format.merges() => Some(spec.path.clone()),
            SinkSpec::Directory(spec) => spec.token(),
            _ => None,
        }
    }
}

impl SinkSpec {
    /// The place as people and records name it: a path, `STORE/MOUNT/PATH`, `STORE/SECRET`,
    /// `CLUSTER/NAMESPACE/NAME`, a command. Two sinks
    /// with the same kind and place write the same thing.
    pub fn place(&self) -> String {
        let name = self.kind_of().name();
        match self.store() {
            Some(store) => format!("{store}/{name}"),
            None => name,
        }
    }

    /// Whether what it holds can be read back: of a program nobody knows what it did with a token.
    pub fn is_readable(&self) -> bool {
        self.kind_of().is_readable()
    }

    /// The store that it needs, by name.
    pub fn store(&self) -> Option<&str> {
        self.kind_of().store()
    }

    /// The cluster that it writes to, by name.
    pub fn cluster(&self) -> Option<&str> {
        self.kind_of().cluster()
    }

    /// The load on the API server or store that it writes to; `None` where it writes to this host.
    ///
    /// # Errors
    /// `Refused` where the schedule has no store or cluster of that name.
    pub fn upstream<'a>(&self, stores: &'a Stores) -> Option<Result<&'a std::sync::Arc<crate::cluster::Upstream>, Failure>> {
        let (what, name, found) = match (self.store(), self.cluster()) {
            (Some(name), _) => ("store", name, stores.upstream(name)),
            (None, Some(name)) => ("cluster", name, stores.cluster(name).map(|cluster| cluster.upstream())),
            (None, None) => return None,
        };
        Some(found.ok_or_else(|| Failure::new(FailureKind::Refused, format!("the schedule has no {what} `{name}`"))))
    }
}

/// What a sink is told beside the payload.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Name of the target, for metadata and messages.
    pub target: &'a str,
    /// The token's `jti` (or a hash of it): makes a repeated put the same put.
    pub issue: &'a str,
    /// The token's `iat`, seconds since 1970, for metadata.
    pub issued_at: i64,
    /// The token's `exp`, seconds since 1970, for metadata.
    pub expires_at: i64,
    /// Which of its target's tokens it is, for metadata.
    pub generation: u64,
    /// How long this one attempt may take.
    pub timeout: Duration,
    /// For the sink's manners.
    pub manners: Manners<'a>,
}

impl Context<'_> {
    /// Gives way to what stands there, where that is newer.
    ///
    /// # Errors
    /// `Superseded`.
    pub fn yields(&self, found: &[u8]) -> Result<(), Failure> {
        let why = std::str::from_utf8(found).ok().and_then(|text| self.superseded(text));
        why.map_or(Ok(()), |why| Err(Failure::new(FailureKind::Superseded, why)))
    }

    /// Why this token must not replace what stands there, as text, where it must not: that is newer.
    pub fn superseded(&self, text: &str) -> Option<String> {
        let newer = self.manners.newer.is(text);
        newer.then(|| format!("a token of target {} that was issued after this one stands there, and stays", self.target))
    }
}

/// What an attempt did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The place has new bytes.
    Written,
    /// The place had these bytes already.
    Unchanged,
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It stood there, and does not any more.
    Gone,
    /// Nothing stood there.
    Nothing,
    /// Something stands there that is not ours: it was left.
    Left,
}

/// Why an attempt failed, in one machine word for records and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// Not reachable, timed out, 5xx, sealed: worth a fallback and a soon retry.
    Unavailable,
    /// The store asks for patience (429, throttling): worth a fallback and a later retry.
    Throttled,
    /// It refuses us or the request (403, 404, 400): the schedule's or the store's fault; slow retry, no fallback.
    Refused,
    /// Somebody else wrote meanwhile (check-and-set): read again, then decide.
    Conflict,
    /// This host's own fault: full disk, wrong owner, missing folder. Slow retry, no fallback.
    Local,
    /// Something else than the store answered, or it answered nonsense.
    BadAnswer,
    /// The payload is larger than the place may hold.
    TooLarge,
    /// A newer token of the same target stands there: this one must not replace it.
    Superseded,
    /// Another member of the fleet serves the target now.
    HandedOver,
}

impl FailureKind {
    /// Whether a fallback place is written for it: only where the place itself cannot be reached.
    pub fn allows_fallback(self) -> bool {
        matches!(self, Self::Unavailable | Self::Throttled | Self::BadAnswer)
    }

    /// Whether this token can never stand there.
    pub fn is_final(self) -> bool {
        matches!(self, Self::TooLarge | Self::Superseded | Self::HandedOver)
    }

    /// Whether another attempt within the same rotation may help.
    pub fn retry_soon(self) -> bool {
        matches!(self, Self::Unavailable | Self::Throttled | Self::Conflict | Self::BadAnswer)
    }
}

/// A failed attempt. `message` says what failed on what, without any secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// For people: what failed, on what, and the way out where there is one.
    pub message: String,
    /// How long the store asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without a wish of the store's.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

/// Makes one attempt at one place.
///
/// # Errors
/// [`Failure`], classified by the sink itself.
pub async fn put(spec: &SinkSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    spec.kind_of().put(payload, context, stores).await
}

/// Tries whether one attempt at a place would do, as far as that can be told without writing anything that a consumer
/// could take for a token. Says what was tried.
///
/// # Errors
/// [`Failure`], as [`put`] would give it.
pub async fn probe(spec: &SinkSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<String, Failure> {
    spec.kind_of().probe(payload, context, stores).await
}

/// What a place holds now; `None` where it holds nothing, or nobody can tell ([`SinkSpec::is_readable`]).
///
/// # Errors
/// [`Failure`], classified by the sink itself.
pub async fn held(spec: &SinkSpec, stores: &Stores, timeout: Duration) -> Result<Option<Payload>, Failure> {
    spec.kind_of().held(stores, timeout).await
}
