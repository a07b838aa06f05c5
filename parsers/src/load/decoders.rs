//! `decode:` of a pack, the settings of its decoders, and the fields that they give.

use std::sync::Arc;

use serde_yaml::Location;

use super::{Loader, field_name};
use crate::decode::{Decoder, Step, csv, kv};
use crate::error::hint;
use crate::value::Source;
use crate::yaml::{Raw, RawCsv, RawKv, RawPack, Text, listed};

impl Loader<'_> {
    /// The chain, with what it says of the fields that rules may name.
    pub(super) fn decoders(&mut self, raw: &RawPack) -> Vec<Step> {
        let chain = self.chain(raw);
        for step in chain.iter().filter(|step| step.decoder.gives_fields()) {
            self.decoder = Some(step.decoder.name());
            if let Decoder::Csv(settings) = &step.decoder {
                self.columns = settings.columns.to_vec();
            }
        }
        let settings = [
            ("kv", raw.kv.as_ref().map(|kv| kv.referenced)),
            ("csv", raw.csv.as_ref().map(|csv| csv.referenced)),
        ];
        for (name, at) in settings {
            if let Some(at) = at.filter(|_| self.decoder != Some(name)) {
                let hint = Some(format!("add `{name}` to `decode:`"));
                self.error(at, format!("settings of `{name}`, which the pack does not use"), hint);
            }
        }
        chain
    }

    fn chain(&mut self, raw: &RawPack) -> Vec<Step> {
        let mut chain: Vec<Step> = Vec::new();
        for item in raw.decode.as_ref().map(listed).unwrap_or_default() {
            let Raw::Text(text) = &item.value else {
                let known = Decoder::NAMES.join(", ");
                self.error(item.referenced, "a decoder is a name", Some(format!("known: {known}")));
                continue;
            };
            let (name, optional) = match text.strip_suffix('?') {
                Some(name) => (name, true),
                None => (text.as_str(), false),
            };
            match Decoder::from_name(name) {
                Some(decoder) => {
                    let decoder = self.with_settings(decoder, raw, item.referenced);
                    if decoder.gives_fields()
                        && chain.iter().any(|step| step.decoder.gives_fields())
                    {
                        let hint = Some("a chain has one decoder of fields".to_owned());
                        self.error(item.referenced, format!("`{name}` after another"), hint);
                    }
                    chain.push(Step { decoder, optional });
                }
                None if name == "none" => {}
                None => {
                    let hint = hint(name, Decoder::NAMES);
                    self.error(item.referenced, format!("unknown decoder `{name}`"), hint);
                }
            }
        }
        chain
    }

    pub(super) fn folded(&mut self, raw: &RawPack) -> bool {
        if let (Some(_), Some(keys)) = (&raw.json_keys, &raw.keys) {
            self.error(keys.referenced, "`keys` and `json_keys` are the same: give one", None);
        }
        match raw.keys.as_ref().or(raw.json_keys.as_ref()) {
            None => false,
            Some(text) if text.value == "exact" => false,
            Some(text) if text.value == "folded" => true,
            Some(text) => {
                let hint = hint(&text.value, &["exact", "folded"]);
                let message = format!("`keys: {}` is not known", text.value);
                self.error(text.referenced, message, hint);
                false
            }
        }
    }

    fn with_settings(&mut self, decoder: Decoder, raw: &RawPack, at: Location) -> Decoder {
        match (&decoder, &raw.kv, &raw.csv) {
            (Decoder::Kv(_), Some(settings), _) => Decoder::Kv(Arc::new(self.kv(&settings.value))),
            (Decoder::Csv(_), _, Some(settings)) => {
                Decoder::Csv(Arc::new(self.csv(&settings.value)))
            }
            (Decoder::Csv(_), _, None) => {
                let hint = Some("csv: { columns: [time, user, …] }".to_owned());
                self.error(at, "`csv` needs the names of its columns", hint);
                decoder
            }
            _ => decoder,
        }
    }

    fn kv(&mut self, raw: &RawKv) -> kv::Settings {
        let mut settings = kv::Settings { spaces: raw.spaces, ..kv::Settings::default() };
        for text in [&raw.pairs, &raw.equals].into_iter().flatten() {
            if text.value.is_empty() || text.value.len() > 16 {
                self.error(text.referenced, "a separator is 1 to 16 bytes long", None);
                return settings;
            }
        }
        if let Some(equals) = &raw.equals {
            settings.equals = equals.value.as_str().into();
        }
        if let Some(pairs) = raw.pairs.as_ref().filter(|pairs| pairs.value != " ") {
            settings.pairs = Some(pairs.value.as_str().into());
            if raw.spaces {
                let hint = Some("a value then ends at the next `pairs` anyhow".to_owned());
                self.error(
                    pairs.referenced,
                    "`spaces` is for pairs that stand apart by blanks",
                    hint,
                );
            }
        }
        if let Some(quotes) = &raw.quotes {
            let signs = self.texts(Some(quotes)).concat();
            if signs.is_ascii() {
                settings.quotes = signs.into_bytes().into();
            } else {
                self.error(quotes.referenced, "a quote is an ASCII sign", None);
            }
        }
        settings
    }

    fn csv(&mut self, raw: &RawCsv) -> csv::Settings {
        let columns = self.texts(Some(&raw.columns));
        if columns.len() < 2 || columns.len() > 200 {
            self.error(raw.columns.referenced, "a row has 2 to 200 columns", None);
        }
        for (at, name) in columns.iter().enumerate() {
            if name != "_" && columns[..at].contains(name) {
                self.error(raw.columns.referenced, format!("a second column `{name}`"), None);
            }
        }
        let mut settings = csv::Settings {
            columns: columns.into_iter().map(String::into_boxed_str).collect(),
            ..csv::Settings::default()
        };
        if let Some(text) = &raw.delimiter {
            match text.value.as_bytes() {
                _ if text.value == "tab" => settings.delimiter = b'\t',
                [sign] if *sign != b'"' => settings.delimiter = *sign,
                _ => {
                    let hint = Some("one ASCII sign, or `tab`".to_owned());
                    self.error(text.referenced, "no delimiter", hint);
                }
            }
        }
        settings
    }

    /// `fan_out:` — a path into the decoder's fields.
    pub(super) fn fan_out(&mut self, raw: &Text) -> Option<Vec<Box<str>>> {
        let name = raw.value.trim_start_matches('$');
        match field_name(name) {
            Some((Decoder::Json, path)) if self.decoder == Some("json") => {
                Some(path.split('.').map(Into::into).collect())
            }
            _ => {
                let hint = Some("the path of a list: `$json.Records`".to_owned());
                self.error(raw.referenced, format!("`{}` is nothing to fan out", raw.value), hint);
                None
            }
        }
    }

    /// `user_agent: parse`, `sentence: parse`
    pub(super) fn parses(&mut self, key: &str, raw: Option<&Text>) -> bool {
        match raw.map(|raw| (raw.value.as_str(), raw.referenced)) {
            None | Some(("keep", _)) => false,
            Some(("parse", _)) => true,
            Some((other, at)) => {
                let hint = hint(other, &["keep", "parse"]);
                self.error(at, format!("`{key}: {other}` is not known"), hint);
                false
            }
        }
    }

    /// A field of the pack's decoder.
    pub(super) fn field(&mut self, decoder: Decoder, path: &str, at: Location) -> Option<Source> {
        let name = decoder.name();
        if self.decoder != Some(name) {
            let hint = match self.decoder {
                Some(own) => format!("its fields are `${own}.…`"),
                None => format!("add `{name}` to `decode:`"),
            };
            let message = format!("`${name}.{path}` in a pack that does not decode {name}");
            self.error(at, message, Some(hint));
            return None;
        }
        if name == "csv" && !self.columns.iter().any(|column| **column == *path) {
            let names: Vec<&str> = self.columns.iter().map(|name| &**name).collect();
            let hint = hint(path, &names);
            self.error(at, format!("no column `{path}`"), hint);
            return None;
        }
        Some(Source::Json(self.json_path(path)))
    }
}
