//! The books: read = stored + filtered + gap, for every source, in the chain.

use std::collections::BTreeMap;

use custody_event::SourceBook;

/// Every source's book since the agent began to keep books. A new stream continues them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    by_source: BTreeMap<String, SourceBook>,
}

/// Spool keys of books begin with this; the source's id follows.
const PREFIX: &[u8] = b"book/";

impl Books {
    /// From what the spool kept.
    ///
    /// # Errors
    /// A book cannot be read.
    pub fn from_saved(saved: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<Self> {
        let mut by_source = BTreeMap::new();
        for (key, value) in saved {
            let source = key.strip_prefix(PREFIX).unwrap_or(key);
            by_source.insert(
                String::from_utf8_lossy(source).into_owned(),
                serde_json::from_slice(value)?,
            );
        }
        Ok(Self { by_source })
    }

    /// The spool prefix under which books stand.
    #[must_use]
    pub fn prefix() -> &'static [u8] {
        PREFIX
    }

    /// Adds what a block or a batch counted for `source` and returns the book after it.
    pub fn add(&mut self, source: &str, counted: &SourceBook) -> SourceBook {
        let book = match self.by_source.get_mut(source) {
            Some(book) => book,
            None => self.by_source.entry(source.to_owned()).or_default(),
        };
        book.add(counted);
        *book
    }

    /// A source's book.
    #[must_use]
    pub fn of(&self, source: &str) -> SourceBook {
        self.by_source.get(source).copied().unwrap_or_default()
    }

    /// The key and value that keep a book in the spool.
    ///
    /// # Errors
    /// It cannot be written as JSON (out of memory).
    pub fn saved(source: &str, book: &SourceBook) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        Ok(([PREFIX, source.as_bytes()].concat(), serde_json::to_vec(book)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_add_up_and_read_back() {
        let mut books = Books::default();
        let one = SourceBook { filtered: 1, gap: 0, read: 3, stored: 2 };
        books.add("auth", &one);
        let after = books.add("auth", &one);
        assert_eq!(after, SourceBook { filtered: 2, gap: 0, read: 6, stored: 4 });
        assert!(after.is_balanced());
        let saved = Books::saved("auth", &after).unwrap();
        assert_eq!(Books::from_saved(&[saved]).unwrap(), books);
    }
}
