//! The tag in an image name. Follows k8s.io/kubernetes/pkg/util/parsers and the grammar of
//! github.com/distribution/reference.

use std::sync::LazyLock;

use regex::Regex;

/// Host and port, path, tag, digest.
static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    const LABEL: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
    const PART: &str = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    const WORD: &str = "[0-9A-Za-z_]";
    Regex::new(&format!(
        r"^(?:(?:{LABEL}(?:\.{LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)({PART}(?:/{PART})*)(?::({WORD}[0-9A-Za-z_.-]{{0,127}}))?(?:@([A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{{32,}}))?$"
    ))
    .ok()
});

/// The default pull policy of an image: `Always` for the tag `latest`, explicit or implied.
pub(in crate::resources::groups) fn default_pull_policy(image: &str) -> &'static str {
    if tag(image).as_deref() == Some("latest") {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// The image's tag: `latest` if it has neither tag nor digest, empty if it has only a digest, `None` if the text is not
/// an image name.
fn tag(image: &str) -> Option<String> {
    let is_id = image.len() == 64
        && image
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_id {
        return None;
    }
    let (domain, rest) = with_domain(image);
    let remote = rest.split(':').next().unwrap_or_default();
    if remote.to_lowercase() != remote {
        return None;
    }
    let text = format!("{domain}/{rest}");
    let found = REFERENCE.as_ref()?.captures(&text)?;
    let part = |n| found.get(n).map(|part| part.as_str());
    if part(1)?.len() > 255 {
        return None;
    }
    match (part(2), part(3)) {
        (_, Some(digest)) if !is_digest(digest) => None,
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => Some(String::new()),
        (None, None) => Some("latest".to_owned()),
    }
}

/// Splits off the registry, which is Docker Hub by default.
fn with_domain(image: &str) -> (&str, String) {
    const HUB: &str = "docker.io";
    let (domain, rest) = match image.split_once('/') {
        Some(("index.docker.io", rest)) => (HUB, rest),
        Some((domain, rest))
            if domain == "localhost"
                || domain.contains(['.', ':'])
                || domain.to_lowercase() != domain =>
        {
            (domain, rest)
        }
        _ => (HUB, image),
    };
    if domain == HUB && !rest.contains('/') {
        return (domain, format!("library/{rest}"));
    }
    (domain, rest.to_owned())
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && !hex.bytes().any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_policy() {
        const DIGEST: &str =
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (image, always) in [
            ("busybox", true),
            ("busybox:latest", true),
            ("busybox:1.36", false),
            ("localhost:5000/busybox", true),
            (&format!("busybox@{DIGEST}"), false),
            (&format!("busybox:latest@{DIGEST}"), true),
            (&format!("busybox:latest@{}", &DIGEST[..60]), false),
            ("busybox:latest@md5:d41d8cd98f00b204e9800998ecf8427e", false),
            ("busybox:Latest", false),
            ("App UPPER", false),
            ("Reg.example/app", true),
            ("[::1]:5000/app", true),
            ("a b", false),
            ("", false),
            (&DIGEST[7..], false),
        ] {
            let expected = if always { "Always" } else { "IfNotPresent" };
            assert_eq!(default_pull_policy(image), expected, "{image}");
        }
    }
}
