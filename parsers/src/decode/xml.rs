//! One XML element in a line, such as an event of Windows.
//!
//! ```text
//! <Event xmlns="…"><System><EventID Qualifiers="0">4624</EventID>…</System>
//!   <EventData><Data Name="TargetUserName">eva</Data></EventData></Event>
//! ```
//! A path begins with the outermost element: `$xml.Event.System.EventID`. An attribute stands beside
//! its element, after `@`: `$xml.Event.System.EventID@Qualifiers`. The second of equal elements is
//! `Data#2`, and so on. An element that has nothing but a text and a `Name` is called by it:
//! `$xml.Event.EventData.TargetUserName`. Text between elements is `#text`. Prefixes of names stay
//! as they are; `xmlns` is left out.
//!
//! The reader knows what a log needs: elements, attributes, text, CDATA, comments, processing
//! instructions, the five named entities and those by number. A document type (and with it every
//! entity of its own) is refused; so are more than [`MAX_DEPTH`] elements in one another.

use std::borrow::Cow;

use super::build::{Builder, Opened};
use super::json::Tape;

/// Elements in one another, at most.
pub(crate) const MAX_DEPTH: usize = 32;

const NO: &str = "not XML: no element at the start";
const ENDS: &str = "XML that ends in the middle";
const BAD: &str = "not XML: a tag that is not well-formed";
const DEEP: &str = "XML nested too deeply";
const TYPED: &str = "XML with a document type";
const MORE: &str = "more text after the XML element";
const NAMES: &str = "XML with more than 32 attributes in one element";
const MAX_ATTRIBUTES: usize = 32;

/// Reads a whole text.
pub(crate) fn read(text: &str, tape: &mut Tape) -> Result<(), &'static str> {
    let mut out = Builder::new(tape, text)?;
    let mut reader = Reader { rest: text.trim_start_matches('\u{feff}'), out: &mut out };
    reader.between()?;
    if !reader.rest.starts_with('<') {
        return Err(NO);
    }
    reader.element(&mut Vec::new(), 0)?;
    reader.between()?;
    if !reader.rest.is_empty() {
        return Err(MORE);
    }
    out.finish();
    Ok(())
}

type Attributes<'t> = Vec<(&'t str, Cow<'t, str>)>;

struct Reader<'a, 'b, 't> {
    rest: &'t str,
    out: &'a mut Builder<'b>,
}

impl<'t> Reader<'_, '_, 't> {
    /// Goes over blanks, comments and processing instructions.
    fn between(&mut self) -> Result<(), &'static str> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(after) = self.rest.strip_prefix("<!--") {
                self.rest = after.split_once("-->").ok_or(ENDS)?.1;
            } else if let Some(after) = self.rest.strip_prefix("<?") {
                self.rest = after.split_once("?>").ok_or(ENDS)?.1;
            } else {
                return Ok(());
            }
        }
    }

    /// An element after its `<`; `known` counts its siblings by name.
    fn element(
        &mut self,
        known: &mut Vec<(Box<str>, usize)>,
        depth: usize,
    ) -> Result<(), &'static str> {
        if depth >= MAX_DEPTH {
            return Err(DEEP);
        }
        let rest = self.rest.strip_prefix('<').ok_or(BAD)?;
        if rest.starts_with('!') {
            return Err(TYPED);
        }
        let name = self.name(rest)?;
        let (attributes, closed) = self.attributes()?;
        let named =
            attributes.iter().find(|(key, _)| *key == "Name").map(|(_, value)| value.as_ref());
        let plain = closed || self.is_plain();
        let (key, by_name) = match named {
            Some(own) if plain && !own.is_empty() && attributes.len() == 1 => (own, true),
            _ => (name, false),
        };
        let key = numbered(key, known);
        if !by_name {
            for (attribute, value) in &attributes {
                if *attribute != "xmlns" && !attribute.starts_with("xmlns:") {
                    self.out.put(&format!("{key}@{attribute}"), value)?;
                }
            }
        }
        if closed {
            // An element that is only its attributes is told by them.
            return if by_name || attributes.is_empty() { self.out.put(&key, "") } else { Ok(()) };
        }
        let object = self.out.open(&key)?;
        let text = self.content(name, depth)?;
        self.end(&object, &text)
    }

    fn end(&mut self, object: &Opened, text: &str) -> Result<(), &'static str> {
        let text = text.trim();
        if self.out.is_empty(object) {
            self.out.instead(object, text);
            return Ok(());
        }
        if !text.is_empty() {
            self.out.put("#text", text)?;
        }
        self.out.close(object);
        Ok(())
    }

    /// Does the element hold nothing but text?
    fn is_plain(&self) -> bool {
        self.rest.find('<').is_some_and(|at| self.rest[at..].starts_with("</"))
    }

    /// What is in an element, to its end; gives its text.
    fn content(&mut self, name: &str, depth: usize) -> Result<Cow<'t, str>, &'static str> {
        let mut said = Cow::Borrowed("");
        let mut known = Vec::new();
        loop {
            let at = memchr::memchr(b'<', self.rest.as_bytes()).ok_or(ENDS)?;
            let text = &self.rest[..at];
            self.rest = &self.rest[at..];
            if !text.trim().is_empty() {
                join(&mut said, entities(text));
            }
            if let Some(after) = self.rest.strip_prefix("</") {
                let (end, after) = after.split_once('>').ok_or(ENDS)?;
                self.rest = after;
                return if end.trim_end() == name { Ok(said) } else { Err(BAD) };
            } else if let Some(after) = self.rest.strip_prefix("<![CDATA[") {
                let (text, after) = after.split_once("]]>").ok_or(ENDS)?;
                join(&mut said, Cow::Borrowed(text));
                self.rest = after;
            } else if self.rest.starts_with("<!--") || self.rest.starts_with("<?") {
                self.between()?;
            } else {
                self.element(&mut known, depth + 1)?;
            }
        }
    }

    fn name(&mut self, rest: &'t str) -> Result<&'t str, &'static str> {
        let end = rest.find([' ', '\t', '\n', '\r', '/', '>', '=', '<', '"', '\'']).ok_or(ENDS)?;
        let (name, rest) = rest.split_at(end);
        self.rest = rest;
        let first = name.chars().next().is_some_and(|sign| sign.is_alphabetic() || sign == '_');
        if first { Ok(name) } else { Err(BAD) }
    }

    /// The attributes of a tag, to its end; says whether the tag is its element's end as well.
    fn attributes(&mut self) -> Result<(Attributes<'t>, bool), &'static str> {
        let mut attributes = Vec::new();
        loop {
            let rest = self.rest.trim_start();
            if let Some(after) = rest.strip_prefix('>') {
                self.rest = after;
                return Ok((attributes, false));
            }
            if let Some(after) = rest.strip_prefix("/>") {
                self.rest = after;
                return Ok((attributes, true));
            }
            if attributes.len() >= MAX_ATTRIBUTES {
                return Err(NAMES);
            }
            let name = self.name(rest)?;
            let rest = self.rest.trim_start().strip_prefix('=').ok_or(BAD)?.trim_start();
            let quote = rest.chars().next().filter(|sign| matches!(sign, '"' | '\'')).ok_or(BAD)?;
            let (value, rest) = rest[1..].split_once(quote).ok_or(ENDS)?;
            attributes.push((name, entities(value)));
            self.rest = rest;
        }
    }
}

fn join<'t>(said: &mut Cow<'t, str>, more: Cow<'t, str>) {
    if said.is_empty() {
        *said = more;
    } else {
        said.to_mut().push_str(&more);
    }
}

/// The name, with the number of those that are called so where it is not the first.
fn numbered(name: &str, known: &mut Vec<(Box<str>, usize)>) -> String {
    match known.iter_mut().find(|(other, _)| **other == *name) {
        Some((_, count)) => {
            *count += 1;
            format!("{name}#{count}")
        }
        None => {
            known.push((name.into(), 1));
            name.to_owned()
        }
    }
}

/// Resolves `&lt; &gt; &amp; &quot; &apos; &#10; &#xA;`; any other `&` stays.
fn entities(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        // No entity that is known is longer than `&#1114111;`.
        let end = after.bytes().take(9).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&after[..end])?, end))) {
            Some((sign, end)) => {
                out.push(sign);
                rest = &after[end + 1..];
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_event_of_windows() {
        let text = "<?xml version=\"1.0\"?><Event xmlns='http://x'><System><Provider Name=\"Sec\" Guid='{1}'/>\
            <EventID Qualifiers=\"0\">4624</EventID><Computer>pc&amp;1</Computer></System>\
            <EventData><Data Name=\"TargetUserName\">eva</Data><Data Name='Empty'/>\
            <Data>one</Data><Data>two</Data></EventData><!-- x --> </Event>\r\n";
        assert_eq!(
            fields(text, read),
            Ok(json!({"Event":{
                "System":{"Provider@Name":"Sec","Provider@Guid":"{1}","EventID@Qualifiers":"0","EventID":"4624","Computer":"pc&1"},
                "EventData":{"TargetUserName":"eva","Empty":"","Data":"one","Data#2":"two"},
            }}))
        );
    }

    #[test]
    fn text_entities_and_cdata() {
        assert_eq!(
            fields("<a>x &lt;&#x41;&#66;&nbsp;<![CDATA[<b>&lt;]]> y<c/>z</a>", read),
            Ok(json!({"a":{"c":"","#text":"x <AB&nbsp;<b>&lt; yz"}}))
        );
        assert_eq!(fields("<a/>", read), Ok(json!({"a":""})));
        assert_eq!(fields("<a> </a>", read), Ok(json!({"a":""})));
    }

    #[test]
    fn what_is_not_one_safe_element_is_refused() {
        for (text, why) in [
            ("", NO),
            ("a", NO),
            ("<a>", ENDS),
            ("<a></b>", BAD),
            ("<a/><b/>", MORE),
            ("<1/>", BAD),
            ("<a b></a>", BAD),
            ("<a b=\"></a>", ENDS),
            ("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", TYPED),
            ("<a><!ENTITY></a>", TYPED),
        ] {
            assert_eq!(fields(text, read), Err(why), "{text}");
        }
        let deep = format!("{}{}", "<a>".repeat(40), "</a>".repeat(40));
        assert_eq!(fields(&deep, read), Err(DEEP));
        let many = format!("<a>{}</a>", "<b/>".repeat(2_000));
        assert_eq!(fields(&many, read), Err("more than 1,000 fields"));
        let wide = format!("<a {}/>", "x='1' ".repeat(40));
        assert_eq!(fields(&wide, read), Err(NAMES));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = fields(&text, read);
            let _ = fields(&format!("<a>{text}</a>"), read);
        }

        #[test]
        fn what_is_nearly_right(text in "(</?[ab]|[ab]=|['\"]x?|/?>|&#?x?[0-9a]{0,3};?|é|<!--|-->|<!\\[CDATA\\[|\\]\\]>){0,20}") {
            let _ = fields(&format!("<a>{text}</a>"), read);
        }
    }
}
