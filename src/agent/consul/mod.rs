//! Services in Consul: what is registered with the machine's Consul agent, and how its checks stand.
//!
//! The managers of services say what they want to be registered; [`sync`] brings the Consul agent to that, again and
//! again, so that one which was restarted or edited by hand is put right.

mod client;
#[cfg(test)]
#[path = "../../../tests/support/consul.rs"]
#[expect(dead_code, reason = "the end-to-end tests need more of it")]
pub(in crate::agent) mod fake;
pub mod fingerprint;
mod sync;

pub use client::Client;
pub use client::ConsulError;
pub use client::ConsulOptions;
pub use sync::CheckStates;
pub use sync::Registration;
pub use sync::Registry;
