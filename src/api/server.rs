//! The API behind warp.
