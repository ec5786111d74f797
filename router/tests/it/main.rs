//! The router as its users see it.

mod attacks;
mod balance;
mod cost;
mod decide;
mod differential;
mod fleet;
mod grpc_kinds;
mod hostile;
mod http1;
mod http1_edges;
mod http2;
mod http2_hostile;
mod http2_rules;
mod named;
mod outliers;
mod overload;
mod peer;
mod peer_http2;
mod peer_tls;
mod raw;
mod rules;
mod snapshot;
mod taps;
mod visitors;
