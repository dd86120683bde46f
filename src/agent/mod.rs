//! agent

pub mod fingerprint;
