//! Questions to the index: the filter, the search line, the API.

pub mod filter;
pub mod keys;
