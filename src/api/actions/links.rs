//! Rewrites links in proxied pages to lead through the proxy. Follows k8s.io/apimachinery/pkg/util/proxy/transport.go;
//! everything else is unchanged to the byte.

use std::borrow::Cow;
use std::io::{self, Read, Write as _};
use std::ops::Range;

use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};

/// The largest decoded page, in bytes.
const LARGEST: u64 = 16 << 20;

/// The attributes that contain links, by tag.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Tags whose contents are plain text up to their end tag.
const TEXTS: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// The location of a page, inside and outside of the proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    /// The path of the proxy, to which the page's root is mapped.
    pub prefix: &'a str,
    /// The host behind the proxy.
    pub backend: &'a str,
    /// The host that the client requested.
    pub asked: &'a str,
}

impl Page<'_> {
    /// The rewritten link; None if it stays the same.
    pub fn link(&self, link: &str) -> Option<String> {
        let (scheme, rest) = scheme(link);
        let (host, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let is_elsewhere = !host.is_empty() && host != self.backend && host != self.asked;
        if is_elsewhere || !rest.starts_with('/') {
            return None;
        }
        let start = match !host.is_empty() && host == self.asked {
            true => format!("{scheme}//{host}"),
            false => String::new(),
        };
        let (path, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        let path = match path.starts_with(self.prefix) {
            true => Cow::Borrowed(path),
            false => Cow::Owned(joined(self.prefix, path)),
        };
        Some(format!("{start}{path}{query}"))
    }

    /// Rewrites the links of an HTML page. None if that makes it too large: each link may grow by the prefix, which is
    /// much longer than the shortest link.
    pub fn html(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        let mut copied = 0;
        for value in links(text) {
            let link = std::str::from_utf8(&text[value.clone()]).ok();
            if let Some(link) = link.and_then(|link| self.link(link)) {
                out.extend_from_slice(&text[copied..value.start]);
                out.extend_from_slice(link.as_bytes());
                copied = value.end;
                if out.len() as u64 > 2 * LARGEST {
                    return None;
                }
            }
        }
        out.extend_from_slice(&text[copied..]);
        Some(out)
    }

    /// Rewrites the links of a body in the given encoding. None for an unknown encoding, or if the decoded page is too
    /// large.
    ///
    /// # Errors
    /// The body is not valid in its encoding.
    pub fn body(&self, encoding: &str, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        let mut decode = |from: &mut dyn Read| -> io::Result<bool> {
            from.take(LARGEST + 1).read_to_end(&mut text)?;
            Ok(text.len() as u64 <= LARGEST)
        };
        let is_page = match encoding {
            "gzip" => decode(&mut GzDecoder::new(body))?,
            "deflate" => decode(&mut DeflateDecoder::new(body))?,
            _ => true,
        };
        if !is_page {
            return Ok(None);
        }
        let page = match encoding {
            "" => self.html(body),
            _ => self.html(&text),
        };
        let Some(page) = page else {
            return Ok(None);
        };
        Ok(Some(match encoding {
            "" => page,
            "gzip" => {
                let mut out = GzEncoder::new(Vec::new(), Compression::default());
                out.write_all(&page)?;
                out.finish()?
            }
            "deflate" => {
                let mut out = DeflateEncoder::new(Vec::new(), Compression::best());
                out.write_all(&page)?;
                out.finish()?
            }
            _ => return Ok(None),
        }))
    }
}

/// The scheme of a link with its colon, and the rest.
fn scheme(link: &str) -> (&str, &str) {
    let end = link.find([':', '/', '?', '#']);
    match end.filter(|end| link[*end..].starts_with(':')) {
        Some(end) => link.split_at(end + 1),
        None => ("", link),
    }
}

/// A path below another one, without `.`, `..` and empty parts: Go's path.Join, with the slash at its end.
fn joined(prefix: &str, path: &str) -> String {
    let mut parts = Vec::new();
    for part in prefix.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

/// The byte ranges of the links in an HTML page.
fn links(text: &[u8]) -> Vec<Range<usize>> {
    let mut reader = Reader {
        text,
        at: 0,
        found: Vec::new(),
    };
    loop {
        reader.until(|byte| byte == b'<');
        reader.at += 1;
        match reader.peek() {
            None => return reader.found,
            Some(byte) if byte.is_ascii_alphabetic() => reader.tag(),
            Some(b'!') if reader.text[reader.at..].starts_with(b"!--") => reader.comment(),
            Some(b'/' | b'!' | b'?') => drop(reader.until(|byte| byte == b'>')),
            Some(_) => {}
        }
    }
}

/// A position in HTML, with a simple model of where tags begin and end.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    found: Vec<Range<usize>>,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0c)
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Advances to a byte that `ends`, or to the end; returns the skipped range.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> Range<usize> {
        let start = self.at.min(self.text.len());
        let length = self.text[start..].iter().position(|byte| ends(*byte));
        self.at = length.map_or(self.text.len(), |length| start + length);
        start..self.at
    }

    fn name(&self, name: Range<usize>) -> String {
        String::from_utf8_lossy(&self.text[name]).to_ascii_lowercase()
    }

    fn comment(&mut self) {
        let rest = &self.text[self.at..];
        let end = rest.windows(3).position(|here| here == b"-->");
        self.at += end.unwrap_or(rest.len());
    }

    /// Reads a tag, and its contents if they are text.
    fn tag(&mut self) {
        let ends = |byte| is_space(byte) || matches!(byte, b'/' | b'>');
        let name = self.until(ends);
        let name = self.name(name);
        let links = LINKS.iter().find(|(tag, _)| *tag == name);
        let links = links.map_or(&[][..], |(_, links)| links);
        let known = self.found.len();
        loop {
            self.until(|byte| !is_space(byte) && byte != b'/');
            match self.peek() {
                Some(b'>') => break,
                Some(_) => {}
                // An unterminated tag does not count.
                None => return self.found.truncate(known),
            }
            let start = self.at;
            self.at += 1;
            self.until(|byte| ends(byte) || byte == b'=');
            let attribute = self.name(start..self.at);
            self.until(|byte| !is_space(byte));
            if self.peek() != Some(b'=') {
                continue;
            }
            self.at += 1;
            self.until(|byte| !is_space(byte));
            let value = match self.peek() {
                Some(quote @ (b'"' | b'\'')) => {
                    self.at += 1;
                    let value = self.until(|byte| byte == quote);
                    self.at += 1;
                    value
                }
                _ => self.until(|byte| is_space(byte) || byte == b'>'),
            };
            if links.contains(&attribute.as_str()) {
                self.found.push(value);
            }
        }
        if TEXTS.contains(&name.as_str()) {
            self.contents(&name);
        }
    }

    /// Advances to the end tag of a tag whose contents are text.
    fn contents(&mut self, name: &str) {
        let end = format!("</{name}");
        let rest = &self.text[self.at..];
        let found = rest.windows(end.len() + 1).position(|here| {
            let (tag, after) = here.split_at(end.len());
            tag.eq_ignore_ascii_case(end.as_bytes())
                && after
                    .iter()
                    .all(|byte| is_space(*byte) || matches!(byte, b'/' | b'>'))
        });
        // `plaintext` has no end tag.
        let found = found.filter(|_| name != "plaintext");
        self.at = found.map_or(self.text.len(), |found| self.at + found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page<'static> = Page {
        prefix: "/api/v1/namespaces/n/pods/p:80/proxy",
        backend: "10.0.0.1:80",
        asked: "cluster.example",
    };

    #[test]
    fn links_lead_through_the_proxy() {
        let prefix = PAGE.prefix;
        for (link, through) in [
            ("/", format!("{prefix}/")),
            ("/a/b/?c=/d#/e", format!("{prefix}/a/b/?c=/d#/e")),
            ("/a/../../b", "/api/v1/namespaces/n/pods/p:80/b".to_owned()),
            ("http://10.0.0.1:80/a", format!("{prefix}/a")),
            ("//10.0.0.1:80/a", format!("{prefix}/a")),
            (
                "https://cluster.example/a",
                format!("https://cluster.example{prefix}/a"),
            ),
        ] {
            assert_eq!(PAGE.link(link), Some(through), "{link}");
        }
        let through = format!("{prefix}/a");
        assert_eq!(
            PAGE.link(&through),
            Some(through.clone()),
            "it does already"
        );
        for link in [
            "",
            "a/b",
            "#a",
            "?a=/b",
            "mailto:a@b",
            "data:text/plain,/a",
            "https://elsewhere.example/a",
            "//elsewhere.example/a",
            "http://10.0.0.1:80",
        ] {
            assert_eq!(PAGE.link(link), None, "{link}");
        }
    }

    #[test]
    fn what_is_larger_than_any_page_is_left_as_it_is() {
        let packed = |size: u64| {
            let mut out = GzEncoder::new(Vec::new(), Compression::fast());
            io::copy(&mut io::repeat(b' ').take(size), &mut out).expect("packed");
            out.finish().expect("packed")
        };
        for (size, is_page) in [(LARGEST, true), (LARGEST + 1, false)] {
            let body = PAGE.body("gzip", &packed(size)).expect("it is gzip");
            assert_eq!(body.is_some(), is_page, "{size}");
        }
    }

    #[test]
    fn links_of_pages_are_found() {
        for (page, found) in [
            (r#"<a href="/x">t</a>"#, &["/x"][..]),
            ("<A HREF = '/x' id=/y>", &["/x"]),
            ("<img src=/x usemap=/y />", &["/x", "/y"]),
            ("<br><p title=\"/x\">< a href=/y> 1 < 2", &[]),
            ("<!-- <a href='/x'> --><a href='/y'>", &["/y"]),
            (
                "<script src=/x>'<a href=/y>'</SCRIPT ><a href=/z>",
                &["/x", "/z"],
            ),
            ("<title><a href=/y></titles></title><a href=/z>", &["/z"]),
            ("<plaintext></plaintext><a href=/z>", &[]),
            ("</a href=/x><!doctype html><a href=/y>", &["/y"]),
            ("<a href=/x><a href=\"/y", &["/x"]),
            ("<a href", &[]),
            ("<a href=", &[]),
            ("<a =x href>", &[]),
            ("<", &[]),
            ("<!--", &[]),
        ] {
            let links = links(page.as_bytes()).into_iter();
            let texts: Vec<&str> = links.map(|link| &page[link]).collect();
            assert_eq!(texts, found, "{page}");
        }
    }

    #[test]
    fn a_page_of_nothing_but_links_stays_as_it_is() {
        let page = "<a href=/>".repeat(750_000);
        assert_eq!(PAGE.body("", page.as_bytes()).expect("a page"), None);
    }

    #[test]
    fn pages_stay_but_for_their_links() {
        let page = "<P a=1><a href=\"/x\" B>\u{e9}</a><a href='y'><script>\"<a href='/z'>\"";
        let through = page.replace("/x", &format!("{}/x", PAGE.prefix));
        assert_eq!(
            PAGE.html(page.as_bytes()).as_deref(),
            Some(through.as_bytes())
        );
        let other = [b"<a href=\"/\xff\">".as_slice(), b"\xfe<a href=/>"].concat();
        let end = format!("<a href={}/>", PAGE.prefix);
        assert!(
            PAGE.html(&other)
                .is_some_and(|page| page.ends_with(end.as_bytes()))
        );
        let gzip = |text: &[u8]| {
            let mut out = GzEncoder::new(Vec::new(), Compression::default());
            out.write_all(text).expect("memory");
            out.finish().expect("memory")
        };
        let changed = PAGE.body("gzip", &gzip(page.as_bytes()));
        let changed = changed.expect("gzip").expect("known");
        assert_eq!(changed, gzip(through.as_bytes()));
        assert!(PAGE.body("gzip", page.as_bytes()).is_err());
        assert!(PAGE.body("br", page.as_bytes()).expect("left").is_none());
    }
}
