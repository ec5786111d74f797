//! Attacks on a router in a process of its own: what each costs is printed, and bounded, and a client
//! beside it gets every answer.

mod http1;
mod http2;
mod victim;
