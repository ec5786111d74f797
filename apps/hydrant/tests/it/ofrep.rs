//! OpenFeature's own clients, unchanged, against a real `hydrant up`: flags of each type, changes while
//! they run, 304, 429, wrong keys; and what a stream of changes meets on its way through the router.

mod servers;
pub mod stage;
mod streams;
mod web;
