//! The contract of records on the real databases, and what each of them promises beside it.

mod copy;
mod fence;
mod galera;
mod mariadb;
mod processes;
mod sqlite;
