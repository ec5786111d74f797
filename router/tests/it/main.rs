//! The router as its users see it.

mod decide;
mod fleet;
mod hostile;
mod http1;
mod http1_edges;
mod http2;
mod http2_hostile;
mod peer;
mod raw;
