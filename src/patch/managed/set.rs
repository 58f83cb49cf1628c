//! Sets of field paths as trees, and their algebra. Follows sigs.k8s.io/structured-merge-diff/v6/fieldpath/set.go.

use std::cmp::Ordering;

use super::element::Element;

/// A set of field paths. Every level is sorted, and no node is useless: it is a member, or has members below
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<Node>,
}

/// An element at one level of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The step.
    pub element: Element,
    /// Whether the path that ends here is in the set.
    pub member: bool,
    /// The part of the set below.
    pub children: Set,
}

impl Set {
    /// The empty set.
    pub const EMPTY: Set = Set { nodes: Vec::new() };

    /// The set of these paths, each made of names of object members.
    pub fn of_fields(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert_fields(path);
        }
        set
    }

    /// The elements at this level, sorted.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a path made of names of object members.
    pub fn insert_fields(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let node = self.entry(Element::field(first));
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert_fields(rest);
        }
    }

    /// Whether the set contains a path made of names of object members.
    pub fn has_fields(&self, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        self.node(&Element::field(first)).is_some_and(|node| {
            if rest.is_empty() {
                node.member
            } else {
                node.children.has_fields(rest)
            }
        })
    }

    /// The node of an element at this level.
    pub fn node(&self, element: &Element) -> Option<&Node> {
        self.nodes
            .binary_search_by(|node| node.element.cmp(element))
            .ok()
            .map(|at| &self.nodes[at])
    }

    /// The node of an element, inserted if missing. The caller must make it a member or add members below it.
    pub fn entry(&mut self, element: Element) -> &mut Node {
        let at = match self
            .nodes
            .binary_search_by(|node| node.element.cmp(&element))
        {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(
                    at,
                    Node {
                        element,
                        member: false,
                        children: Set::default(),
                    },
                );
                at
            }
        };
        &mut self.nodes[at]
    }

    /// Appends a node that is a member or has members below it; [`Set::seal`] sorts the level.
    pub fn push(&mut self, element: Element, member: bool, children: Set) {
        if member || !children.is_empty() {
            self.nodes.push(Node {
                element,
                member,
                children,
            });
        }
    }

    /// Sorts a level to which nodes of different elements were pushed.
    pub fn seal(&mut self) {
        if !self.nodes.is_sorted_by(|a, b| a.element < b.element) {
            self.nodes.sort_by(|a, b| a.element.cmp(&b.element));
        }
    }

    /// Sorts a level to which nodes of equal elements may have been pushed: `merge` adds a later one to an earlier.
    pub fn seal_with(&mut self, mut merge: impl FnMut(&mut Node, Node)) {
        if self.nodes.is_sorted_by(|a, b| a.element < b.element) {
            return;
        }
        self.seal();
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..) {
            match nodes.last_mut() {
                Some(last) if last.element.cmp(&node.element).is_eq() => merge(last, node),
                _ => nodes.push(node),
            }
        }
        self.nodes = nodes;
    }

    /// The paths in any of the sets. Two at a time, so that each path is moved as often as the number of sets can be
    /// halved.
    pub fn union_of(mut sets: Vec<Set>) -> Set {
        while sets.len() > 1 {
            let mut rest = sets.into_iter();
            let mut pairs = Vec::with_capacity(rest.len().div_ceil(2));
            while let Some(set) = rest.next() {
                pairs.push(match rest.next() {
                    Some(other) => set.union(other),
                    None => set,
                });
            }
            sets = pairs;
        }
        sets.pop().unwrap_or_default()
    }

    /// The paths in either set.
    pub fn union(self, other: Set) -> Set {
        if other.is_empty() {
            return self;
        }
        if self.is_empty() {
            return other;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut a, mut b) = (self.nodes.into_iter(), other.nodes.into_iter());
        let (mut next_a, mut next_b) = (a.next(), b.next());
        loop {
            match (next_a, next_b) {
                (Some(x), Some(y)) => match x.element.cmp(&y.element) {
                    Ordering::Less => {
                        nodes.push(x);
                        (next_a, next_b) = (a.next(), Some(y));
                    }
                    Ordering::Greater => {
                        nodes.push(y);
                        (next_a, next_b) = (Some(x), b.next());
                    }
                    Ordering::Equal => {
                        nodes.push(Node {
                            element: x.element,
                            member: x.member || y.member,
                            children: x.children.union(y.children),
                        });
                        (next_a, next_b) = (a.next(), b.next());
                    }
                },
                (x, y) => {
                    nodes.extend(x.into_iter().chain(a));
                    nodes.extend(y.into_iter().chain(b));
                    return Set { nodes };
                }
            }
        }
    }

    /// The paths in both sets.
    pub fn intersection(&self, other: &Set) -> Set {
        if self.is_empty() || other.is_empty() {
            return Set::default();
        }
        let mut out = Set::default();
        for (a, b) in zip(self, other) {
            if let (Some(a), Some(b)) = (a, b) {
                out.push(
                    a.element.clone(),
                    a.member && b.member,
                    a.children.intersection(&b.children),
                );
            }
        }
        out
    }

    /// The paths in this set but not in the other. A path is not removed by one above or below it.
    pub fn difference(self, other: &Set) -> Set {
        self.without(other, false)
    }

    /// The paths in this set that are neither in the other nor below one of its paths.
    pub fn recursive_difference(self, other: &Set) -> Set {
        self.without(other, true)
    }

    fn without(mut self, other: &Set, recursive: bool) -> Set {
        if other.is_empty() {
            return self;
        }
        let mut others = other.nodes.iter().peekable();
        self.nodes.retain_mut(|node| {
            while others
                .next_if(|there| there.element < node.element)
                .is_some()
            {}
            let Some(there) = others.next_if(|there| there.element == node.element) else {
                return true;
            };
            if recursive && there.member {
                return false;
            }
            node.member &= !there.member;
            node.children = std::mem::take(&mut node.children).without(&there.children, recursive);
            node.member || !node.children.is_empty()
        });
        self
    }

    /// Whether the other set contains every path of this one.
    pub fn is_subset(&self, other: &Set) -> bool {
        self.nodes.iter().all(|a| {
            other
                .node(&a.element)
                .is_some_and(|b| (b.member || !a.member) && a.children.is_subset(&b.children))
        })
    }

    /// Calls `visit` with every path in the set: at each level first those that end there, then those below.
    pub fn each(&self, visit: &mut impl FnMut(&[&Element])) {
        fn go<'a>(set: &'a Set, path: &mut Vec<&'a Element>, visit: &mut impl FnMut(&[&Element])) {
            for node in set.nodes.iter().filter(|node| node.member) {
                path.push(&node.element);
                visit(path);
                path.pop();
            }
            for node in &set.nodes {
                path.push(&node.element);
                go(&node.children, path, visit);
                path.pop();
            }
        }
        go(self, &mut Vec::new(), visit);
    }

    /// Every path in the set in readable form: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.each(&mut |path| out.push(path.iter().map(ToString::to_string).collect()));
        out
    }
}

/// Walks two levels in parallel.
fn zip<'a>(
    a: &'a Set,
    b: &'a Set,
) -> impl Iterator<Item = (Option<&'a Node>, Option<&'a Node>)> + 'a {
    let (mut a, mut b) = (a.nodes.iter().peekable(), b.nodes.iter().peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (None, None) => None,
        (Some(_), None) => Some((a.next(), None)),
        (None, Some(_)) => Some((None, b.next())),
        (Some(x), Some(y)) => Some(match x.element.cmp(&y.element) {
            Ordering::Less => (a.next(), None),
            Ordering::Greater => (None, b.next()),
            Ordering::Equal => (a.next(), b.next()),
        }),
    })
}
