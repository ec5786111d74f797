//! Previews: who has a signed link sees an entry before it is published.

pub(crate) mod page;
pub(crate) mod token;
pub(crate) mod vault;
