//! URLs as Go's net/url parses them: what is accepted, and the parts that validation needs.

/// The parts of a URL, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    /// In lower case; empty for none.
    pub scheme: String,
    /// What follows `scheme:` if it does not begin with a slash.
    pub opaque: String,
    /// Name and password before the host, if there is an `@`.
    pub user: Option<String>,
    /// Host and port.
    pub host: String,
    /// With percent-encoding decoded.
    pub path: String,
    /// After the question mark.
    pub query: String,
    /// After the hash.
    pub fragment: String,
}

/// Undoes the percent encoding of a part of a path, as url.PathUnescape. Bytes that are no UTF-8 become U+FFFD.
///
/// # Errors
/// Go's text where a percent sign begins no encoding: `invalid URL escape "%zz"`.
pub fn path_unescape(text: &str) -> Result<String, String> {
    unescape(text, Place::Path)
}

/// Undoes the encoding of a part of a query, where a plus sign is a space, as url.QueryUnescape.
///
/// # Errors
/// As [`path_unescape`].
pub fn query_unescape(text: &str) -> Result<String, String> {
    unescape(text, Place::Query)
}

/// The parameters of a query, in order, as Go's Request.Form has them: those with a semicolon, or with what only looks
/// like an encoding, are passed over.
pub fn parse_query(query: &str) -> Vec<(String, String)> {
    let parameter = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((query_unescape(name).ok()?, query_unescape(value).ok()?))
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(parameter)
        .collect()
}

/// Parses a URL, absolute or relative, as url.Parse.
///
/// # Errors
/// Go's text: `parse "::": missing protocol scheme`.
pub fn parse(text: &str) -> Result<Url, String> {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let told = |why: String| format!("parse {}: {why}", super::errors::quoted(text));
    let mut url = inner(before, false).map_err(told)?;
    url.fragment = path_unescape(fragment).map_err(told)?;
    Ok(url)
}

/// Parses a request target, an absolute URI or an absolute path, like url.ParseRequestURI.
///
/// # Errors
/// Go's text.
pub fn parse_request(text: &str) -> Result<Url, String> {
    inner(text, true).map_err(|why| format!("parse {}: {why}", super::errors::quoted(text)))
}

fn inner(text: &str, request: bool) -> Result<Url, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.is_empty() && request {
        return Err("empty url".to_owned());
    }
    let mut url = Url::default();
    if text == "*" {
        url.path = "*".to_owned();
        return Ok(url);
    }
    let (scheme, mut rest) = scheme(text)?;
    url.scheme = scheme.to_lowercase();
    if let Some((before, query)) = rest.split_once('?') {
        (rest, url.query) = (before, query.to_owned());
    }
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            url.opaque = rest.to_owned();
            return Ok(url);
        }
        if request {
            return Err("invalid URI for request".to_owned());
        }
        let first = rest.split('/').next().unwrap_or_default();
        if first.contains(':') {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    if (!url.scheme.is_empty() || (!request && !rest.starts_with("///")))
        && let Some(behind) = rest.strip_prefix("//")
    {
        let end = behind.find('/').unwrap_or(behind.len());
        let authority = &behind[..end];
        rest = &behind[end..];
        let host = match authority.rsplit_once('@') {
            None => authority,
            Some((user, host)) => {
                let allowed =
                    |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
                if !user.chars().all(allowed) {
                    return Err("net/url: invalid userinfo".to_owned());
                }
                url.user = Some(path_unescape(user)?);
                host
            }
        };
        url.host = host_of(host)?;
    }
    url.path = path_unescape(rest)?;
    Ok(url)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host_of(host: &str) -> Result<String, String> {
    let port = match host.strip_prefix('[') {
        Some(inner) => {
            let Some(end) = inner.rfind(']') else {
                return Err("missing ']' in host".to_owned());
            };
            &inner[end + 1..]
        }
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!(
            "invalid port {} after host",
            super::errors::quoted(port)
        ));
    }
    if let Some(c) = host.chars().find(|c| {
        c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(*c)
    }) {
        return Err(format!(
            "invalid character {} in host name",
            super::errors::quoted(&c.to_string())
        ));
    }
    unescape(host, Place::Host)
}

/// Where in a URL something is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Only bytes beyond ASCII and `%25` may be.
    Host,
    Path,
    /// A plus sign is a space.
    Query,
}

/// Undoes the encoding of a part of a URL.
fn unescape(text: &str, place: Place) -> Result<String, String> {
    let space = place == Place::Query;
    let is_plain = |c| c != '%' && !(space && c == '+');
    if text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        if b != b'%' {
            out.push(if b == b'+' && space { b' ' } else { b });
            i += 1;
            continue;
        }
        let digits = bytes
            .get(i + 1..i + 3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match value {
            Some(value) if place != Place::Host || value >= 0x80 || value == b'%' => {
                out.push(value);
            }
            _ => {
                let shown = String::from_utf8_lossy(&bytes[i..bytes.len().min(i + 3)]);
                return Err(format!(
                    "invalid URL escape {}",
                    super::errors::quoted(&shown)
                ));
            }
        }
        i += 3;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_undone_as_go_undoes_them() {
        let wrong = |escape: &str| Err(format!("invalid URL escape {escape:?}"));
        for (text, path, query) in [
            ("a+b%20c", Ok("a+b c"), Ok("a b c")),
            ("%c3%A9%2B", Ok("é+"), Ok("é+")),
            ("%ff", Ok("\u{fffd}"), Ok("\u{fffd}")),
            ("a%+fb", wrong("%+f"), wrong("%+f")),
            ("%zz", wrong("%zz"), wrong("%zz")),
            ("é%4", wrong("%4"), wrong("%4")),
            ("%é", wrong("%é"), wrong("%é")),
        ] {
            assert_eq!(path_unescape(text), path.map(str::to_owned), "{text}");
            assert_eq!(query_unescape(text), query.map(str::to_owned), "{text}");
        }
        let pairs = [("a", "1 2"), ("b", ""), ("a", "=3")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse_query("a=1+2&b&&c=1;d=2&e=%zz&a==3"), pairs);
    }

    #[test]
    fn urls_are_read_as_go_reads_them() {
        let url = parse("https://u:p@example.com:8443/a%20b?q=1#f").unwrap();
        assert_eq!(
            (url.scheme.as_str(), url.host.as_str(), url.path.as_str()),
            ("https", "example.com:8443", "/a b")
        );
        assert_eq!(
            (
                url.user.as_deref(),
                url.query.as_str(),
                url.fragment.as_str()
            ),
            (Some("u:p"), "q=1", "f")
        );
        for (text, wrong) in [
            (":a", "parse \":a\": missing protocol scheme"),
            ("a:b/c", ""),
            (
                "1a:b",
                "parse \"1a:b\": first path segment in URL cannot contain colon",
            ),
            (
                "http://h:x/",
                "parse \"http://h:x/\": invalid port \":x\" after host",
            ),
            (
                "http://a b/",
                "parse \"http://a b/\": invalid character \" \" in host name",
            ),
            ("/%zz", "parse \"/%zz\": invalid URL escape \"%zz\""),
        ] {
            assert_eq!(parse(text).err().unwrap_or_default(), wrong, "{text}");
        }
        assert_eq!(
            parse_request("a/b").unwrap_err(),
            "parse \"a/b\": invalid URI for request"
        );
        assert_eq!(parse_request("").unwrap_err(), "parse \"\": empty url");
        assert!(parse_request("/a").is_ok() && parse_request("mailto:x@y").is_ok());
    }
}
