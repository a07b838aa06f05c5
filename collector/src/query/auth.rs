//! Who asks: a bearer token, checked by the access room.

pub use crate::access::{Authenticator, Gate, Permission, Principal, bearer};
