//! Continue tokens.

use base64::Engine as _;

use crate::meta::Status;
use crate::schema::{Value, byte_text, json};

/// A continue token: where the next page begins, and the revision of all pages (-1 for the newest).
pub(super) struct Token {
    pub(super) rev: i64,
    pub(super) start: String,
}

impl Token {
    pub(super) fn write(&self) -> String {
        let mut start = self.start.clone();
        start.push('\0');
        let text = format!(
            "{{\"v\":\"meta.k8s.io/v1\",\"rv\":{},\"start\":{}}}",
            self.rev,
            json::to_string(&Value::from(start))
        );
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    pub(super) fn read(text: &str) -> Result<Token, Status> {
        let bad = |why: String| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = byte_text::decode_unpadded(text)
            .map_err(|at| bad(format!("illegal base64 data at input byte {at}")))?;
        let value = json::parse(&bytes)
            .map_err(|error| bad(error.to_string()))?
            .value;
        if !matches!(value, Value::Object(_) | Value::Null) {
            return Err(bad(format!(
                "json: cannot unmarshal {} into Go value of type storage.continueToken",
                value.type_name()
            )));
        }
        if value.str("v") != "meta.k8s.io/v1" {
            return Err(bad(format!(
                "server does not recognize this encoded version {}",
                value.str("v")
            )));
        }
        let (rev, start) = (value.int("rv"), value.str("start"));
        if rev == 0 {
            return Err(bad(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        if start.is_empty() {
            return Err(bad(
                "encoded start key empty (version meta.k8s.io/v1)".to_owned()
            ));
        }
        let key = start.strip_prefix('/').unwrap_or(start);
        if !key.is_empty() && key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad(start.to_owned()));
        }
        Ok(Token {
            rev,
            start: start.trim_end_matches('\0').to_owned(),
        })
    }
}
