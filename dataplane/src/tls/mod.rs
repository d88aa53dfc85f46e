//! TLS: key material, the server side by SNI, the client side towards backends.
//!
//! Owns rustls configurations. Opens no socket and reads no request.

pub mod client;
pub mod client_check;
pub mod material;
pub mod parameters;
pub mod server;
mod signatures;
