//! Signatures of requests: AWS Signature Version 4, in headers, with the payload's hash.
//!
//! Canonical request, text to sign and the derivation of the key are as the documentation of AWS
//! ("Authenticating Requests: Using the Authorization Header") has them; its published examples and
//! vectors are the tests. Nothing here knows what S3 is but for one thing: a path is encoded once,
//! and not made shorter.

use custody_event::ids::push_hex;
use custody_event::{Digest, Timestamp};
use ring::hmac;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What signs.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    /// The id of the access key.
    pub(super) id: &'a str,
    /// Its secret.
    pub(super) secret: &'a str,
}

/// For where and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: Timestamp,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Encoded, from the first slash on.
    pub(super) path: &'a str,
    /// Encoded, as [`query`] makes it.
    pub(super) query: &'a str,
    /// All that are signed, with their names in lower case.
    pub(super) headers: &'a [(String, String)],
    /// SHA-256 of the body in hex.
    pub(super) payload: &'a str,
}

/// The time as headers and signatures have it: `20130524T000000Z`.
pub(super) fn amz_date(time: Timestamp) -> String {
    let text = time.to_string();
    let digits: String = text[..19].chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{digits}Z")
}

/// Bytes as a part of a path or a query: everything but letters, digits, `-._~` (and slashes, where
/// they stand) as `%XX`.
pub(super) fn encoded(text: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if plain || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Parameters, encoded and sorted, as a signature wants them and a server takes them.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> =
        pairs.iter().map(|(key, value)| (encoded(key, false), encoded(value, false))).collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join("&")
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut out);
    // Hex digits are ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// The names of the signed headers, and the request as it is hashed.
fn canonical(request: &Request<'_>) -> (String, String) {
    let mut headers: Vec<(&str, String)> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            (name.as_str(), words.join(" "))
        })
        .collect();
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let Request { method, path, query, payload, .. } = request;
    let text = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
    (names, text)
}

/// The value of the header `Authorization`.
pub(super) fn authorization(keys: Keys<'_>, scope: Scope<'_>, request: &Request<'_>) -> String {
    let (names, canonical) = canonical(request);
    let time = amz_date(scope.time);
    let day = &time[..8];
    let Scope { region, service, .. } = scope;
    let credential = format!("{day}/{region}/{service}/aws4_request");
    let hashed = Digest::of(canonical.as_bytes()).to_hex();
    let text = format!("{ALGORITHM}\n{time}\n{credential}\n{hashed}");
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{}", keys.secret).as_bytes());
    for part in [day, region, service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let id = keys.id;
    format!("{ALGORITHM} Credential={id}/{credential},SignedHeaders={names},Signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(&format!("{text}.000000Z")).unwrap()
    }

    fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn signature(authorization: &str) -> &str {
        authorization.rsplit_once("Signature=").unwrap().1
    }

    /// The vectors that AWS publishes as `aws-sig-v4-test-suite`.
    #[test]
    fn the_vectors_of_the_test_suite_are_signed_as_it_says() {
        let keys = Keys { id: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
        let time = at("2015-08-30T12:36:00");
        let scope = Scope { region: "us-east-1", service: "service", time };
        let plain = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let spaced = [("my-header1", "  a   b   c  "), ("my-header2", "\"a   b   c\"")];
        let empty = Digest::of(b"").to_hex();
        for (name, method, path, pairs, headers, expected) in [
            (
                "get-vanilla",
                "GET",
                "/",
                &[][..],
                plain.to_vec(),
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "/",
                &[("Param2", "value2"), ("Param1", "value1")][..],
                plain.to_vec(),
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "get-vanilla-query-unreserved",
                "GET",
                "/",
                &[(
                    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                )][..],
                plain.to_vec(),
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
            ),
            (
                "get-utf8",
                "GET",
                "/\u{1234}",
                &[][..],
                plain.to_vec(),
                "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
            ),
            (
                "post-vanilla",
                "POST",
                "/",
                &[][..],
                plain.to_vec(),
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "get-header-value-trim",
                "GET",
                "/",
                &[][..],
                [plain.to_vec(), vec![("my-header1", "value1"), spaced[1]]].concat(),
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ] {
            let (query, path) = (query(pairs), encoded(path, true));
            let request = Request {
                method,
                path: &path,
                query: &query,
                headers: &owned(&headers),
                payload: &empty,
            };
            assert_eq!(signature(&authorization(keys, scope, &request)), expected, "{name}");
        }
    }

    /// The examples of the documentation of S3.
    #[test]
    fn the_examples_of_the_documentation_are_signed_as_it_says() {
        let keys =
            Keys { id: "AKIAIOSFODNN7EXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" };
        let time = at("2013-05-24T00:00:00");
        let scope = Scope { region: "us-east-1", service: "s3", time };
        let empty = Digest::of(b"").to_hex();
        let body = Digest::of(b"Welcome to Amazon S3.").to_hex();
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let date = ("x-amz-date", "20130524T000000Z");
        let none = ("x-amz-content-sha256", empty.as_str());
        for (method, path, pairs, headers, payload, expected) in [
            (
                "GET",
                "/test.txt",
                &[][..],
                vec![host, ("range", "bytes=0-9"), none, date],
                &empty,
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test$file.text",
                &[][..],
                vec![
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    host,
                    ("x-amz-content-sha256", body.as_str()),
                    date,
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ],
                &body,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/",
                &[("lifecycle", "")][..],
                vec![host, none, date],
                &empty,
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/",
                &[("max-keys", "2"), ("prefix", "J")][..],
                vec![host, none, date],
                &empty,
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let (query, path) = (query(pairs), encoded(path, true));
            let request =
                Request { method, path: &path, query: &query, headers: &owned(&headers), payload };
            let found = authorization(keys, scope, &request);
            assert_eq!(signature(&found), expected, "{method} {path}?{query}");
            let begin = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=";
            assert!(found.starts_with(begin), "{found}");
        }
    }
}
