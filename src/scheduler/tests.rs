//! Scenarios for placement.
