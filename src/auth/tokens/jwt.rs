//! JSON Web Tokens in compact form: two parts of JSON and a signature. Follows
//! gopkg.in/go-jose/go-jose.v2 in what it accepts.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

use super::keys::{PublicKey, Signer};
use crate::schema::{Object, Value, json};

/// Like Go's base64.RawURLEncoding, which ignores the bits of the last character that do not belong to a byte.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
/// The error for a signature by an unknown key.
const BAD_SIGNATURE: &str = "go-jose/go-jose: error in cryptographic primitive";
/// Longer tokens are invalid, in bytes: more does not fit into a request's head anyway.
const MAX: usize = 64 << 10;

/// A token with an unverified signature.
pub struct Unverified<'a> {
    signed: Cow<'a, str>,
    signature: Vec<u8>,
    header: Value,
    claims: Value,
}

impl<'a> Unverified<'a> {
    /// Parses a token; `None` if the text is not one.
    pub fn parse(text: &'a str) -> Option<Unverified<'a>> {
        if text.len() > MAX {
            return None;
        }
        // White space is ignored: tokens may be broken into lines.
        let text: Cow<'a, str> = match text.contains(char::is_whitespace) {
            true => text.split_whitespace().collect::<String>().into(),
            false => text.into(),
        };
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| BASE64.decode(text).ok();
        let object = |text: &str| {
            let value = json::parse(&part(text)?).ok()?.value;
            value.as_object().is_some().then_some(value)
        };
        let (signature, header, claims) = (part(signature)?, object(header)?, object(claims)?);
        let end = signed.len();
        Some(Unverified {
            signed: match text {
                Cow::Borrowed(text) => text[..end].into(),
                Cow::Owned(mut text) => {
                    text.truncate(end);
                    text.into()
                }
            },
            signature,
            header,
            claims,
        })
    }

    /// The issuer claimed by the token.
    pub fn issuer(&self) -> &str {
        self.claims.str("iss")
    }

    /// The claims, if one of `keys` signed them.
    ///
    /// # Errors
    /// Upstream's text for a token not signed by a known key.
    pub fn verify(self, keys: &[PublicKey]) -> Result<Value, &'static str> {
        let id = self.header.str("kid");
        let mut keys = keys
            .iter()
            .filter(|key| id.is_empty() || key.id == id)
            .peekable();
        if keys.peek().is_none() {
            return Err("invalid signature, no keys found");
        }
        // Critical extensions are not supported.
        let understood = self.header.get("crit").is_none();
        let algorithm = self.header.str("alg");
        let message = self.signed.as_bytes();
        if understood && keys.any(|key| key.verifies(algorithm, message, &self.signature)) {
            Ok(self.claims)
        } else {
            Err(BAD_SIGNATURE)
        }
    }
}

/// Signs claims and returns the token.
///
/// # Errors
/// Like [`Signer::sign`].
pub fn sign(claims: &Value, signer: &Signer) -> Result<String, String> {
    let mut header = Object::new();
    header.insert("alg", signer.public.algorithm());
    header.insert("kid", signer.public.id.as_str());
    let part = |value: &Value| BASE64.encode(json::to_string(value));
    let mut token = format!("{}.{}", part(&Value::Object(header)), part(claims));
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    BASE64.encode_string(signature, &mut token);
    Ok(token)
}

/// A claim has the wrong form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRead;

/// A claim that is a time, in seconds since 1970; `None` if absent.
///
/// # Errors
/// It is not a time.
pub fn time(claims: &Value, name: &str) -> Result<Option<i64>, NotRead> {
    match claims.at(name) {
        Value::Null => Ok(None),
        Value::Int(seconds) => Ok(Some(*seconds)),
        Value::Float(seconds) if seconds.is_finite() => Ok(Some(*seconds as i64)),
        _ => Err(NotRead),
    }
}

/// A claim that is one string or a list.
///
/// # Errors
/// It is something else.
pub fn texts(claims: &Value, name: &str) -> Result<Vec<String>, NotRead> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(NotRead);
    match claims.at(name) {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value;

    fn signer() -> Signer {
        Signer::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    #[test]
    fn what_was_signed_is_verified_and_nothing_else() {
        let (signer, other) = (signer(), signer());
        let claims = value!({"iss": "me", "exp": 5i64});
        let mut token = sign(&claims, &signer).unwrap();
        let verify = |token: &str, keys: &[&PublicKey]| {
            let keys: Vec<PublicKey> = keys.iter().map(|key| (*key).clone()).collect();
            Unverified::parse(token).map(|token| token.verify(&keys))
        };
        let (good, bad) = (&signer.public, &other.public);
        assert_eq!(verify(&token, &[bad, good]), Some(Ok(claims.clone())));
        assert_eq!(
            verify(&token, &[bad]),
            Some(Err("invalid signature, no keys found"))
        );
        assert_eq!(Unverified::parse(&token).unwrap().issuer(), "me");
        let parts: Vec<&str> = token.split('.').collect();
        let with_header = |header: Value| {
            let header = BASE64.encode(json::to_string(&header));
            let signed = format!("{header}.{}", parts[1]);
            let signature = BASE64.encode(signer.sign(signed.as_bytes()).unwrap());
            verify(&format!("{signed}.{signature}"), &[bad, good])
        };
        assert_eq!(
            with_header(value!({"alg": "ES256"})),
            Some(Ok(claims.clone()))
        );
        for header in [
            value!({"alg": "none"}),
            value!({"alg": "RS256"}),
            value!({}),
            value!({"alg": "ES256", "crit": ["b64"]}),
            value!({"alg": "ES256", "kid": (bad.id.as_str())}),
        ] {
            assert_eq!(with_header(header), Some(Err(BAD_SIGNATURE)));
        }
        let other_claims = BASE64.encode(r#"{"iss":"me","exp":6}"#);
        let forged = format!("{}.{other_claims}.{}", parts[0], parts[2]);
        assert_eq!(verify(&forged, &[good]), Some(Err(BAD_SIGNATURE)));
        let verified = Some(Ok(claims.clone()));
        let lines = token.replace('.', ".\r\n\t ");
        assert_eq!(verify(&lines, &[good]), verified, "broken into lines");
        // Four bits of the last character do not belong to a byte.
        let last = token.pop().unwrap();
        let next = char::from(last as u8 + 1);
        assert_eq!(verify(&format!("{token}{next}"), &[good]), verified);
        token.push(last);
        for text in [
            "",
            "a.b.c",
            "..",
            &format!("{token}."),
            &token.replacen('.', "=.", 1),
            "W10.W10.",
            "e30.e30",
            "e30.e30.e30.e30",
        ] {
            assert!(verify(text, &[good]).is_none(), "{text}");
        }
        assert!(Unverified::parse("e30.e30.").is_some());
    }

    #[test]
    fn times_and_texts_are_read_as_they_are_written() {
        let claims = value!({"a": 5i64, "b": 5.9, "c": "5", "d": ["x", "y"], "e": [1i64]});
        assert_eq!(time(&claims, "a"), Ok(Some(5)));
        assert_eq!(time(&claims, "b"), Ok(Some(5)));
        assert_eq!(time(&claims, "c"), Err(NotRead));
        assert_eq!(time(&claims, "z"), Ok(None));
        assert_eq!(texts(&claims, "c"), Ok(vec!["5".into()]));
        assert_eq!(texts(&claims, "d"), Ok(vec!["x".into(), "y".into()]));
        assert_eq!(texts(&claims, "e"), Err(NotRead));
        assert_eq!(texts(&claims, "z"), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[A-Za-z0-9_.=-]{0,80}", at in 0usize..400, byte in any::<u8>()) {
            static TOKEN: std::sync::LazyLock<(Vec<PublicKey>, String)> = std::sync::LazyLock::new(|| {
                let signer = signer();
                let token = sign(&value!({"iss": "me"}), &signer).unwrap();
                (vec![signer.public], token)
            });
            let (keys, token) = &*TOKEN;
            if let Some(token) = Unverified::parse(&text) {
                prop_assert!(token.verify(keys).is_err());
            }
            let mut changed = token.clone().into_bytes();
            let at = at % changed.len();
            if changed[at] != byte && byte.is_ascii() {
                changed[at] = byte;
                let changed = String::from_utf8(changed).unwrap();
                let original = Unverified::parse(token).unwrap();
                if let Some(token) = Unverified::parse(&changed) {
                    // Changes to bits that do not belong to a byte have no effect.
                    let same = token.signature == original.signature && token.signed == original.signed;
                    prop_assert_eq!(token.verify(keys).is_ok(), same, "{}", changed);
                }
            }
        }
    }
}
