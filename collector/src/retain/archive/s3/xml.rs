//! As much of XML as the answers of S3 need: the texts of elements by their names. No element that is
//! asked for has attributes, or another of its name within it.

/// The insides of all elements of this name.
pub(super) fn all<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (mut rest, mut found) = (xml, Vec::new());
    while let Some((_, after)) = rest.split_once(open.as_str()) {
        let Some((inside, behind)) = after.split_once(close.as_str()) else { break };
        found.push(inside);
        rest = behind;
    }
    found
}

/// The text of the first element of this name.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    all(xml, name).first().map(|inside| plain(inside))
}

fn plain(inside: &str) -> String {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let known = after.split_once(';').and_then(|(name, behind)| Some((sign(name)?, behind)));
        match known {
            Some((sign, behind)) => {
                out.push(sign);
                rest = behind;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

fn sign(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_and_what_is_cut_off_is_not_made_up() {
        let xml = "<?xml version=\"1.0\"?><L xmlns=\"x\"><C><Key>a&amp;b&#x2F;c&#100;</Key><S>1</S></C>\
                   <C><Key>&unknown; & so</Key></C><C><Key>cut";
        let found = all(xml, "C");
        assert_eq!(found.len(), 2);
        assert_eq!(text(found[0], "Key").as_deref(), Some("a&b/cd"));
        assert_eq!(text(found[1], "Key").as_deref(), Some("&unknown; & so"));
        assert_eq!((text(found[1], "S"), text("", "C")), (None, None));
    }
}
