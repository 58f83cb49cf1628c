//! Windows options of pods and containers.

use std::sync::LazyLock;

use regex::Regex;

use super::CONTAINERS;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
const SPEC_KIB: usize = 64;
/// Characters that user names must not contain.
const NOT_IN_USERS: &[char] = &[
    '"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']',
];

static NETBIOS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$"#).ok());
static DOMAIN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    const LABEL: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
    Regex::new(&format!(r"^{LABEL}(?:\.{LABEL})*$")).ok()
});

/// validateWindowsSecurityContextOptions
pub(super) fn options(options: At<'_>, errors: &mut Errors) {
    if options.is_absent() {
        return;
    }
    let name = options.field("gmsaCredentialSpecName");
    if !name.is_absent() {
        for wrong in names::dns1123_subdomain(name.str()) {
            name.invalid_pointer(wrong, errors);
        }
    }
    let spec = options.field("gmsaCredentialSpec");
    match spec.value.as_str().map(str::len) {
        Some(0) => spec.invalid_pointer("gmsaCredentialSpec cannot be an empty string", errors),
        Some(n) if n > SPEC_KIB << 10 => spec.invalid_pointer(
            format!("gmsaCredentialSpec size must be under {SPEC_KIB} KiB"),
            errors,
        ),
        _ => {}
    }
    let user = options.field("runAsUserName");
    if !user.is_absent() {
        for wrong in user_name(user.str()) {
            user.invalid_pointer(format!("runAsUserName{wrong}"), errors);
        }
    }
}

/// What is wrong with `DOMAIN\user`; the texts follow the field's name.
fn user_name(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        _ if name.is_empty() => return vec![" cannot be an empty string".to_owned()],
        _ if name.bytes().any(|b| b.is_ascii_control()) => {
            return vec![" cannot contain control characters".to_owned()];
        }
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash".to_owned()],
    };
    let mut wrong = Vec::new();
    let fits =
        |regex: &Option<Regex>, text| regex.as_ref().is_none_or(|r: &Regex| r.is_match(text));
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_MAX {
            wrong.push(format!(
                "'s Domain length must be under {DOMAIN_MAX} characters"
            ));
        }
        if !fits(&NETBIOS, domain) && !fits(&DOMAIN, domain) {
            wrong.push("'s Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        wrong.push("'s User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        wrong.push(format!(
            "'s User length must not be longer than {USER_MAX} characters"
        ));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong.push("'s User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(NOT_IN_USERS) {
        wrong.push(
            r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned(),
        );
    }
    wrong
}

fn host_process(context: &Value) -> Option<bool> {
    context.at("windowsOptions").at("hostProcess").as_bool()
}

/// Either all containers or none are host processes: validateWindowsHostProcessPod.
pub(super) fn host_processes(spec: At<'_>, errors: &mut Errors) {
    let pod = host_process(spec.value.at("securityContext"));
    let (mut all, mut of_host) = (0, 0);
    for list in CONTAINERS {
        for container in spec.field(list).items() {
            all += 1;
            let own = host_process(container.value.at("securityContext"));
            if let (Some(pod), Some(own)) = (pod, own)
                && pod != own
            {
                errors.invalid(
                    container
                        .path
                        .field("securityContext.windowsOptions.hostProcess"),
                    own,
                    format!(
                        "pod hostProcess value must be identical if both are specified, was {pod}"
                    ),
                );
            }
            of_host += usize::from(own.or(pod) == Some(true));
        }
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        errors.invalid(
            spec.path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if !spec.value.bool("hostNetwork") {
        errors.invalid(
            spec.path.field("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        );
    }
}
