//! The nouns: plain data without I/O, clock or store.
//!
//! The serde form of every type is Nomad's JSON (PascalCase keys, durations as integer nanoseconds), in the store
//! and on the wire alike. Who may write what: users write specifications and intents, controllers write
//! allocations, deployments, evaluations and node status, agents write what stands under `reported/`.

pub mod allocation;
pub mod audit;
pub mod children;
pub mod constraint;
pub mod deployment;
pub mod diff;
pub mod driver_schema;
pub mod evaluation;
pub mod exec;
pub mod group;
pub mod hcl;
pub mod id;
pub mod identity;
pub mod interpolate;
pub mod job;
pub mod multierror;
pub mod network;
pub mod node;
pub mod resources;
pub mod schedule;
pub mod service;
pub mod task;
pub mod time;
pub mod usage;
pub mod wire;
