//! Keys as znodes.
//!
//! The last part of a key is a leaf, marked with `=`; the parts before it are directories. So the
//! keys `l/b` and `l/b/1` can both exist, and an ephemeral znode never needs children:
//!
//! ```text
//! l/b    →  /hydrant/keys/l/=b
//! l/b/1  →  /hydrant/keys/l/b/=1
//! ```
//!
//! A directory whose name begins with `=` or `~` gets a `~` in front.

use hydrant_ports::{Key, Prefix};

/// Marks a leaf.
const LEAF: char = '=';

/// Stands before a directory's name that would be taken for a leaf.
const ESCAPE: char = '~';

/// A folder of znodes that mirror keys.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: String,
}

/// The name of a child znode.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    Leaf(&'a str),
    Directory(&'a str),
}

impl Tree {
    pub(crate) fn new(root: String) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The directory and the leaf of a key.
    pub(crate) fn place(&self, key: &Key) -> Place {
        let (parents, last) = match key.as_str().rsplit_once('/') {
            Some((parents, last)) => (Some(parents), last),
            None => (None, key.as_str()),
        };
        let directory = self.directory(parents.into_iter().flat_map(|parents| parents.split('/')));
        let leaf = format!("{directory}/{LEAF}{last}");
        Place { directory, leaf }
    }

    /// The deepest directory that holds all that begins with `prefix`.
    pub(crate) fn directory_of(&self, prefix: &Prefix) -> String {
        let parents = prefix.as_str().rsplit_once('/').map(|(parents, _)| parents);
        self.directory(parents.into_iter().flat_map(|parents| parents.split('/')))
    }

    fn directory<'a>(&self, parts: impl Iterator<Item = &'a str>) -> String {
        let mut path = self.root.clone();
        for part in parts {
            path.push('/');
            if part.starts_with([LEAF, ESCAPE]) {
                path.push(ESCAPE);
            }
            path.push_str(part);
        }
        path
    }

    /// The text with which every key below a directory begins; `None` for what is no directory of
    /// this tree.
    pub(crate) fn keys_below(&self, directory: &str) -> Option<String> {
        let below = directory.strip_prefix(&self.root)?;
        let mut text = String::with_capacity(below.len() + 1);
        let Some(below) = below.strip_prefix('/') else {
            return below.is_empty().then_some(text);
        };
        for part in below.split('/') {
            let Name::Directory(part) = name(part)? else {
                return None;
            };
            text.push_str(part);
            text.push('/');
        }
        Some(text)
    }

    /// The key of a leaf; `None` for what is none.
    pub(crate) fn key(&self, leaf: &str) -> Option<Key> {
        let (directory, last) = leaf.rsplit_once('/')?;
        let Name::Leaf(last) = name(last)? else {
            return None;
        };
        let mut key = self.keys_below(directory)?;
        key.push_str(last);
        key.parse().ok()
    }
}

/// Where a key is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) directory: String,
    pub(crate) leaf: String,
}

/// What a znode's name says, without its mark.
pub(crate) fn name(text: &str) -> Option<Name<'_>> {
    if let Some(leaf) = text.strip_prefix(LEAF) {
        return (!leaf.is_empty()).then_some(Name::Leaf(leaf));
    }
    let directory = text.strip_prefix(ESCAPE).unwrap_or(text);
    (!directory.is_empty()).then_some(Name::Directory(directory))
}

/// Whether a directory can hold keys that begin with `prefix`, or only such ones.
pub(crate) fn may_hold(prefix: &Prefix, below: &str) -> bool {
    below.starts_with(prefix.as_str()) || prefix.as_str().starts_with(below)
}

/// The directory that a znode is in.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree() -> Tree {
        Tree::new("/root/keys".into())
    }

    fn parts() -> impl Strategy<Value = Key> {
        // Marks are as frequent as anything else.
        let part = prop_oneof!["[=~]{0,3}[a-c=~.]{1,3}", "[!-.0-~]{1,12}",];
        proptest::collection::vec(part, 1..5)
            .prop_filter_map("a key", |parts| parts.join("/").parse().ok())
    }

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_znode(key in parts()) {
            let place = tree().place(&key);
            prop_assert_eq!(tree().key(&place.leaf), Some(key.clone()));
            prop_assert_eq!(parent(&place.leaf), &place.directory);
            let below = tree().keys_below(&place.directory).unwrap();
            prop_assert!(key.as_str().starts_with(&below));
        }

        #[test]
        fn no_two_keys_share_a_znode(one in parts(), other in parts()) {
            let (a, b) = (tree().place(&one), tree().place(&other));
            prop_assert_eq!(one == other, a.leaf == b.leaf);
            // A leaf is nobody's directory.
            prop_assert_ne!(&a.leaf, &b.directory);
            let inside = format!("{}/", a.leaf);
            prop_assert!(!b.leaf.starts_with(&inside));
        }

        #[test]
        fn a_prefix_is_within_its_directory(key in parts(), cut in 1_usize..64) {
            let text = key.as_str();
            let Some(prefix) = text.get(..cut.min(text.len())).and_then(|text| text.parse::<Prefix>().ok()) else {
                return Ok(());
            };
            let directory = tree().directory_of(&prefix);
            let place = tree().place(&key);
            let inside = format!("{directory}/");
            let holds_it = format!("{}/", place.directory).starts_with(&inside);
            prop_assert!(holds_it);
            let below = tree().keys_below(&place.directory).unwrap();
            prop_assert!(may_hold(&prefix, &below));
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for path in [
            "/root/keys",
            "/root/keys/a",
            "/root/keys/=",
            "/root/keys/=a/=b",
            "/other/=a",
            "/root/keysx/=a",
        ] {
            assert_eq!(tree().key(path), None, "{path}");
        }
    }
}
