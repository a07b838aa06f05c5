//! One thing done with many segments: what fails with one does not keep the others from it.

use super::RetainError;

/// Failures that are logged one by one, at most; the others are counted.
const MAX_SAID: u64 = 10;

/// What came of it so far.
#[derive(Debug)]
pub(super) struct Tries {
    what: &'static str,
    first: Option<RetainError>,
    failed: u64,
}

impl Tries {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, first: None, failed: 0 }
    }

    /// Keeps the first error for [`Self::end`], logs the others.
    ///
    /// # Errors
    /// The collector is stopping, or a hold came: that ends all of it.
    pub(super) fn one<T>(
        &mut self,
        done: Result<T, RetainError>,
    ) -> Result<Option<T>, RetainError> {
        match done {
            Ok(done) => return Ok(Some(done)),
            Err(error @ (RetainError::Stopping | RetainError::Held(_))) => return Err(error),
            Err(error) if self.first.is_none() => self.first = Some(error),
            Err(error) if self.failed < MAX_SAID => {
                log::error!(what = self.what, error:% = error; "retention cannot do a part of its work; it is tried again");
            }
            Err(_) => {}
        }
        self.failed += 1;
        Ok(None)
    }

    /// The first error, if there was one.
    pub(super) fn end(self) -> Result<(), RetainError> {
        let Some(first) = self.first else { return Ok(()) };
        if self.failed > 1 {
            log::error!(what = self.what, failed = self.failed; "several parts of the work have failed");
        }
        Err(first)
    }
}
