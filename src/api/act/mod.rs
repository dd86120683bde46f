//! Writes: what a request asks for, handed to `intent`, and the answer in Nomad's form.

pub(super) mod client;
pub(super) mod deployments;
pub(super) mod jobs;
pub(super) mod nodes;
pub(super) mod search;
pub(super) mod settings;
