//! Access to the files of allocations on this node, for the API: listing, reading, and following files and logs.

pub mod beneath;
