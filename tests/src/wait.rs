//! Waiting for something that can be seen, never for time to pass.

use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` finds something.
///
/// # Panics
/// After `limit`, naming `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    eventually(limit, &mut look)
        .unwrap_or_else(|| panic!("waited {} s in vain: {what}", limit.as_secs_f32()))
}

/// As [`until`]; `None` after `limit`.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let over = began.elapsed() >= limit;
        if let Some(found) = look() {
            return Some(found);
        }
        if over {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks for as long as `span`, and each time asks that `look` finds nothing wrong.
///
/// # Panics
/// With what `look` found.
pub fn throughout(span: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while began.elapsed() < span {
        if let Err(wrong) = look() {
            panic!("{:.1} s into {span:?}: {wrong}", began.elapsed().as_secs_f32());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
