//! A tree read into types with plain serde derive, with every problem of it found in one run: what is wrong
//! is reported where it stands and left out, then the value around it is read again without it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de;

use super::reader::Reader;
use super::{At, Node, Step, Value};
use crate::schedule::measure::shown;

/// One thing wrong in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub at: At,
    /// The key, as a path from the tree's root.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// What was left out of a tree, by the nodes' addresses: finds the nodes of what was read.
#[derive(Debug, Clone, Default)]
pub struct Marks(HashSet<usize>);

impl Marks {
    /// The node at the end of a path through what was *read*. Where the way ends early, the last node on it.
    pub fn node<'n>(&self, root: &'n Node, steps: &[Step<'_>]) -> &'n Node {
        let walked = steps.iter().try_fold(root, |node, step| self.below(node, step).ok_or(node));
        walked.unwrap_or_else(|last| last)
    }

    /// The same, and its true path.
    pub fn find<'n>(&self, root: &'n Node, steps: &[Step<'_>]) -> (&'n Node, String) {
        let (mut node, mut path, mut lost) = (root, String::new(), false);
        for step in steps {
            let next = self.below(node, step);
            let name = match (step, &node.value) {
                (Step::Key(key), _) => (*key).to_owned(),
                (Step::Index(wanted), Value::List(list)) => {
                    let index = next.and_then(|next| list.iter().position(|node| std::ptr::eq(node, next)));
                    format!("[{}]", index.unwrap_or(*wanted))
                }
                (Step::Index(_), _) => String::new(),
            };
            if !path.is_empty() && !name.is_empty() && !name.starts_with('[') {
                path.push('.');
            }
            path.push_str(&name);
            match next {
                Some(next) if !lost => node = next,
                _ => lost = true,
            }
        }
        (node, path)
    }

    fn below<'n>(&self, node: &'n Node, step: &Step<'_>) -> Option<&'n Node> {
        match (step, &node.value) {
            (Step::Key(key), _) => node.entries().iter().find(|(k, n)| &*k.text == *key && !self.left_out(n)).map(|(_, n)| n),
            (Step::Index(wanted), Value::List(list)) => list.iter().filter(|n| !self.left_out(n)).nth(*wanted),
            // one value where a list may stand
            (Step::Index(_), _) => Some(node),
        }
    }

    fn left_out(&self, node: &Node) -> bool {
        self.0.contains(&address(node))
    }
}

/// Says of a struct and a key whether this version only knows its name.
pub type Later = fn(structure: &str, key: &str) -> bool;

/// Reads a tree into a type. Everything wrong with it goes into `found`; what is left is read, or `None` where
/// nothing of use is left.
pub fn read<T: de::DeserializeOwned>(root: &Node, later: Later, found: &mut Vec<Finding>) -> (Option<T>, Marks) {
    let state = State { later, found: RefCell::default(), out: RefCell::default(), assumed: RefCell::default() };
    let value = loop {
        let reader = Reader { node: root, path: Path::Root, state: &state, hidden: &[] };
        match T::deserialize(reader) {
            Err(fault) => state.take(fault, root, &Path::Root),
            Ok(value) => {
                let assumed: Vec<usize> = state.assumed.borrow_mut().drain().map(|(node, _)| node).collect();
                if assumed.is_empty() {
                    break Some(value);
                }
                state.out.borrow_mut().extend(assumed);
            }
        }
        if state.is_out(root) {
            break None;
        }
    };
    found.append(&mut state.found.into_inner());
    (value, Marks(state.out.into_inner()))
}

pub(super) fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

pub(super) struct State {
    pub later: Later,
    pub found: RefCell<Vec<Finding>>,
    /// Nodes that are left out, because what is wrong with them was said.
    pub out: RefCell<HashSet<usize>>,
    /// Keys that are missing in a node and were said to be: made up, so that the next one missing is found too.
    pub assumed: RefCell<HashMap<usize, Vec<&'static str>>>,
}

impl State {
    pub fn say(&self, at: At, key: String, message: String) {
        self.found.borrow_mut().push(Finding { at, key, message });
    }

    pub fn is_out(&self, node: &Node) -> bool {
        self.out.borrow().contains(&address(node))
    }

    pub fn leave_out(&self, node: &Node) {
        self.out.borrow_mut().insert(address(node));
    }

    /// Reports a fault at the innermost node that it passes.
    pub fn take(&self, fault: Fault, node: &Node, path: &Path<'_>) {
        match fault {
            Fault::Said => {}
            Fault::Assumed => self.leave_out(node),
            Fault::Message(message) => {
                self.say(node.at, path.to_string(), message);
                self.leave_out(node);
            }
            Fault::Missing(field) => {
                let said = node.entries().iter().any(|(key, value)| &*key.text == field && self.is_out(value));
                if !said {
                    self.say(node.at, path.to_string(), format!("`{field}` is missing"));
                }
                self.assumed.borrow_mut().entry(address(node)).or_default().push(field);
            }
        }
    }
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// Reported already.
    Said,
    /// A made-up value does not do.
    Assumed,
    /// To be reported where it happened.
    Message(String),
    /// A key that has to be there.
    Missing(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Map => "settings (KEY: VALUE) stand".into(),
            de::Unexpected::Seq => "a list stands".into(),
            de::Unexpected::Unit | de::Unexpected::Option => "nothing stands".into(),
            de::Unexpected::Str(text) => format!("{} stands", shown(text)),
            _ => "something else stands".to_owned(),
        };
        Self::Message(format!("{found} where {wanted} is expected"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// The way from the root, written out only where something is reported.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    pub fn last(&self) -> &str {
        if let Self::Key(_, key) = self { key } else { "" }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(before, key) => write!(f, "{before}.{key}"),
            Self::Index(before, index) => write!(f, "{before}[{index}]"),
        }
    }
}
