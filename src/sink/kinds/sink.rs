//! What a sink says of itself, and does.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::StoreSpec;
use crate::sink::flaw::Flaw;
use crate::sink::{Context, Failure, Ours, Put, Removal, Stores};
use crate::token::{Format, Payload};

/// What a sink says of itself, and does.
pub trait Sink: Send + Sync {
    /// Its place within the store or cluster that it writes to, or on this host.
    fn name(&self) -> String;

    /// The store that it needs, by name.
    fn store(&self) -> Option<&str> {
        None
    }

    /// The cluster that it writes to, by name.
    fn cluster(&self) -> Option<&str> {
        None
    }

    /// Under which word its names are one space with those of another kind; none where no other kind writes there.
    fn space(&self) -> Option<&'static str> {
        None
    }

    /// Whether what it holds can be read back.
    fn is_readable(&self) -> bool {
        true
    }

    /// What is wrong with its settings.
    fn flaws(&self) -> Vec<Flaw> {
        Vec::new()
    }

    /// The files that its settings name, each with its key.
    fn files(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        Vec::new()
    }

    /// How the token is written where its own settings say so in place of `format`.
    fn format(&self) -> Option<Format> {
        None
    }

    /// Whose limit it is, and how many bytes a value may have there.
    fn limit(&self) -> Option<(&'static str, u64)> {
        None
    }

    /// How many seconds lie best between two puts at the least, and why.
    fn gap(&self) -> Option<(u64, &'static str)> {
        None
    }

    /// On what it was tried, where that was not the real thing.
    fn untried(&self) -> Option<&'static str> {
        None
    }

    /// What the store's login has to be allowed.
    fn rights(&self, _ask: &Ask<'_>) -> Vec<Right> {
        Vec::new()
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    fn put<'a>(&'a self, payload: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<Put, Failure>>;

    /// Tries whether an attempt would do, and says what was tried.
    ///
    /// # Errors
    /// [`Failure`], as an attempt would give it.
    fn probe<'a>(&'a self, payload: &'a Payload, context: Context<'a>, stores: &'a Stores) -> BoxFuture<'a, Result<String, Failure>>;

    /// What it holds now; `None` where that is nothing, or nobody can tell.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    fn held<'a>(&'a self, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Option<Payload>, Failure>>;

    /// Makes one attempt to take back what is ours there.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    fn remove<'a>(&'a self, ours: Ours<'a>, stores: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Removal, Failure>>;
}

/// What it takes to find again what a sink wrote, without the schedule.
pub trait Trace: Sized {
    /// The settings that name the place; none where nothing can be taken back.
    fn trace(&self) -> Option<Self>;
}

/// What is asked about rights.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The store.
    pub store: &'a StoreSpec,
    /// Whether what stands at the place is taken back one day.
    pub leaves: bool,
    /// Version of Vault's KV engine.
    pub engine: u8,
    /// The account, project or subscription that the store belongs to, where a person said it.
    pub account: Option<&'a str>,
}

/// Something that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// On what.
    pub resource: String,
    /// What.
    pub actions: Vec<&'static str>,
}

/// The four calls of a [`Sink`], by the functions of a module that have their names: `put(spec, payload, context, stores)`,
/// `probe(spec, payload, context, stores)`, `held(spec, stores, timeout)` and `remove(spec, ours, stores, timeout)`; on this
/// host (`here`), where nothing is asked of a store, without it, and with the payload in what is held.
macro_rules! calls {
    (here $($module:ident)::+) => {
        calls!(|spec, payload, context, stores, timeout, ours| {
            put: { let _ = stores; $($module)::+::put(spec, payload, context) },
            probe: { let _ = stores; $($module)::+::probe(spec, payload, context) },
            held: { let _ = stores; async move { Ok($($module)::+::held(spec, timeout).await?.map(|held| held.payload)) } },
            remove: { let _ = stores; $($module)::+::remove(spec, ours, timeout) },
        });
    };
    ($($module:ident)::+) => {
        calls!(|spec, payload, context, stores, timeout, ours| {
            put: $($module)::+::put(spec, payload, context, stores),
            probe: $($module)::+::probe(spec, payload, context, stores),
            held: $($module)::+::held(spec, stores, timeout),
            remove: $($module)::+::remove(spec, ours, stores, timeout),
        });
    };
    (|$spec:ident, $payload:ident, $context:ident, $stores:ident, $timeout:ident, $ours:ident| {
        put: $put:expr, probe: $probe:expr, held: $held:expr, remove: $remove:expr,
    }) => {
        fn put<'a>(
            &'a self,
            $payload: &'a crate::token::Payload,
            $context: crate::sink::Context<'a>,
            $stores: &'a crate::sink::Stores,
        ) -> futures_util::future::BoxFuture<'a, Result<crate::sink::Put, crate::sink::Failure>> {
            let $spec = self;
            Box::pin($put)
        }

        fn probe<'a>(
            &'a self,
            $payload: &'a crate::token::Payload,
            $context: crate::sink::Context<'a>,
            $stores: &'a crate::sink::Stores,
        ) -> futures_util::future::BoxFuture<'a, Result<String, crate::sink::Failure>> {
            let $spec = self;
            Box::pin($probe)
        }

        fn held<'a>(
            &'a self,
            $stores: &'a crate::sink::Stores,
            $timeout: std::time::Duration,
        ) -> futures_util::future::BoxFuture<'a, Result<Option<crate::token::Payload>, crate::sink::Failure>> {
            let $spec = self;
            Box::pin($held)
        }

        fn remove<'a>(
            &'a self,
            $ours: crate::sink::Ours<'a>,
            $stores: &'a crate::sink::Stores,
            $timeout: std::time::Duration,
        ) -> futures_util::future::BoxFuture<'a, Result<crate::sink::Removal, crate::sink::Failure>> {
            let $spec = self;
            Box::pin($remove)
        }
    };
}
pub(in crate::sink) use calls;
