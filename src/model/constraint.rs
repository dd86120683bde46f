//! Constraints, affinities and spreads: what a job asks of nodes. Evaluation lives in `scheduler::feasible`.

use serde::Deserialize;
use serde::Serialize;

use super::wire::null;

/// A hard requirement on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraint {
    #[serde(rename = "LTarget")]
    pub left: String,
    #[serde(rename = "RTarget")]
    pub right: String,
    /// One of Nomad's operators, spelled as in the job file (`=`, `distinct_hosts`, …).
    #[serde(rename = "Operand")]
    pub operand: String,
}

/// A preference; weight from -100 to 100.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Affinity {
    #[serde(rename = "LTarget")]
    pub left: String,
    #[serde(rename = "RTarget")]
    pub right: String,
    #[serde(rename = "Operand")]
    pub operand: String,
    #[serde(rename = "Weight")]
    pub weight: i64,
}

/// A wish to distribute allocations over the values of an attribute; weight 0 to 100.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Spread {
    pub attribute: String,
    pub weight: i64,
    #[serde(with = "null")]
    pub spread_target: Vec<SpreadTarget>,
}

/// A share of a spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpreadTarget {
    pub value: String,
    pub percent: u32,
}
