//! Finds nodes for allocations. Pure: no I/O, clock or randomness; the same input gives the same answer.
//!
//! A [`Cluster`] holds nodes and usage and is kept up to date change by change. [`place`] filters and scores every
//! node for the slots of one group and charges what it chose at once, so that the next request sees it.

mod attribute;
mod cluster;
mod device;
mod feasible;
mod footprint;
mod grant;
mod metric;
mod node;
mod place;
mod ports;
mod property;
mod ranking;
mod round;
mod scan;
mod score;
mod unfit;
mod version;

pub use cluster::AllocFacts;
pub use cluster::Cluster;
pub use footprint::Charge;
pub use footprint::Footprint;
pub use footprint::footprint;
pub use node::NodeFacts;
pub use place::Decision;
pub use place::Placement;
pub use place::Refusal;
pub use place::Request;
pub use place::Slot;
pub use place::check_node;
pub use place::place;
pub use place::still_fits;
pub use ports::PortGrant;
pub use score::Algorithm;
pub use unfit::Unfit;

#[cfg(test)]
mod tests;
