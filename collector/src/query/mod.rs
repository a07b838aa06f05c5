//! Questions to the index: the filter, the search line, the API.

pub(crate) mod answer;
pub mod api;
pub mod auth;
mod basis;
#[cfg(test)]
mod calls_tests;
pub mod condition;
pub mod filter;
#[cfg(test)]
mod fuzz_tests;
pub mod history;
pub mod keys;
pub mod line;
#[cfg(test)]
mod line_tests;
pub mod openapi;
pub mod params;
pub mod problem;
#[cfg(test)]
mod questions;
pub mod seen;
pub mod suggest;
pub mod tail;
#[cfg(test)]
pub(crate) mod testbed;
pub mod timeline;
pub mod when;
