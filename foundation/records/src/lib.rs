//! SQL for services that own tables: one way to ask, over SQLite by default and MariaDB by its URL.
