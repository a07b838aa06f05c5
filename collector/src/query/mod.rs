//! Questions to the index: the filter, the search line, the API.

pub mod api;
pub mod auth;
pub mod filter;
pub mod keys;
pub mod line;
#[cfg(test)]
mod line_tests;
pub mod params;
pub mod problem;
pub mod when;
