//! The binary as its users see it: what it prints, and what a running node does.

mod clients;
mod content;
mod docs;
mod election;
mod fake_node;
mod fences;
mod fleet;
mod fleet_views;
mod foreign;
mod golden;
mod harness;
mod load;
mod mobile;
mod mobile_chaos;
mod mobile_operations;
mod mobile_sources;
mod ofrep;
mod output;
mod revisions;
mod run;
mod size;
mod survival;
mod up;
mod web;
mod websocket;
mod zookeeper;
