//! Evidence as strangers get it: made in one place, changed in another, judged by what the crate
//! shows to everybody.

#[cfg(test)]
mod clean;
#[cfg(test)]
mod common;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod program;
#[cfg(test)]
mod tamper;
#[cfg(test)]
mod wire;
