//! What policies ask for on a backend and on a listener, end to end: the real dataplane on loopback between real clients
//! and real backends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod balancing;
mod clients;
mod connections;
mod ending;
mod grpc_web;
mod heads;
mod health;
mod listeners;
mod tls;
mod utilization;

use support::config as cfg;
