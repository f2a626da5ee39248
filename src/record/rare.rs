//! What most have none of: a value that takes the room of a pointer until it says something.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Something that can say nothing.
pub trait Blank: Default + 'static {
    /// What says nothing.
    const BLANK: &'static Self;

    /// Whether it says nothing.
    fn is_blank(&self) -> bool;
}

impl<T: 'static> Blank for Vec<T> {
    const BLANK: &'static Self = &Vec::new();

    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl<K: Ord + 'static, V: 'static> Blank for BTreeMap<K, V> {
    const BLANK: &'static Self = &BTreeMap::new();

    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

/// A value that is blank for most who have it. It is read as the value itself.
#[derive(Clone)]
pub struct Rare<T>(Option<Box<T>>);

impl<T: Blank> Rare<T> {
    /// The value, to be changed. What is blank afterwards takes no room again.
    pub fn edit(&mut self) -> Edit<'_, T> {
        Edit { kept: &mut self.0, fresh: T::default() }
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Blank> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((!value.is_blank()).then(|| Box::new(value)))
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank + PartialEq> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Blank + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A value that is being changed. One that stays blank is never put in a box: each folded line sets what it does not say.
pub struct Edit<'a, T: Blank> {
    kept: &'a mut Option<Box<T>>,
    /// In its place, as long as there is none.
    fresh: T,
}

impl<T: Blank> Deref for Edit<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.kept.as_deref().unwrap_or(&self.fresh)
    }
}

impl<T: Blank> DerefMut for Edit<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.kept.as_deref_mut().unwrap_or(&mut self.fresh)
    }
}

impl<T: Blank> Drop for Edit<'_, T> {
    fn drop(&mut self) {
        if self.is_blank() {
            *self.kept = None;
        } else if self.kept.is_none() {
            *self.kept = Some(Box::new(std::mem::take(&mut self.fresh)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_takes_no_room_and_is_read_as_what_says_nothing() {
        let mut rare = Rare::<Vec<u8>>::default();
        assert!(rare.is_empty() && rare.0.is_none() && rare == Vec::new().into());
        rare.edit().push(1);
        assert_eq!((rare.as_slice(), rare.0.is_some()), (&[1_u8][..], true));
        rare.edit().clear();
        assert!(rare.0.is_none(), "what was cleared is let go");
        assert!(Rare::from(Vec::<u8>::new()).0.is_none());
        let mut edit = rare.edit();
        edit.clear();
        assert!(edit.kept.is_none(), "nothing is put in a box to say nothing");
    }
}
