//! PDF for people: a table of the events on A4 sheets, with what proves it on every page.
//!
//! Every page ends with the SHA-256 of all events of the export (as canonical NDJSON) and the
//! checkpoint of the log, which stand in one object that all pages share and that is written last;
//! so does the number of pages. Values are set whole, wrapped, over as many lines and pages as
//! they take; details and raw records are left to the other formats. The font is embedded with the
//! glyphs that are used ([`font`]). Text is set from left to right, unshaped.
//!
//! Objects: 1 to 10 are the document's; then come groups of [`GROUP`] pages, each a node of the
//! page tree, and content and page in turn. Of each page two places in the file are kept.

mod font;
mod rows;
mod sheet;

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Chunk, Filter, Name, Rect, Ref, Str, TextStr};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ExportError, Form, Heading, Part, Totals, cells};
use font::Font;
use rows::Line;
use sheet::{BODY, BOTTOM, FACT, HEAD, LEFT, RIGHT, SMALL, Sheet, Style, TITLE, TOP};

const CATALOG: i32 = 1;
const PAGES: i32 = 2;
const RESOURCES: i32 = 3;
const FONT: i32 = 4;
const CID_FONT: i32 = 5;
const DESCRIPTOR: i32 = 6;
const FONT_FILE: i32 = 7;
const UNICODE: i32 = 8;
const PROOF: i32 = 9;
const INFO: i32 = 10;
const FIXED: usize = 10;
/// Pages of a node in the page tree.
const GROUP: usize = 256;
const GROUP_OBJECTS: usize = 1 + 2 * GROUP;
/// A place in the file has ten digits in its table.
const MAX_PLACE: u64 = 9_999_999_999;
const SHEET: Rect = Rect { x1: 0.0, y1: 0.0, x2: 842.0, y2: 595.0 };
const SYSTEM: SystemInfo<'static> =
    SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };
const FONT_NAME: Name<'static> = Name(b"CUSTDY+DejaVuSansCondensed");

/// See the module.
pub(super) struct Pdf {
    heading: Heading,
    font: Font,
    stand: Stand,
    fixed: [u64; FIXED],
}

/// What must be kept to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stand {
    sheet: Sheet,
    /// Pages that are in the file.
    pages: usize,
    /// Steps from each object of the pages to the next: content and page in turn.
    steps: Vec<u64>,
    /// Where the last of them stands.
    last: u64,
    rows: u64,
    used: String,
}

fn number(at: usize) -> Result<i32, ExportError> {
    i32::try_from(at).map_err(|_| ExportError::Event("a PDF of too many pages".to_owned()))
}

fn node_of(page: usize) -> usize {
    FIXED + 1 + page / GROUP * GROUP_OBJECTS
}

fn content_of(page: usize) -> usize {
    node_of(page) + 1 + 2 * (page % GROUP)
}

fn packed(bytes: &[u8]) -> Result<Vec<u8>, ExportError> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let done = encoder.write_all(bytes).and_then(|()| encoder.finish());
    done.map_err(|error| ExportError::Event(format!("zlib: {error}")))
}

impl Pdf {
    pub(super) fn new(heading: Heading) -> Result<Self, ExportError> {
        let (font, stand) = (Font::new()?, Stand::default());
        Ok(Self { heading, font, stand, fixed: [0; FIXED] })
    }

    fn set(&mut self, at: (i64, i64), style: Style, text: &str) {
        self.stand.sheet.text(&mut self.font, at, style, text);
    }

    /// Begins a page: name, number, filter, titles of the columns.
    fn begin_page(&mut self) {
        self.stand.sheet = Sheet { content: String::new(), y: TOP };
        let first = self.stand.pages == 0;
        let style = if first { TITLE } else { FACT };
        let name = self.heading.name.clone();
        let room = RIGHT - LEFT - 9_000;
        let lines = sheet::wrap(&mut self.font, style, room, &name);
        let shown = if first { lines.len() } else { 1 };
        for line in lines.into_iter().take(shown) {
            self.down(style, &[(LEFT, line)]);
        }
        let page = format!("Page {}", self.stand.pages + 1);
        let x = RIGHT - 3_000 - sheet::width(&mut self.font, HEAD, &page);
        self.set((x, TOP - TITLE.leading()), HEAD, &page);
        if first {
            self.facts();
        }
        self.stand.sheet.y -= 500;
        let titles = rows::places().zip(rows::COLUMNS);
        let titles: Vec<_> = titles.map(|(x, (title, _))| (x, title.to_owned())).collect();
        self.down(HEAD, &titles);
        self.stand.sheet.y -= 300;
        self.stand.sheet.rule(self.stand.sheet.y, 40);
    }

    /// What the first page says of the export.
    fn facts(&mut self) {
        let heading = &self.heading;
        let or = |text: &str, other: &str| {
            if text.is_empty() { other.to_owned() } else { text.to_owned() }
        };
        let facts = [
            ("Filter", or(&heading.query, "none: all events")),
            ("From", or(&heading.from, "the beginning")),
            ("To", or(&heading.to, "the end of the evidence when the export began")),
            ("Order", "oldest first; times are UTC".to_owned()),
            ("Made for", format!("{}, {}", heading.created_by, heading.created)),
            ("Evidence log", or(&heading.origin, "none")),
        ];
        self.stand.sheet.y -= 300;
        for (what, said) in facts {
            let room = RIGHT - LEFT - 7_000;
            for (at, line) in sheet::wrap(&mut self.font, FACT, room, &said).into_iter().enumerate()
            {
                let label = if at == 0 { what.to_owned() } else { String::new() };
                self.down(FACT, &[(LEFT, label), (LEFT + 7_000, line)]);
            }
        }
    }

    /// One line further down.
    fn down(&mut self, style: Style, texts: &[(i64, String)]) {
        self.stand.sheet.y -= style.leading();
        let y = self.stand.sheet.y;
        for (x, text) in texts {
            self.set((*x, y), style, text);
        }
    }

    fn line(&mut self, line: &Line, out: &mut Part) -> Result<(), ExportError> {
        if self.stand.sheet.y - line.style.leading() < BOTTOM {
            self.end_page(out)?;
            self.begin_page();
        }
        self.down(line.style, &line.texts);
        Ok(())
    }

    fn place(&mut self, out: &Part) -> Result<(), ExportError> {
        if out.len() > MAX_PLACE {
            return Err(ExportError::TooLong { max_bytes: MAX_PLACE });
        }
        self.stand.steps.push(out.len() - self.stand.last);
        self.stand.last = out.len();
        Ok(())
    }

    fn end_page(&mut self, out: &mut Part) -> Result<(), ExportError> {
        self.stand.sheet.content.push_str("/E Do\n");
        let page = self.stand.pages;
        let content = packed(self.stand.sheet.content.as_bytes())?;
        let (content_id, page_id) = (content_of(page), content_of(page) + 1);
        self.place(out)?;
        let mut chunk = Chunk::new();
        let id = Ref::new(number(content_id)?);
        chunk.stream(id, &content).filter(Filter::FlateDecode);
        out.put(chunk.as_bytes())?;
        self.place(out)?;
        let mut chunk = Chunk::new();
        chunk
            .page(Ref::new(number(page_id)?))
            .parent(Ref::new(number(node_of(page))?))
            .contents(id)
            .pair(Name(b"Resources"), Ref::new(RESOURCES));
        out.put(chunk.as_bytes())?;
        self.stand.pages += 1;
        Ok(())
    }

    fn fixed(&mut self, id: i32, chunk: &Chunk, out: &mut Part) -> Result<(), ExportError> {
        if let Some(place) = usize::try_from(id - 1).ok().and_then(|at| self.fixed.get_mut(at)) {
            *place = out.len();
        }
        out.put(chunk.as_bytes())
    }

    /// What all pages share: the hash, the checkpoint, how many pages there are.
    fn proof(&mut self, totals: &Totals, out: &mut Part) -> Result<(), ExportError> {
        let mut foot = Sheet::default();
        let font = &mut self.font;
        let rows = totals.rows;
        let hash =
            format!("{rows} events, as canonical NDJSON with SHA-256 {}", totals.content_sha256);
        foot.rule(BOTTOM - 700, 70);
        foot.text(font, (LEFT, BOTTOM - 1_600), SMALL, &hash);
        let note: Vec<&str> = self.heading.checkpoint.lines().take(3).collect();
        let checkpoint = match note.as_slice() {
            [origin, size, root] => {
                format!("Checkpoint of {origin}: {size} entries, root {root}")
            }
            _ => "Without a checkpoint: this collector keeps no transparency log".to_owned(),
        };
        let checkpoint = sheet::visible(font, &checkpoint);
        foot.text(font, (LEFT, BOTTOM - 2_400), SMALL, &checkpoint);
        let pages = format!(" of {}", self.stand.pages);
        foot.text(font, (RIGHT - 3_000, TOP - TITLE.leading()), HEAD, &pages);
        let content = packed(foot.content.as_bytes())?;
        let mut chunk = Chunk::new();
        let mut form = chunk.form_xobject(Ref::new(PROOF), &content);
        form.filter(Filter::FlateDecode);
        form.bbox(SHEET);
        form.resources().fonts().pair(Name(b"F"), Ref::new(FONT));
        drop(form);
        self.fixed(PROOF, &chunk, out)
    }

    fn embed_font(&mut self, out: &mut Part) -> Result<(), ExportError> {
        let damaged = || ExportError::Event("the font of PDF exports is damaged".to_owned());
        let metrics = self.font.metrics().ok_or_else(damaged)?;
        let file = packed(&self.font.embedded()?)?;
        let mut unicode = UnicodeCmap::new(Name(b"Custom"), SYSTEM);
        let mut widths = Vec::new();
        for (code, (character, width)) in (1_u16..).zip(self.font.used()) {
            unicode.pair(code, *character);
            widths.push(f32::from(*width));
        }
        let unicode = packed(unicode.finish().as_slice())?;
        let mut chunk = Chunk::new();
        chunk.stream(Ref::new(FONT_FILE), &file).filter(Filter::FlateDecode);
        self.fixed(FONT_FILE, &chunk, out)?;
        let mut chunk = Chunk::new();
        chunk.stream(Ref::new(UNICODE), &unicode).filter(Filter::FlateDecode);
        self.fixed(UNICODE, &chunk, out)?;
        let [x1, y1, x2, y2] = metrics.bbox.map(f32::from);
        let mut chunk = Chunk::new();
        chunk
            .font_descriptor(Ref::new(DESCRIPTOR))
            .name(FONT_NAME)
            .flags(FontFlags::SYMBOLIC)
            .bbox(Rect::new(x1, y1, x2, y2))
            .italic_angle(0.0)
            .ascent(f32::from(metrics.ascent))
            .descent(f32::from(metrics.descent))
            .cap_height(f32::from(metrics.ascent))
            .stem_v(80.0)
            .font_file2(Ref::new(FONT_FILE));
        self.fixed(DESCRIPTOR, &chunk, out)?;
        let mut chunk = Chunk::new();
        let mut cid = chunk.cid_font(Ref::new(CID_FONT));
        cid.subtype(CidFontType::Type2).base_font(FONT_NAME).system_info(SYSTEM);
        cid.font_descriptor(Ref::new(DESCRIPTOR)).default_width(0.0);
        cid.cid_to_gid_map_predefined(Name(b"Identity"));
        cid.widths().consecutive(1, widths);
        drop(cid);
        self.fixed(CID_FONT, &chunk, out)?;
        let mut chunk = Chunk::new();
        chunk
            .type0_font(Ref::new(FONT))
            .base_font(FONT_NAME)
            .encoding_predefined(Name(b"Identity-H"))
            .descendant_font(Ref::new(CID_FONT))
            .to_unicode(Ref::new(UNICODE));
        self.fixed(FONT, &chunk, out)
    }

    fn document(&mut self, out: &mut Part) -> Result<(), ExportError> {
        let mut chunk = Chunk::new();
        let mut resources = chunk.indirect(Ref::new(RESOURCES)).dict();
        resources.insert(Name(b"Font")).dict().pair(Name(b"F"), Ref::new(FONT));
        resources.insert(Name(b"XObject")).dict().pair(Name(b"E"), Ref::new(PROOF));
        drop(resources);
        self.fixed(RESOURCES, &chunk, out)?;
        let mut chunk = Chunk::new();
        let mut catalog = chunk.indirect(Ref::new(CATALOG)).dict();
        catalog.pair(Name(b"Type"), Name(b"Catalog")).pair(Name(b"Pages"), Ref::new(PAGES));
        drop(catalog);
        self.fixed(CATALOG, &chunk, out)?;
        let made = self.heading.created.civil();
        let date = format!(
            "D:{:04}{:02}{:02}{:02}{:02}{:02}Z",
            made.year, made.month, made.day, made.hour, made.minute, made.second
        );
        let mut chunk = Chunk::new();
        let mut info = chunk.indirect(Ref::new(INFO)).dict();
        info.pair(Name(b"Title"), TextStr(&self.heading.name));
        info.pair(Name(b"Producer"), TextStr(concat!("Custody ", env!("CARGO_PKG_VERSION"))));
        info.pair(Name(b"CreationDate"), Str(date.as_bytes()));
        drop(info);
        self.fixed(INFO, &chunk, out)
    }

    /// The tree of the pages; gives the places of its nodes.
    fn tree(&mut self, out: &mut Part) -> Result<Vec<u64>, ExportError> {
        let pages = self.stand.pages;
        let mut places = Vec::new();
        let mut nodes = Vec::new();
        for first in (0..pages).step_by(GROUP) {
            let last = (first + GROUP).min(pages);
            let kids: Result<Vec<Ref>, _> = (first..last)
                .map(|page| Ok::<_, ExportError>(Ref::new(number(content_of(page) + 1)?)))
                .collect();
            let node = Ref::new(number(node_of(first))?);
            let mut chunk = Chunk::new();
            let mut tree = chunk.pages(node);
            tree.parent(Ref::new(PAGES)).kids(kids?).count(number(last - first)?);
            drop(tree);
            places.push(out.len());
            nodes.push(node);
            out.put(chunk.as_bytes())?;
        }
        let mut chunk = Chunk::new();
        chunk.pages(Ref::new(PAGES)).kids(nodes).count(number(pages)?).media_box(SHEET);
        self.fixed(PAGES, &chunk, out)?;
        Ok(places)
    }

    /// Where every object stands.
    fn table(&self, nodes: &[u64], out: &mut Part) -> Result<(), ExportError> {
        let at = out.len();
        let pages: Vec<u64> = self
            .stand
            .steps
            .iter()
            .scan(0, |place, step| {
                *place += step;
                Some(*place)
            })
            .collect();
        let last = content_of(self.stand.pages.saturating_sub(1)) + 1;
        out.put(format!("xref\n0 {}\n0000000000 65535 f \n", last + 1).as_bytes())?;
        for id in 1..=last {
            let place = match id.checked_sub(FIXED + 1) {
                None => self.fixed.get(id - 1),
                Some(rest) => match (rest / GROUP_OBJECTS, rest % GROUP_OBJECTS) {
                    (group, 0) => nodes.get(group),
                    (group, rest) => pages.get(group * 2 * GROUP + rest - 1),
                },
            };
            let line = match place {
                Some(place) => format!("{place:010} 00000 n \n"),
                None => "0000000000 65535 f \n".to_owned(),
            };
            out.put(line.as_bytes())?;
        }
        let size = last + 1;
        let end = format!(
            "trailer\n<</Size {size}/Root {CATALOG} 0 R/Info {INFO} 0 R>>\nstartxref\n{at}\n%%EOF\n"
        );
        out.put(end.as_bytes())
    }
}

impl Form for Pdf {
    fn begin(&mut self, out: &mut Part) -> Result<(), ExportError> {
        // Four bytes above 127 say that the file is binary.
        out.put(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")?;
        self.begin_page();
        Ok(())
    }

    fn row(&mut self, event: &[u8], out: &mut Part) -> Result<(), ExportError> {
        let event = cells::read(event)?;
        let lines = rows::lines(&event, &mut self.font);
        // The beginning of a row stands together.
        let together: i64 = lines.iter().take(4).map(|line| line.style.leading()).sum();
        if self.stand.sheet.y - together - 350 < BOTTOM {
            self.end_page(out)?;
            self.begin_page();
        }
        self.stand.sheet.y -= 150;
        for line in &lines {
            self.line(line, out)?;
        }
        self.stand.sheet.y -= 250;
        self.stand.sheet.rule(self.stand.sheet.y, 85);
        self.stand.rows += 1;
        Ok(())
    }

    fn pause(&self) -> Option<Value> {
        let used = self.font.used().iter().map(|(character, _)| *character).collect();
        serde_json::to_value(Stand { used, ..self.stand.clone() }).ok()
    }

    fn resume(&mut self, state: Value) -> Result<(), ExportError> {
        let stand: Stand =
            serde_json::from_value(state).map_err(|error| ExportError::Table(error.to_string()))?;
        self.font.reuse(&stand.used);
        self.stand = Stand { used: String::new(), ..stand };
        Ok(())
    }

    fn end(&mut self, totals: &Totals, out: &mut Part) -> Result<(), ExportError> {
        if self.stand.rows == 0 {
            self.stand.sheet.y -= 300;
            self.down(BODY, &[(LEFT, "No events.".to_owned())]);
        }
        self.end_page(out)?;
        self.proof(totals, out)?;
        self.embed_font(out)?;
        self.document(out)?;
        let nodes = self.tree(out)?;
        self.table(&nodes, out)
    }
}
