use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_contracts::{Code, Error, Identity};

/// Bounds how many of something the callers of the local API may hold, each and all together.
#[derive(Clone)]
pub(crate) struct Quota(Arc<Shared>);

struct Shared {
    what: &'static str,
    per_caller: usize,
    in_all: usize,
    held: Mutex<HashMap<Identity, usize>>,
}

/// One of the things that are counted. Dropping it gives it back.
pub(crate) struct Permit {
    quota: Quota,
    owner: Identity,
}

impl Quota {
    /// At most `per_caller` of `what` for one caller, and `in_all` for all of them.
    pub(crate) fn new(what: &'static str, per_caller: usize, in_all: usize) -> Self {
        Self(Arc::new(Shared {
            what,
            per_caller,
            in_all,
            held: Mutex::default(),
        }))
    }

    /// Takes one for `owner`, or fails with `resource_exhausted`.
    pub(crate) fn take(&self, owner: &Identity) -> Result<Permit, Error> {
        let mut held = self.held();
        if held.values().sum::<usize>() >= self.0.in_all {
            return Err(self.refusal("this node holds", self.0.in_all));
        }
        let own = held.entry(owner.clone()).or_default();
        if *own >= self.0.per_caller {
            return Err(self.refusal(&format!("{owner} holds"), self.0.per_caller));
        }
        *own += 1;
        Ok(Permit {
            quota: self.clone(),
            owner: owner.clone(),
        })
    }

    /// How many are held in all.
    pub(crate) fn count(&self) -> usize {
        self.held().values().sum()
    }

    fn refusal(&self, who: &str, most: usize) -> Error {
        let message = format!("{who} {most} {}, and may hold no more", self.0.what);
        Error::new(Code::ResourceExhausted, "quota_exceeded", message)
            .mend("close streams that are not needed any more")
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Identity, usize>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.quota.held();
        if let Some(own) = held.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_cannot_take_what_others_need() {
        let quota = Quota::new("leases", 2, 3);
        let one = Identity::Service("api/one".parse().unwrap());
        let two = Identity::Service("api/two".parse().unwrap());
        let first = quota.take(&one).unwrap();
        let _second = quota.take(&one).unwrap();
        let refused = quota.take(&one).err().unwrap();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(
            refused.message.contains("api/one holds 2 leases"),
            "{refused}"
        );
        let _third = quota.take(&two).unwrap();
        assert!(quota.take(&two).is_err(), "the node is full");
        drop(first);
        assert!(quota.take(&one).is_ok());
        assert_eq!(quota.count(), 2);
    }
}
