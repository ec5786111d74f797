//! Which crate may depend on which: read from the table in ARCHITECTURE.md, so that the page and
//! the check can't differ.

use std::collections::{BTreeMap, BTreeSet};

/// What each folder may depend on, what those may included.
#[derive(Debug, Default)]
pub struct Rules(BTreeMap<String, BTreeSet<String>>);

impl Rules {
    /// Reads the rows `| folders | … | folders that it may depend on |`. A folder is named by its
    /// path or its last part; `–` stands for none, `all of the above` for every row before.
    pub fn read(page: &str) -> Self {
        let mut rules = Self::default();
        for line in page.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let ["", folder, _, may, ""] = cells.as_slice()
                && let Some(folder) = folder.strip_prefix('`').and_then(|f| f.strip_suffix('`'))
            {
                let allowed = rules.allowed(may);
                rules.0.insert(folder.to_owned(), allowed);
            }
        }
        rules
    }

    /// Whether the page has a row for the folder.
    pub fn knows(&self, folder: &str) -> bool {
        self.0.contains_key(folder)
    }

    /// Whether the crate in the folder `from` may depend on the one in `to`.
    pub fn allow(&self, from: &str, to: &str) -> bool {
        self.0.get(from).is_some_and(|allowed| allowed.contains(to))
    }

    fn allowed(&self, may: &str) -> BTreeSet<String> {
        if may == "all of the above" {
            return self.0.keys().cloned().collect();
        }
        let mut allowed = BTreeSet::new();
        for name in may.split(',').map(|name| name.trim().trim_matches('`')) {
            let named = |folder: &str| folder == name || folder.rsplit('/').next() == Some(name);
            for (folder, below) in self.0.iter().filter(|(folder, _)| named(folder)) {
                allowed.insert(folder.clone());
                allowed.extend(below.iter().cloned());
            }
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "
| folder | what is in it | may depend on |
| --- | --- | --- |
| `base/contracts` | names | – |
| `base/ports` | traits | contracts |
| `engines/embedded` | one process | ports |
| `router` | traffic | contracts |
| `apps/hydrant` | the binary | all of the above |
";

    #[test]
    fn what_a_dependency_may_use_is_allowed_too() {
        let rules = Rules::read(PAGE);
        assert!(rules.allow("engines/embedded", "base/ports"));
        assert!(rules.allow("engines/embedded", "base/contracts"));
        assert!(rules.allow("apps/hydrant", "engines/embedded"));
        assert!(!rules.allow("base/contracts", "base/ports"));
        assert!(!rules.allow("router", "engines/embedded"));
        assert!(!rules.allow("router", "apps/hydrant"));
        assert!(!rules.knows("folder"));
    }
}
