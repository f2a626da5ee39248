//! What the settings of a store say of themselves.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Right;
use crate::cluster::Upstream;
use crate::sink::flaw::Flaw;

/// What the settings of a store say of themselves.
pub trait Store: Send + Sync {
    /// What server or account it is: two stores with the same one are the same place.
    fn identity(&self) -> String;

    /// What is wrong with its settings.
    fn flaws(&self) -> Vec<Flaw>;

    /// The files that its settings name, each with the way to its key; not the one of [`Store::login`].
    fn files(&mut self) -> Vec<(Vec<&'static str>, &mut PathBuf)> {
        Vec::new()
    }

    /// The token that it logs in with, where it does so with one.
    fn login(&self) -> Option<Login<'_>> {
        None
    }

    /// Where planning says in which file that token stands.
    fn login_file(&mut self) -> Option<&mut PathBuf> {
        None
    }

    /// The live store. Nothing is opened before the first put.
    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync>;

    /// Those rights in the system's own language. `account`: as in [`Ask`].
    fn policy(&self, rights: Vec<Right>, account: Option<&str>) -> String;
}

/// A token that a store logs in with.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// The way to the settings that have `tokenFile` or `target`.
    pub key: Vec<&'static str>,
    /// Whose token it is, where we keep it fresh ourselves.
    pub target: Option<&'a str>,
    /// Where it stands.
    pub file: &'a Path,
}
