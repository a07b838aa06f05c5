//! Evidence as strangers get it: made in one place, changed in another, judged by what the crate
//! shows to everybody.

mod clean;
mod common;
mod program;
mod tamper;
