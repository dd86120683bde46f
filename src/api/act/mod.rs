//! Writes: what a request asks for, handed to `intent`, and the answer in Nomad's form.

pub(super) mod jobs;
