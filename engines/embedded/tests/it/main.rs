//! The embedded engine from outside: the contract suites, kills, damage, and a model.

mod contract;
mod files;
mod kill;
mod model;
