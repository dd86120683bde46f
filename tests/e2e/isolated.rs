//! isolated
