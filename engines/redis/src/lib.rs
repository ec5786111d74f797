//! State on Redis.
