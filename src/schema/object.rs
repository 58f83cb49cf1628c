//! The members of an object, in order.
//!
//! Nearly every object of the API has a handful of members: they are stored one after another and found by a linear
//! search. An object of more than [`SCANNED`] members also has an index (boxed, because most have none), so that a body
//! with a hundred thousand names is parsed in linear time. Each process seeds the hashes, so that no body can force
//! collisions.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::value::{Key, Value};

/// Up to this number of members a linear search is used.
const SCANNED: usize = 16;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

fn hash(key: &str) -> u64 {
    HASHER.hash_one(key)
}

/// The members of an object, in order. Names are unique.
#[derive(Clone, Debug, Default)]
pub struct Object {
    members: Vec<(Key, Value)>,
    /// The index of each name in `members`; `Some` if and only if there are more than [`SCANNED`].
    index: Option<Box<HashTable<usize>>>,
}

impl PartialEq for Object {
    /// Order does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .members
                .iter()
                .enumerate()
                // The order is usually the same.
                .all(|(at, (key, value))| match other.members.get(at) {
                    Some((name, there)) if name == key => there == value,
                    _ => other.get(key) == Some(value),
                })
    }
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// An object with capacity for `n` members.
    pub fn with_capacity(n: usize) -> Self {
        Self {
            members: Vec::with_capacity(n),
            index: None,
        }
    }

    fn position(&self, key: &str) -> Option<usize> {
        match &self.index {
            None => self.members.iter().position(|(name, _)| name == key),
            Some(index) => index
                .find(hash(key), |&at| self.members[at].0 == key)
                .copied(),
        }
    }

    /// Rebuilds the index, after members were inserted or moved other than at the end.
    fn reindex(&mut self) {
        self.index = (self.members.len() > SCANNED).then(|| {
            let mut index = HashTable::with_capacity(self.members.len());
            for (at, (key, _)) in self.members.iter().enumerate() {
                index.insert_unique(hash(key), at, |&at| hash(&self.members[at].0));
            }
            Box::new(index)
        });
    }

    /// Appends a member whose name is not present.
    pub(super) fn push(&mut self, key: Key, value: Value) -> &mut Value {
        debug_assert!(!self.contains(&key), "{key} is there");
        let at = self.members.len();
        self.members.push((key, value));
        match &mut self.index {
            Some(index) => {
                let members = &self.members;
                index.insert_unique(hash(&members[at].0), at, |&at| hash(&members[at].0));
            }
            None if at >= SCANNED => self.reindex(),
            None => {}
        }
        &mut self.members[at].1
    }

    /// The member called `key`, appended as null if absent.
    fn or_null(&mut self, key: &str) -> &mut Value {
        match self.position(key) {
            Some(at) => &mut self.members[at].1,
            None => self.push(Key::from(key), Value::Null),
        }
    }

    /// The member called `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.position(key).map(|at| &self.members[at].1)
    }

    /// The member called `key`, mutably.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.position(key).map(|at| &mut self.members[at].1)
    }

    /// Whether there is a member called `key`, even if null.
    pub fn contains(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Sets a member in place, or appends it; returns the old value.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.position(&key) {
            Some(at) => Some(std::mem::replace(&mut self.members[at].1, value)),
            None => {
                self.push(key, value);
                None
            }
        }
    }

    /// Sets a member and puts it first.
    pub fn insert_first(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let key = key.into();
        if let Some(at) = self.position(&key) {
            self.members.remove(at);
        }
        self.members.insert(0, (key, value.into()));
        self.reindex();
    }

    /// Sets a member in place, or inserts it right after `before`; appends it if that is absent.
    pub fn insert_behind(&mut self, before: &str, key: &str, value: impl Into<Value>) {
        match (self.position(key), self.position(before)) {
            (Some(at), _) => self.members[at].1 = value.into(),
            (None, Some(before)) if before + 1 < self.len() => {
                self.members.insert(before + 1, (key.into(), value.into()));
                self.reindex();
            }
            (None, _) => drop(self.push(key.into(), value.into())),
        }
    }

    /// Removes a member; the order of the others is kept.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.position(key)?;
        let (_, value) = self.members.remove(at);
        if self.members.len() <= SCANNED {
            self.index = None;
        } else if let Some(index) = &mut self.index {
            if let Ok(entry) = index.find_entry(hash(key), |&found| found == at) {
                entry.remove();
            }
            // Without hashing every name again.
            index
                .iter_mut()
                .filter(|place| **place > at)
                .for_each(|place| *place -= 1);
        }
        Some(value)
    }

    /// The member called `key`, set to `make()` if absent or null.
    pub fn entry(&mut self, key: &str, make: impl FnOnce() -> Value) -> &mut Value {
        let value = self.or_null(key);
        if value.is_null() {
            *value = make();
        }
        value
    }

    /// The object member called `key`, created if absent or not an object.
    pub fn object_mut(&mut self, key: &str) -> &mut Object {
        self.or_null(key).object_mut()
    }

    /// The array member called `key`, created if absent or not an array.
    pub fn array_mut(&mut self, key: &str) -> &mut Vec<Value> {
        let value = self.or_null(key);
        if !matches!(value, Value::Array(_)) {
            *value = Value::Array(Vec::new());
        }
        match value {
            Value::Array(items) => items,
            _ => unreachable!("it was made an array above"),
        }
    }

    /// Sets `key` if absent or null: a default.
    pub fn set_default(&mut self, key: &str, value: impl Into<Value>) {
        let member = self.or_null(key);
        if member.is_null() {
            *member = value.into();
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &Value)> + ExactSizeIterator {
        self.members.iter().map(|(key, value)| (key, value))
    }

    /// Members in order, values mutable.
    pub fn iter_mut(
        &mut self,
    ) -> impl DoubleEndedIterator<Item = (&Key, &mut Value)> + ExactSizeIterator {
        self.members.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Names in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Key> + ExactSizeIterator {
        self.members.iter().map(|(key, _)| key)
    }

    /// Values in order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> + ExactSizeIterator {
        self.members.iter().map(|(_, value)| value)
    }

    /// Keeps the members for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&Key, &mut Value) -> bool) {
        let before = self.len();
        self.members.retain_mut(|(key, value)| keep(key, value));
        if self.index.is_some() && self.len() != before {
            self.reindex();
        }
    }

    /// Sorts the members by name, as Go prints maps.
    pub fn sort(&mut self) {
        if !self.members.is_sorted_by(|(a, _), (b, _)| a <= b) {
            self.members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            self.reindex();
        }
    }
}

impl IntoIterator for Object {
    type Item = (Key, Value);
    type IntoIter = std::vec::IntoIter<(Key, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.members.into_iter()
    }
}

impl<K: Into<Key>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        let members = members.into_iter();
        let mut object = Self::with_capacity(members.size_hint().0);
        for (key, value) in members {
            object.insert(key, value);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indexmap::IndexMap;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, i64),
        First(u8, i64),
        Remove(u8),
        Behind(u8, u8, i64),
        Default(u8, i64),
        Retain(i64),
        Sort,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..40u8, any::<i64>()).prop_map(|(key, value)| Step::Insert(key, value)),
            1 => (0..40u8, any::<i64>()).prop_map(|(key, value)| Step::First(key, value)),
            3 => (0..40u8).prop_map(Step::Remove),
            2 => (0..40u8, 0..40u8, any::<i64>()).prop_map(|(before, key, value)| Step::Behind(before, key, value)),
            2 => (0..40u8, any::<i64>()).prop_map(|(key, value)| Step::Default(key, value)),
            1 => (2..5i64).prop_map(Step::Retain),
            1 => Just(Step::Sort),
        ]
    }

    proptest! {
        /// Behaves like an index map, below and above the size from which there is an index.
        #[test]
        fn as_an_index_map(steps in proptest::collection::vec(step(), 0..120)) {
            let (mut object, mut model) = (Object::new(), IndexMap::<String, i64>::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        let was = object.insert(format!("k{key}"), value);
                        prop_assert_eq!(was, model.insert(format!("k{key}"), value).map(Value::Int));
                    }
                    Step::First(key, value) => {
                        object.insert_first(format!("k{key}"), value);
                        model.shift_insert(0, format!("k{key}"), value);
                    }
                    Step::Remove(key) => {
                        let was = object.remove(&format!("k{key}"));
                        prop_assert_eq!(was, model.shift_remove(&format!("k{key}")).map(Value::Int));
                    }
                    Step::Behind(before, key, value) => {
                        let (before, key) = (format!("k{before}"), format!("k{key}"));
                        object.insert_behind(&before, &key, value);
                        let at = model.get_index_of(&before).filter(|_| !model.contains_key(&key));
                        let at = at.map_or(model.len(), |at| at + 1);
                        match model.get_mut(&key) {
                            Some(there) => *there = value,
                            None => drop(model.shift_insert(at, key, value)),
                        }
                    }
                    Step::Default(key, value) => {
                        object.set_default(&format!("k{key}"), value);
                        model.entry(format!("k{key}")).or_insert(value);
                    }
                    Step::Retain(by) => {
                        object.retain(|_, value| value.as_int().is_some_and(|value| value % by != 0));
                        model.retain(|_, value| *value % by != 0);
                    }
                    Step::Sort => {
                        object.sort();
                        model.sort_keys();
                    }
                }
                prop_assert!(
                    object
                        .iter()
                        .map(|(key, value)| (key.as_str(), value.as_int().unwrap_or(0)))
                        .eq(model.iter().map(|(key, value)| (key.as_str(), *value)))
                );
                for key in 0..40u8 {
                    let key = format!("k{key}");
                    prop_assert_eq!(object.get(&key).and_then(Value::as_int), model.get(&key).copied());
                }
                prop_assert_eq!(object.index.is_some(), object.len() > SCANNED);
            }
            let mut turned: Object = object.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(&turned, &object);
            turned.insert("another", true);
            prop_assert_ne!(&turned, &object);
        }
    }
}
