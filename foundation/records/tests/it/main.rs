//! The contract of records, on the real databases.

mod sqlite;
