//! Validates the query of log and port-forward requests, before their pod is looked up. Follows
//! k8s.io/kubernetes/pkg/apis/core/validation (ValidatePodLogOptions) and the conversions of k8s.io/apimachinery.

use crate::api::query::Query;
use crate::meta::errors::quoted;
use crate::meta::status::About;
use crate::meta::strconv::parse_uint;
use crate::meta::{Errors, Path, Status, time};

/// Validates the options of a log request for `pod`.
///
/// # Errors
/// 400 for malformed numbers and times, in the order of the Go struct; 422 for invalid values.
pub(super) fn log(query: &Query, pod: &str) -> Result<(), Status> {
    let since = query.int("sinceSeconds")?;
    let since_time = query.get("sinceTime");
    if let Some(text) = since_time.filter(|text| !text.is_empty()) {
        time::canonical(text).map_err(Status::bad_request)?;
    }
    let tail = query.int("tailLines")?;
    let limit = query.int("limitBytes")?;
    let mut errors = Errors::default();
    let root = Path::ROOT;
    if let Some(lines) = tail.filter(|lines| *lines < 0) {
        let why = "must be greater than or equal to 0";
        errors.invalid(root.field("tailLines"), lines, why);
    }
    if let Some(bytes) = limit.filter(|bytes| *bytes < 1) {
        errors.invalid(root.field("limitBytes"), bytes, "must be greater than 0");
    }
    match since {
        // Upstream's field path of an empty name.
        Some(_) if since_time.is_some() => errors.forbidden(
            root.field("[]"),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        Some(seconds) if seconds < 1 => {
            errors.invalid(
                root.field("sinceSeconds"),
                seconds,
                "must be greater than 0",
            );
        }
        _ => {}
    }
    if query.get("stream").is_some() {
        errors.forbidden(root.field("stream"), "may not be specified");
    }
    if errors.is_empty() {
        return Ok(());
    }
    let about = About {
        group: "",
        kind: "PodLogOptions",
        name: pod,
    };
    Err(Status::invalid(about, &errors))
}

/// Validates the ports to forward: any number of lists.
///
/// # Errors
/// 400 with the text of Go's strconv.
pub(super) fn ports(query: &Query) -> Result<(), Status> {
    for text in query.all("ports").flat_map(|list| list.split(',')) {
        let why = match parse_uint(text) {
            Ok(port) if u16::try_from(port).is_ok() => continue,
            Ok(_) => format!(
                "strconv.ParseUint: parsing {}: value out of range",
                quoted(text)
            ),
            Err(why) => why,
        };
        return Err(Status::bad_request(format!(
            "cannot convert to []int32: {why}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(judged: Result<(), Status>) -> Option<(u16, String)> {
        judged.err().map(|status| (status.code, status.message))
    }

    #[test]
    fn a_log_is_asked_for_by_sound_options() {
        for (query, refused) in [
            ("", None),
            ("tailLines=0&limitBytes=1&sinceSeconds=1&follow=maybe", None),
            ("sinceTime=2020-01-01T00:00:00Z", None),
            (
                "tailLines=x&limitBytes=y",
                Some((400, "strconv.ParseInt: parsing \"x\": invalid syntax")),
            ),
            (
                "sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z",
                Some((
                    422,
                    "PodLogOptions \"p\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                )),
            ),
            (
                "tailLines=-1&sinceSeconds=0&limitBytes=0&stream=Stdout",
                Some((
                    422,
                    "PodLogOptions \"p\" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be greater than 0, stream: Forbidden: may not be specified]",
                )),
            ),
        ] {
            let found = refusal(log(&Query::parse(query), "p"));
            let refused = refused.map(|(code, text)| (code, text.to_owned()));
            assert_eq!(found, refused, "{query}");
        }
    }

    #[test]
    fn ports_are_numbers_of_sixteen_bits() {
        for (query, refused) in [
            ("", None),
            ("ports=80&ports=90,100", None),
            ("ports=", Some("parsing \"\": invalid syntax")),
            ("ports=80&ports=y", Some("parsing \"y\": invalid syntax")),
            ("ports=65536", Some("parsing \"65536\": value out of range")),
        ] {
            let found = refusal(ports(&Query::parse(query))).map(|(_, text)| text);
            let refused =
                refused.map(|why| format!("cannot convert to []int32: strconv.ParseUint: {why}"));
            assert_eq!(found, refused, "{query}");
        }
    }
}
