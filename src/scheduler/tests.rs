//! Scenarios for placement: small clusters written as text, and what must come out.

mod cluster;
mod feasible;
mod fixture;
mod ports;
mod random;
mod score;
