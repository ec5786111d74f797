//! Flags as the public schema, the public test bed and the public evaluators see them.

mod allocations;
mod dearest;
mod evaluators;
mod generate;
mod page;
mod schema;
mod test_bed;
mod vectors;
