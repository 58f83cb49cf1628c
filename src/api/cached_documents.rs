//! Generated documents (OpenAPI): created at the first request, cached while the registry stays the same, and not sent
//! again to clients that have them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, header};
use parking_lot::Mutex;

use super::reply::{self, Body};
use crate::resources::Registry;

/// A document in the form in which it is sent.
#[derive(Clone)]
pub struct Document {
    bytes: Bytes,
    /// SHA-512 of the bytes, in upper-case hexadecimal, as in upstream's ETags.
    pub hash: Arc<str>,
}

impl Document {
    fn of(bytes: Vec<u8>) -> Document {
        let digest = ring::digest::digest(&ring::digest::SHA512, &bytes);
        let digest = digest.as_ref().iter();
        let hash: String = digest.map(|byte| format!("{byte:02X}")).collect();
        Document {
            bytes: bytes.into(),
            hash: hash.into(),
        }
    }

    /// Sends it, or 304 if the client has it.
    pub fn send(&self, content_type: &str, cache: &'static str, parts: &Parts) -> Response<Body> {
        let tag = format!("\"{}\"", self.hash);
        let known = parts.headers.get(header::IF_NONE_MATCH);
        let (code, content_type, bytes) = match known {
            Some(known) if known.as_bytes() == tag.as_bytes() => (304, "", Bytes::new()),
            _ => (200, content_type, self.bytes.clone()),
        };
        let response = reply::response(code, content_type, bytes, &parts.headers);
        self.tagged(response, cache)
    }

    /// A redirect to its current location.
    pub fn moved(
        &self,
        content_type: &str,
        to: &str,
        cache: &'static str,
        parts: &Parts,
    ) -> Response<Body> {
        let mut response = reply::response(301, content_type, Bytes::new(), &parts.headers);
        if let Ok(to) = to.parse() {
            response.headers_mut().insert(header::LOCATION, to);
        }
        self.tagged(response, cache)
    }

    fn tagged(&self, mut response: Response<Body>, cache: &'static str) -> Response<Body> {
        let headers = response.headers_mut();
        if let Ok(value) = format!("\"{}\"", self.hash).parse() {
            headers.insert(header::ETAG, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// The documents of one registry, by name.
#[derive(Default)]
pub struct Documents {
    made: Mutex<(Weak<Registry>, HashMap<String, Document>)>,
}

impl Documents {
    /// Returns a cached document, or creates it.
    pub fn get(
        &self,
        name: &str,
        registry: &Arc<Registry>,
        make: impl FnOnce(&Arc<Registry>) -> Vec<u8>,
    ) -> Document {
        {
            let mut made = self.made.lock();
            // The weak pointer keeps the allocation, so no other registry can have this address.
            if made.0.as_ptr() != Arc::as_ptr(registry) {
                *made = (Arc::downgrade(registry), HashMap::new());
            }
            if let Some(document) = made.1.get(name) {
                return document.clone();
            }
        }
        let document = Document::of(make(registry));
        let mut made = self.made.lock();
        if made.0.as_ptr() == Arc::as_ptr(registry) {
            made.1.insert(name.to_owned(), document.clone());
        }
        document
    }
}
