//! Variables from files.

use std::io::{self, Read as _};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{FileKeySelector, Pod};

use super::super::{Host, uid};
use crate::blocking::blocking;
use crate::storage::beneath;

impl Host {
    /// The value of a variable in a file of a volume; None if it is missing and optional.
    pub(super) async fn of_file(
        &self,
        pod: &Pod,
        of: &FileKeySelector,
    ) -> Result<Option<String>, String> {
        let volume = self.volume_path(pod, &of.volume_name).await;
        let (volume, _) = volume.map_err(|_| {
            format!(
                "cannot find the volume {:?} referenced by FileKeyRef",
                of.volume_name
            )
        })?;
        let (path, key) = (PathBuf::from(&of.path), of.key.clone());
        let shown = volume.join(&path);
        let read = blocking(move || {
            let mut text = String::new();
            // The file is written by containers of the pod.
            let file = beneath::open_plain(&volume, &path)?;
            file.take(ENV_FILE).read_to_string(&mut text)?;
            parse_env(&text, &key).map_err(io::Error::other)
        });
        let value = read.await.map_err(|error| {
            tracing::warn!(pod = uid(pod), path = %shown.display(), %error, "a file of environment variables cannot be read");
            "couldn't parse env file".to_owned()
        })?;
        match value.is_empty() {
            false => Ok(Some(value)),
            true if of.optional == Some(true) => Ok(None),
            true => Err(format!(
                "environment variable key {:?} not found in file {:?}",
                of.key, shown
            )),
        }
    }
}

/// The largest file of variables, in bytes.
const ENV_FILE: u64 = 1 << 20;

/// The value of a variable in a file with lines `NAME='value'`; empty if it is missing. Follows `ParseEnv`
/// (pkg/kubelet/util/env).
///
/// # Errors
/// The first malformed line before it.
pub(super) fn parse_env(text: &str, key: &str) -> Result<String, String> {
    let wrong = |line: usize, what: &str| {
        Err(format!(
            "invalid environment variable format at line {line}: {what}"
        ))
    };
    let blank = [' ', '\t'];
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(blank);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return wrong(number, "missing '='");
        };
        match name.trim_end_matches(blank) {
            "" => return wrong(number, "empty variable name"),
            trimmed if trimmed != name => {
                return wrong(number, "whitespace before '=' is not allowed");
            }
            _ => {}
        }
        if value.starts_with(blank) {
            // Empty, as for a shell.
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let Some(mut rest) = value.strip_prefix('\'') else {
            return wrong(number, "value must be enclosed in single quotes");
        };
        let mut value = String::new();
        let (mut at, mut after) = (number, None);
        while after.is_none() {
            match rest.split_once('\'') {
                Some((last, beyond)) => {
                    value.push_str(last);
                    after = Some(beyond);
                }
                None => {
                    value.push_str(rest);
                    value.push('\n');
                    let Some((number, line)) = lines.next() else {
                        return Err(format!(
                            "invalid environment variable format starting at line {number}: unclosed single quote"
                        ));
                    };
                    (at, rest) = (number, line);
                }
            }
        }
        let after = after.unwrap_or_default().trim_start_matches(blank);
        if !after.is_empty() && !after.starts_with('#') {
            return wrong(at, "unexpected content after closing quote");
        }
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}
