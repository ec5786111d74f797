//! What lines tell and never tell, and where they and metrics go to.

mod client;
mod collector;
mod exports;
mod secrets;
