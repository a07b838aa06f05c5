//! Signed tokens of an identity provider (RFC 7515 compact form, keys as RFC 7517).
//!
//! Only the algorithms that providers sign ID tokens with, and never one that the token alone
//! chooses: the key's kind decides, and `none` and symmetric ones do not exist here. The
//! signatures are ring's.

use custody_evidence::base64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwsError {
    #[error("it is not a signed token")]
    Form,
    #[error("it is signed with an algorithm that is not taken (RS256, ES256 and EdDSA are)")]
    Algorithm,
    #[error("it names a key that the provider does not publish")]
    NoKey,
    #[error("its signature is wrong")]
    Signature,
}

/// A public key of the provider. What else stands in it is not ours to judge.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

/// What a token says, if one of these keys has signed it.
pub(super) fn verified(token: &str, keys: &[Jwk]) -> Result<Vec<u8>, JwsError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(JwsError::Form)?;
    let header: Header =
        decode(header).and_then(|json| serde_json::from_slice(&json).ok()).ok_or(JwsError::Form)?;
    if header.crit.is_some() {
        return Err(JwsError::Form);
    }
    let signature = decode(signature).ok_or(JwsError::Form)?;
    let kind = match header.alg.as_str() {
        "RS256" => "RSA",
        "ES256" => "EC",
        "EdDSA" => "OKP",
        _ => return Err(JwsError::Algorithm),
    };
    let named = |key: &&Jwk| {
        key.kty == kind
            && key.usage.as_deref().is_none_or(|usage| usage == "sig")
            && header.kid.as_ref().is_none_or(|kid| key.kid.as_ref() == Some(kid))
    };
    let mut fitting = keys.iter().filter(named).peekable();
    fitting.peek().ok_or(JwsError::NoKey)?;
    let good = |key: &Jwk| key.has_signed(signed.as_bytes(), &signature).is_some();
    if fitting.any(good) { decode(payload).ok_or(JwsError::Form) } else { Err(JwsError::Signature) }
}

impl Jwk {
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> Option<()> {
        let part = |part: &Option<String>| decode(part.as_deref()?);
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let key = RsaPublicKeyComponents { n: part(&self.n)?, e: part(&self.e)? };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).ok()
            }
            ("EC", Some("P-256")) => {
                let point = [vec![4], part(&self.x)?, part(&self.y)?].concat();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).ok()
            }
            ("OKP", Some("Ed25519")) => {
                UnparsedPublicKey::new(&ED25519, part(&self.x)?).verify(message, signature).ok()
            }
            _ => None,
        }
    }
}

/// Base 64 as tokens have it: for addresses, without padding.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.contains(['+', '/', '=']) {
        return None;
    }
    let mut text = text.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    base64::decode(&text)
}

/// The same the other way.
pub(super) fn encode(bytes: &[u8]) -> String {
    base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515 A.2.
    const RSA: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    /// RFC 7515 A.3.
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn keys(list: &[&str]) -> Vec<Jwk> {
        list.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    #[test]
    fn the_examples_of_rfc_7515_hold_and_every_altered_one_fails() {
        for (key, token) in [(RSA, RSA_TOKEN), (EC, EC_TOKEN)] {
            let said = verified(token, &keys(&[RSA, EC])).unwrap();
            assert!(said.starts_with(b"{\"iss\":\"joe\""));
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let (header, payload) = signed.split_once('.').unwrap();
            let other = payload.replacen("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJib2Ii", 1);
            let forged = format!("{header}.{other}.{signature}");
            assert_eq!(verified(&forged, &keys(&[key])), Err(JwsError::Signature));
            assert_eq!(verified(&format!("{signed}."), &keys(&[key])), Err(JwsError::Signature));
            assert_eq!(verified(token, &[]), Err(JwsError::NoKey));
        }
    }

    #[test]
    fn a_token_does_not_choose_how_it_is_judged() {
        let (_, rest) = EC_TOKEN.split_once('.').unwrap();
        for (header, error) in [
            (r#"{"alg":"none"}"#, JwsError::Algorithm),
            (r#"{"alg":"HS256"}"#, JwsError::Algorithm),
            (r#"{"alg":"RS256"}"#, JwsError::Signature),
            (r#"{"alg":"ES256","kid":"other"}"#, JwsError::NoKey),
            (r#"{"alg":"ES256","crit":["b64"]}"#, JwsError::Form),
            ("[]", JwsError::Form),
        ] {
            let token = format!("{}.{rest}", encode(header.as_bytes()));
            assert_eq!(verified(&token, &keys(&[RSA, EC])), Err(error), "{header}");
        }
        let encrypts = EC.replace("\"kty\"", "\"use\":\"enc\",\"kty\"");
        assert_eq!(verified(EC_TOKEN, &keys(&[&encrypts])), Err(JwsError::NoKey));
        for text in ["", ".", "..", "a.b.c", "é.é.é", &EC_TOKEN.replace('-', "+")] {
            assert!(verified(text, &keys(&[EC])).is_err(), "{text}");
        }
    }
}
