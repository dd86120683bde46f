//! Herder runs and watches over applications on a cluster.
//!
//! ```text
//!  job file ─► jobspec ─► model::Job ─► api / cli ─► store (etcd) ◄─────────────────────┐
//!                                                       │ ONE root list+watch per server │
//!                                                       ▼                                │
//!                                                     mirror   typed copy "as of rev R"  │
//!                                                       │ dirty keys                     │
//!                                                       ▼                                │
//!                                  controllers   view ─► plan (pure) ─► commit ──────────┤ fenced txn
//!                                       │  ▲                                             │
//!                               request ▼  │ placement, or typed reasons                 │
//!                                    scheduler   pure: filter, score all nodes           │
//!                                                                                        │
//!  node agent ◄── watch agents/<me>/desired/ ────────────────────────────────────────────┤
//!       ▼                                                                                │
//!     drivers: docker exec raw_exec java ──► observed ──► agents/<me>/reported/ ─────────┘
//! ```
//!
//! Modules stand in the order data flows and import only upwards in this list; `tests/tidy.rs` checks it.

pub mod model;

pub mod clock;
pub mod telemetry;

pub mod gotemplate;
pub mod jobspec;
pub mod scheduler;

pub mod controllers;
pub mod mirror;
pub mod store;

pub mod agent;
pub mod drivers;

pub mod api;
pub mod cli;
pub mod client;

pub mod config;
pub mod run;
