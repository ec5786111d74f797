//! The binary as its users see it: what it prints, and what a running node does.

mod election;
mod fake_node;
mod golden;
mod harness;
mod load;
mod output;
mod run;
mod survival;
mod up;
mod web;
