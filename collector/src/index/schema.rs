//! The fields of the tantivy index, and an event turned into a document of them.
//!
//! | field | kind | what |
//! |---|---|---|
//! | `terms` | postings, no frequencies, positions or norms | values under their tag, words |
//! | `time` | column | the event's time, microseconds |
//! | `place` | column | the block's place in the evidence log: segment · 2^40 + offset |
//! | `index` | column | the event's index in the block |
//! | `id` | column | the first 32 bits of the event's id; the event itself settles the rest |
//!
//! Nothing is stored: the event is read from the evidence log. One postings field for all keys
//! keeps the files of a small segment few, and a filter is a term whatever its key.

use custody_event::{EventId, EventView, Timestamp};
use tantivy::schema::{
    Field, IndexRecordOption, NumericOptions, Schema, TantivyDocument, TextFieldIndexing,
    TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer};
use tantivy::{Index, Term};

use super::IndexError;
use super::terms::{self, Sink, Tag};
use crate::store::{LogCursor, StoredBlock};

/// The index's format: what is in a document, and how. Anything that changes what a search finds
/// or how the columns are read makes a new one; an index of another format is made again.
pub const FORMAT: u32 = 3;

const TOKENIZER: &str = "lines";
/// No value and no word has this character: control characters are folded to spaces.
const SEPARATOR: char = '\n';
const OFFSET_BITS: u32 = 40;
const MAX_OFFSET: u64 = (1 << OFFSET_BITS) - 1;
const MAX_SEGMENT: u64 = (1 << (64 - OFFSET_BITS)) - 1;
/// Bits of an event's id in the `id` column: at a thousand million events one look-up in four
/// meets a stranger, and looks at one event more. (Ids are the beginning of a SHA-256.)
const ID_BITS: u32 = 32;

/// The fields, by handle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) terms: Field,
    time: Field,
    place: Field,
    index: Field,
    id: Field,
}

/// Names of the columns.
pub(super) const TIME: &str = "time";
pub(super) const PLACE: &str = "place";
pub(super) const INDEX: &str = "index";
pub(super) const ID: &str = "id";

impl Fields {
    /// The schema and its handles.
    pub(super) fn schema() -> (Schema, Self) {
        let mut builder = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(TOKENIZER)
            .set_index_option(IndexRecordOption::Basic)
            .set_fieldnorms(false);
        let column = || NumericOptions::default().set_fast();
        let fields = Self {
            terms: builder
                .add_text_field("terms", TextOptions::default().set_indexing_options(indexing)),
            time: builder.add_i64_field(TIME, column()),
            place: builder.add_u64_field(PLACE, column()),
            index: builder.add_u64_field(INDEX, column()),
            id: builder.add_u64_field(ID, column()),
        };
        (builder.build(), fields)
    }

    /// The term of a value that is already folded.
    pub(super) fn term(&self, tag: Tag, folded: &str) -> Term {
        let mut text = String::with_capacity(folded.len() + 1);
        text.push(tag.letter());
        text.push_str(folded);
        Term::from_field_text(self.terms, &text)
    }

    /// The term of what stands at a path; both folded already.
    pub(super) fn term_at(&self, tag: Tag, path: &str, folded: &str) -> Term {
        Term::from_field_text(self.terms, &format!("{}{path}{}{folded}", tag.letter(), terms::AT))
    }
}

/// Tells the index how the `terms` field is cut into terms.
pub(super) fn register_tokenizer(index: &Index) {
    index.tokenizers().register(TOKENIZER, TextAnalyzer::from(Lines::default()));
}

/// A block's place as one number that sorts as places do; `None` beyond 16 million segments or
/// a tebibyte in one.
pub(super) fn pack_place(at: LogCursor) -> Option<u64> {
    (at.segment <= MAX_SEGMENT && at.offset <= MAX_OFFSET)
        .then_some(at.segment << OFFSET_BITS | at.offset)
}

/// The place that a number stands for.
pub(super) fn unpack_place(place: u64) -> LogCursor {
    LogCursor { segment: place >> OFFSET_BITS, offset: place & MAX_OFFSET }
}

/// The part of an id that its column keeps.
pub(super) fn short_id(id: &EventId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(first) >> (64 - ID_BITS)
}

/// Turns events into documents; keeps its working space.
#[derive(Debug)]
pub(super) struct Documents {
    fields: Fields,
    joined: Joined,
}

/// Terms of one event, each followed by the separator.
#[derive(Debug, Default)]
struct Joined {
    text: String,
    run: String,
    /// Ids that stand under a tag of their own, one after the other: they are not kept as words as well.
    ids: String,
}

impl Joined {
    fn begin(&mut self, tag: Tag, path: &str) {
        self.text.push(tag.letter());
        self.text.push_str(&terms::folded_path(path));
        self.text.push(terms::AT);
    }
}

impl Sink for Joined {
    fn field(&mut self, path: &str, value: &str) {
        if !value.is_empty() {
            self.begin(Tag::Field, path);
            terms::push_value(value, &mut self.text);
            self.text.push(SEPARATOR);
        }
    }

    fn number(&mut self, path: &'static str, value: i64) {
        self.begin(Tag::Number, path);
        self.text.push_str(&terms::number_digits(value));
        self.text.push(SEPARATOR);
    }

    fn value(&mut self, tag: Tag, value: &str) {
        if value.is_empty() {
            return;
        }
        self.text.push(tag.letter());
        let from = self.text.len();
        terms::push_value(value, &mut self.text);
        let value = &self.text[from..];
        if terms::ID_TAGS.contains(&tag) && terms::is_lone_id(value) {
            self.ids.push_str(value);
            self.ids.push(SEPARATOR);
        }
        self.text.push(SEPARATOR);
    }

    fn text(&mut self, text: &str) {
        let Self { text: joined, run, ids } = self;
        terms::words(text, run, &mut |word| {
            let is_kept = terms::is_lone_id(word) && ids.split(SEPARATOR).any(|id| id == word);
            if is_kept {
                return;
            }
            joined.push(Tag::Word.letter());
            joined.push_str(word);
            joined.push(SEPARATOR);
        });
    }
}

impl Documents {
    pub(super) fn new(fields: Fields) -> Self {
        Self { fields, joined: Joined::default() }
    }

    /// The document of an event; also how many bytes its terms take.
    fn make(&mut self, event: &EventView<'_>, place: u64, index: u32) -> (TantivyDocument, usize) {
        self.joined.text.clear();
        self.joined.ids.clear();
        terms::extract(event, &mut self.joined);
        let mut document = TantivyDocument::with_capacity(self.joined.text.len() + 48);
        document.add_text(self.fields.terms, &self.joined.text);
        document.add_i64(self.fields.time, event.time.micros());
        document.add_u64(self.fields.place, place);
        document.add_u64(self.fields.index, u64::from(index));
        document.add_u64(self.fields.id, short_id(&event.id));
        (document, self.joined.text.len())
    }

    /// Gives the documents of a block's events, each with the bytes of its terms; says how many
    /// events could not be read.
    pub(super) fn of_block(
        &mut self,
        stored: &StoredBlock,
        place: u64,
        mut give: impl FnMut(TantivyDocument, usize) -> Result<(), IndexError>,
    ) -> Result<u64, IndexError> {
        let at = stored.at;
        // Ingest has checked the block; one that does not open now is damaged on the disk, and
        // that is for the log's reader to say. It is left out, counted whole.
        let opened = match stored.block.open_unverified() {
            Ok(opened) => opened,
            Err(error) => {
                log::error!(segment = at.segment, offset = at.offset,
                    error = error.to_string(); "a block that cannot be opened is not in the index");
                return Ok(u64::from(stored.block.header.count));
            }
        };
        let mut skipped = 0;
        for (index, event) in opened.events() {
            if stored.receipt.is_held(index) {
                continue;
            }
            match EventView::read(event) {
                Ok(view) => {
                    let (document, bytes) = self.make(&view, place, index);
                    give(document, bytes)?;
                }
                Err(error) => {
                    skipped += 1;
                    log::warn!(segment = at.segment, offset = at.offset, index = index,
                        error = error.to_string();
                        "an event that cannot be read is not in the index");
                }
            }
        }
        Ok(skipped)
    }
}

/// The day of a time, `2026-01-31`: the name of a partition.
pub(super) fn day_of(time: Timestamp) -> String {
    let mut text = time.to_string();
    text.truncate(10);
    text
}

/// Cuts at the separator: what is given has been folded and cut already.
#[derive(Debug, Clone, Default)]
struct Lines {
    token: Token,
}

struct LineStream<'a> {
    rest: &'a str,
    token: &'a mut Token,
}

impl Tokenizer for Lines {
    type TokenStream<'a> = LineStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> LineStream<'a> {
        self.token.reset();
        LineStream { rest: text, token: &mut self.token }
    }
}

impl TokenStream for LineStream<'_> {
    fn advance(&mut self) -> bool {
        let Some(end) = memchr::memchr(b'\n', self.rest.as_bytes()) else { return false };
        self.token.position = self.token.position.wrapping_add(1);
        self.token.text.clear();
        self.token.text.push_str(&self.rest[..end]);
        self.rest = &self.rest[end + 1..];
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_sort_as_cursors_do() {
        let places = [(0, 0), (0, 1), (0, MAX_OFFSET), (1, 0), (MAX_SEGMENT, MAX_OFFSET)]
            .map(|(segment, offset)| LogCursor { segment, offset });
        let packed: Vec<u64> = places.iter().filter_map(|at| pack_place(*at)).collect();
        assert!(packed.is_sorted());
        assert_eq!(packed.iter().map(|place| unpack_place(*place)).collect::<Vec<_>>(), places);
        assert_eq!(pack_place(LogCursor { segment: 0, offset: MAX_OFFSET + 1 }), None);
        assert_eq!(pack_place(LogCursor { segment: MAX_SEGMENT + 1, offset: 0 }), None);
    }

    fn terms_of(joined: &Joined) -> Vec<String> {
        let mut lines = Lines::default();
        let mut stream = lines.token_stream(&joined.text);
        let mut terms = Vec::new();
        while stream.advance() {
            terms.push(stream.token().text.clone());
        }
        terms
    }

    #[test]
    fn an_id_under_its_tag_is_not_kept_as_a_word_again() {
        let mut joined = Joined::default();
        joined.value(Tag::Session, "5F00AA11BB22CC33");
        joined.value(Tag::Trace, "short");
        joined.value(Tag::ActorName, "a00000000000");
        joined.text("5f00aa11bb22cc33 short a00000000000 5f00aa11bb22cc3");
        let wanted = ["u5f00aa11bb22cc33", "Hshort", "aa00000000000"];
        let words = ["wshort", "wa00000000000", "w5f00aa11bb22cc3"];
        assert_eq!(terms_of(&joined), [&wanted[..], &words].concat());
    }

    #[test]
    fn a_separator_in_a_text_cannot_forge_a_term() {
        let mut joined = Joined::default();
        joined.value(Tag::ActorName, "jane\nnsuccess");
        joined.text("a\nnfailure");
        joined.field("details.a\tb", "c\td");
        assert_eq!(terms_of(&joined), ["ajane nsuccess", "wa", "wnfailure", "Kdetails.a b\tc d"]);
    }
}
