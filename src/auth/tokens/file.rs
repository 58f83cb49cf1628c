//! `--token-auth-file`: lines of comma-separated values: token, user, uid, and groups in one quoted value.
//! Follows k8s.io/apiserver/pkg/authentication/token/tokenfile.

use std::collections::HashMap;
use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::auth::User;

/// Users by token. Only digests of tokens are kept, so that the time of a look-up reveals nothing about them.
pub struct TokenFile(HashMap<[u8; 32], User>);

/// An invalid token file.
#[derive(Debug, thiserror::Error)]
#[error("cannot read tokens from {}: {cause}; each line must be TOKEN,USER,UID, optionally followed by \"GROUP,GROUP\"", path.display())]
pub struct TokenFileError {
    path: std::path::PathBuf,
    cause: String,
}

fn key(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

impl TokenFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn open(path: &Path) -> Result<TokenFile, TokenFileError> {
        let failed = |cause| TokenFileError {
            path: path.to_owned(),
            cause,
        };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        TokenFile::read(&text).map_err(failed)
    }

    fn read(text: &str) -> Result<TokenFile, String> {
        let mut tokens = HashMap::new();
        for record in records(text)? {
            let [token, name, uid, rest @ ..] = record.as_slice() else {
                return Err(format!(
                    "there must be at least 3 columns (token, user name, user uid), found {}",
                    record.len()
                ));
            };
            if token.is_empty() {
                tracing::warn!("ignoring an empty token in the token file");
                continue;
            }
            let user = User {
                name: name.into(),
                uid: uid.into(),
                groups: rest.first().map_or_else(Vec::new, |groups| {
                    groups.split(',').map(Into::into).collect()
                }),
                extra: Vec::new(),
            };
            if tokens.insert(key(token), user).is_some() {
                tracing::warn!("duplicate token in the token file; using its last user");
            }
        }
        Ok(TokenFile(tokens))
    }

    /// The user of a token.
    pub fn user(&self, token: &str) -> Option<&User> {
        self.0.get(&key(token))
    }
}

/// Parses comma-separated values with quoted fields, in which quotes are doubled; skips empty lines.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        let mut record = Vec::new();
        loop {
            let mut value = String::new();
            if chars.peek() == Some(&'"') {
                chars.next();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed".into()),
                        Some('"') if chars.peek() == Some(&'"') => {
                            chars.next();
                            value.push('"');
                        }
                        Some('"') => break,
                        Some(c) => value.push(c),
                    }
                }
                if !matches!(chars.peek(), None | Some(',' | '\n' | '\r')) {
                    return Err("a quoted value goes on after its quote".into());
                }
            }
            while let Some(&c) = chars.peek() {
                match c {
                    ',' | '\n' => break,
                    '"' => return Err("a quote stands within a value".into()),
                    c => value.push(c),
                }
                chars.next();
            }
            let ends = chars.next() != Some(',');
            if ends && value.ends_with('\r') {
                value.pop();
            }
            record.push(value);
            if ends {
                break;
            }
        }
        if record != [""] {
            records.push(record);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let file = TokenFile::read(
            "t1,jane,1\r\n\nt2,\"k, \"\"x\"\"\",2,\"a,b\"\n,nobody,0\nt3,ann,3,one,more\nt1,joe,4",
        )
        .unwrap();
        let told = |token: &str| {
            file.user(token)
                .map(|user| format!("{} {} {}", user.name, user.uid, user.groups.join("+")))
        };
        assert_eq!(told("t1").as_deref(), Some("joe 4 "));
        assert_eq!(told("t2").as_deref(), Some("k, \"x\" 2 a+b"));
        assert_eq!(told("t3").as_deref(), Some("ann 3 one"));
        assert_eq!(told(""), None);
        assert_eq!(told("t4"), None);
        for bad in ["a,b", "\"a,b,c", "a,b\"c,d", "\"a\"b,c,d"] {
            assert!(TokenFile::read(bad).is_err(), "{bad}");
        }
    }
}
