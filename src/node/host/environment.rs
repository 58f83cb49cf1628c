//! Environment variables and field references, as kubelet computes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, FileKeySelector, ObjectFieldSelector, Pod, ResourceFieldSelector,
    Secret, ServiceSpec,
};

use super::{Host, text, uid};
use crate::blocking::blocking;
use crate::client::informer::Key;
use crate::meta::quantity::Quantity;
use crate::node::services::Service;
use crate::node::supplies::Lack;
use crate::storage::beneath;
use crate::zone::{ZoneNetwork, ZoneSpec};

/// Replaces `$(NAME)` by the variable's value; `$$` becomes one `$`, and unknown variables stay.
pub fn expand(given: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut whole = String::with_capacity(given.len());
    let mut rest = given;
    while let Some(at) = rest.find('$') {
        whole.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            whole.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('(') {
            match inner.find(')') {
                Some(end) => {
                    let name = &inner[..end];
                    match known(name) {
                        Some(value) => whole.push_str(&value),
                        None => {
                            whole.push_str("$(");
                            whole.push_str(name);
                            whole.push(')');
                        }
                    }
                    rest = &inner[end + 1..];
                }
                None => {
                    whole.push_str("$(");
                    rest = inner;
                }
            }
        } else {
            whole.push('$');
            rest = after;
        }
    }
    whole.push_str(rest);
    whole
}

/// A map in the form of downward API files: `key="value"` lines.
fn shown(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// A text in double quotes, like Go's `%q`.
fn quoted(value: &str) -> String {
    let mut whole = String::from('"');
    for c in value.chars() {
        let short = match c {
            '\x07' => 'a',
            '\x08' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\r' => 'r',
            '"' | '\\' => c,
            '\0'..' ' | '\x7f' => {
                let _ = write!(whole, "\\x{:02x}", c as u32);
                continue;
            }
            c if is_printable(c) => {
                whole.push(c);
                continue;
            }
            c if c <= '\u{ffff}' => {
                let _ = write!(whole, "\\u{:04x}", c as u32);
                continue;
            }
            c => {
                let _ = write!(whole, "\\U{:08x}", c as u32);
                continue;
            }
        };
        whole.extend(['\\', short]);
    }
    whole.push('"');
    whole
}

/// Whether a character is a letter, mark, number, punctuation, symbol or space.
fn is_printable(c: char) -> bool {
    // Combining marks are only escaped at the beginning of a text.
    let text = String::from_iter(['a', c]);
    c == '\'' || text.escape_debug().nth(1) == Some(c)
}

impl Host {
    /// The value of a field of the pod.
    pub(super) fn field(
        &self,
        pod: &Pod,
        zone: Option<&ZoneSpec>,
        of: &ObjectFieldSelector,
    ) -> Result<String, String> {
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref();
        let keyed = |prefix: &str, map: Option<&BTreeMap<String, String>>| {
            let key = of
                .field_path
                .strip_prefix(prefix)?
                .strip_prefix("['")?
                .strip_suffix("']")?;
            Some(
                map.and_then(|map| map.get(key))
                    .cloned()
                    .unwrap_or_default(),
            )
        };
        if let Some(value) = keyed("metadata.annotations", metadata.annotations.as_ref()) {
            return Ok(value);
        }
        if let Some(value) = keyed("metadata.labels", metadata.labels.as_ref()) {
            return Ok(value);
        }
        let address = || match zone.map(|zone| &zone.network) {
            Some(ZoneNetwork::Own { address, .. }) => address.to_string(),
            _ => self.addresses.first().unwrap_or_default(),
        };
        Ok(match of.field_path.as_str() {
            "metadata.annotations" => shown(metadata.annotations.as_ref()),
            "metadata.labels" => shown(metadata.labels.as_ref()),
            "metadata.name" => text(metadata.name.as_ref()).to_owned(),
            "metadata.namespace" => text(metadata.namespace.as_ref()).to_owned(),
            "metadata.uid" => uid(pod).to_owned(),
            "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())).to_owned(),
            "spec.serviceAccountName" => {
                text(spec.and_then(|spec| spec.service_account_name.as_ref())).to_owned()
            }
            "status.hostIP" => self.addresses.first().unwrap_or_default(),
            "status.hostIPs" => self.addresses.all().join(","),
            "status.podIP" | "status.podIPs" => address(),
            other => return Err(format!("unsupported fieldPath: {other}")),
        })
    }

    /// A container's request or limit for a resource, in units of the divisor, rounded up.
    pub(super) fn resource(
        &self,
        pod: &Pod,
        own: Option<&Container>,
        of: &ResourceFieldSelector,
    ) -> Result<String, String> {
        let spec = pod.spec.as_ref();
        let container = match of.container_name.as_deref().filter(|name| !name.is_empty()) {
            None => own,
            Some(name) => spec.and_then(|spec| {
                let init = spec.init_containers.iter().flatten();
                spec.containers
                    .iter()
                    .chain(init)
                    .find(|one| one.name == name)
            }),
        };
        let container = container.ok_or_else(|| "container not found".to_owned())?;
        let (kind, name) = of
            .resource
            .split_once('.')
            .ok_or_else(|| format!("unsupported container resource : {}", of.resource))?;
        let listed = |kind: &str| {
            let resources = container.resources.as_ref()?;
            let map = match kind {
                "limits" => resources.limits.as_ref(),
                _ => resources.requests.as_ref(),
            }?;
            map.get(name).map(|quantity| quantity.0.clone())
        };
        // A container without a limit may use what its pod may use, or what the node has.
        let capacity = || {
            let whole = spec.and_then(|spec| spec.resources.as_ref()?.limits.as_ref()?.get(name));
            let whole = whole.filter(|_| matches!(name, "cpu" | "memory"));
            let node = self.allocatable.get(name).cloned();
            whole
                .map(|whole| whole.0.clone())
                .or(node)
                .unwrap_or_else(|| "0".to_owned())
        };
        let value = match kind {
            "limits" => listed("limits").unwrap_or_else(capacity),
            _ => listed("requests").unwrap_or_else(|| "0".to_owned()),
        };
        let parse =
            |text: &str| Quantity::parse(text).map_err(|_| format!("bad quantity {text:?}"));
        let value = parse(&value)?;
        let divisor = of
            .divisor
            .as_ref()
            .map(|divisor| divisor.0.as_str())
            .filter(|divisor| *divisor != "0" && !divisor.is_empty())
            .unwrap_or("1");
        let divisor = parse(divisor)?;
        let (top, bottom) = match name {
            "cpu" => (value.milli_value(), divisor.milli_value()),
            _ => (value.value(), divisor.value()),
        };
        let bottom = bottom.max(1);
        Ok((top / bottom + i64::from(top % bottom > 0)).to_string())
    }

    /// The environment variables of a container, in order.
    pub(super) async fn environment(
        &self,
        pod: &Pod,
        container: &Container,
        zone: &ZoneSpec,
    ) -> Result<Vec<(String, String)>, Lack> {
        let wrong = |message: String| Lack::new("CreateContainerConfigError", message);
        let mut result: Vec<(String, String)> = Vec::new();
        let set = |result: &mut Vec<(String, String)>, name: String, value: String| match result
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            Some(known) => known.1 = value,
            None => result.push((name, value)),
        };
        for (name, value) in self.services(pod).await? {
            set(&mut result, name, value);
        }
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.clone().unwrap_or_default();
            let values: BTreeMap<String, String> = if let Some(of) = &source.config_map_ref {
                match self
                    .object::<ConfigMap>(pod, &of.name)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
                {
                    Some(map) => map.data.clone().unwrap_or_default(),
                    None if of.optional == Some(true) => continue,
                    None => return Err(wrong(format!("configmap {:?} not found", of.name))),
                }
            } else if let Some(of) = &source.secret_ref {
                match self
                    .object::<Secret>(pod, &of.name)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
                {
                    Some(secret) => secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(key, value)| {
                            (key.clone(), String::from_utf8_lossy(&value.0).into_owned())
                        })
                        .collect(),
                    None if of.optional == Some(true) => continue,
                    None => return Err(wrong(format!("secret {:?} not found", of.name))),
                }
            } else {
                continue;
            };
            for (key, value) in values {
                set(&mut result, format!("{prefix}{key}"), value);
            }
        }
        for variable in container.env.iter().flatten() {
            let value = self
                .variable(pod, container, zone, variable, &result)
                .await?;
            if let Some(value) = value {
                set(&mut result, variable.name.clone(), value);
            }
        }
        Ok(result)
    }

    async fn variable(
        &self,
        pod: &Pod,
        container: &Container,
        zone: &ZoneSpec,
        variable: &EnvVar,
        before: &[(String, String)],
    ) -> Result<Option<String>, Lack> {
        let wrong = |message: String| Lack::new("CreateContainerConfigError", message);
        let namespace = text(pod.metadata.namespace.as_ref());
        let Some(from) = &variable.value_from else {
            let known = |name: &str| {
                before
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
            };
            return Ok(Some(expand(text(variable.value.as_ref()), &known)));
        };
        if let Some(of) = &from.field_ref {
            return self.field(pod, Some(zone), of).map(Some).map_err(wrong);
        }
        if let Some(of) = &from.resource_field_ref {
            return self
                .resource(pod, Some(container), of)
                .map(Some)
                .map_err(wrong);
        }
        if let Some(of) = &from.config_map_key_ref {
            let map = self
                .object::<ConfigMap>(pod, &of.name)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let optional = of.optional == Some(true);
            let Some(map) = map else {
                return match optional {
                    true => Ok(None),
                    false => Err(wrong(format!("configmap {:?} not found", of.name))),
                };
            };
            return match map.data.as_ref().and_then(|data| data.get(&of.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(wrong(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    of.key, of.name
                ))),
            };
        }
        if let Some(of) = &from.secret_key_ref {
            let secret = self
                .object::<Secret>(pod, &of.name)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let optional = of.optional == Some(true);
            let Some(secret) = secret else {
                return match optional {
                    true => Ok(None),
                    false => Err(wrong(format!("secret {:?} not found", of.name))),
                };
            };
            return match secret.data.as_ref().and_then(|data| data.get(&of.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(wrong(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    of.key, of.name
                ))),
            };
        }
        if let Some(of) = &from.file_key_ref {
            return self.of_file(pod, of).await.map_err(wrong);
        }
        Err(wrong(format!(
            "environment variable {:?} has a source that this node does not know",
            variable.name
        )))
    }

    /// The value of a variable in a file of a volume; None if it is missing and optional.
    async fn of_file(&self, pod: &Pod, of: &FileKeySelector) -> Result<Option<String>, String> {
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

    /// Variables of services: those of the pod's namespace if it wants them, and always `kubernetes`.
    async fn services(&self, pod: &Pod) -> Result<Vec<(String, String)>, Lack> {
        let synced = tokio::time::timeout(PATIENCE, self.services.synced()).await;
        if synced.is_err() {
            return Err(Lack::new(
                "CreateContainerConfigError",
                "services have not yet been read at least once, cannot construct envvars",
            ));
        }
        let wanted = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
        let namespace = text(pod.metadata.namespace.as_ref());
        let own = if wanted {
            self.services.list(namespace)
        } else {
            Vec::new()
        };
        let api = self.services.get("default", "kubernetes");
        Ok(services(own, api)
            .iter()
            .flat_map(|(name, one)| service_variables(name, &one.spec))
            .collect())
    }
}

/// How long to wait for the initial list of services.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest file of variables, in bytes.
const ENV_FILE: u64 = 1 << 20;

/// The services for a pod's environment: those of its namespace that have an address, and the API server's.
fn services(
    own: Vec<(Key, Arc<Service>)>,
    api: Option<Arc<Service>>,
) -> BTreeMap<String, Arc<Service>> {
    let own = own
        .into_iter()
        .map(|(key, one)| (key.name.to_string(), one));
    let api = api.map(|one| ("kubernetes".to_owned(), one));
    let has_address = |one: &Service| {
        let address = one.spec.cluster_ip.as_deref();
        !matches!(address, None | Some("" | "None"))
    };
    let all = api.into_iter().chain(own);
    all.filter(|(_, one)| has_address(one)).collect()
}

/// The value of a variable in a file with lines `NAME='value'`; empty if it is missing. Follows `ParseEnv`
/// (pkg/kubelet/util/env).
///
/// # Errors
/// The first malformed line before it.
fn parse_env(text: &str, key: &str) -> Result<String, String> {
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

/// The variables for a service, including those of Docker links.
fn service_variables(name: &str, spec: &ServiceSpec) -> Vec<(String, String)> {
    let address = text(spec.cluster_ip.as_ref());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else {
        return Vec::new();
    };
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let name = upper(name);
    let mut variables = vec![
        (format!("{name}_SERVICE_HOST"), address.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((
                format!("{name}_SERVICE_PORT_{}", upper(port_name)),
                port.port.to_string(),
            ));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        variables.push((prefix.clone(), url));
        variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{prefix}_PORT"), port.port.to_string()));
        variables.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_upstream() {
        let known = |name: &str| (name == "A").then(|| "1".to_owned());
        for (given, expected) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A-$", "$A-$"),
            ("x$(A)y$(A)", "x1y1"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(given, &known), expected, "{given}");
        }
    }

    #[test]
    fn services_are_told_by_variables() {
        let spec: ServiceSpec = serde_json::from_value(serde_json::json!({
            "clusterIP": "10.0.0.1", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        }))
        .expect("a service");
        let variables: Vec<String> = service_variables("my-db", &spec)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            variables,
            [
                "MY_DB_SERVICE_HOST=10.0.0.1",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL=5432",
                "MY_DB_PORT=tcp://10.0.0.1:5432",
                "MY_DB_PORT_5432_TCP=tcp://10.0.0.1:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.0.0.1",
            ]
        );
    }

    #[test]
    fn pods_are_told_of_their_namespace_and_of_the_api() {
        let service = |address: Option<&str>| {
            let spec = ServiceSpec {
                cluster_ip: address.map(str::to_owned),
                ..ServiceSpec::default()
            };
            Arc::new(Service {
                spec,
                ..Service::default()
            })
        };
        let own = |name: &str, address| (Key::new("n", name), service(address));
        let all = vec![
            own("db", Some("10.0.0.1")),
            own("headless", Some("None")),
            own("alias", None),
            own("kubernetes", Some("10.0.0.2")),
        ];
        let api = Some(service(Some("10.0.0.9")));
        let told = |own, api| -> Vec<(String, String)> {
            let told = services(own, api).into_iter();
            told.map(|(name, one)| (name, one.spec.cluster_ip.clone().unwrap_or_default()))
                .collect()
        };
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        let api_alone = [pair("kubernetes", "10.0.0.9")];
        assert_eq!(told(Vec::new(), api.clone()), api_alone);
        let both = [pair("db", "10.0.0.1"), pair("kubernetes", "10.0.0.2")];
        assert_eq!(told(all, api), both);
        assert_eq!(told(Vec::new(), None), []);
    }

    #[test]
    fn files_of_variables_are_read_as_in_upstream() {
        let text = "# what\n\n  A='1' # one\nB='two\nlines'\nC= 'none'\nD=''\n";
        for (text, key, expected) in [
            (text, "A", Ok("1")),
            (text, "B", Ok("two\nlines")),
            (text, "C", Ok("")),
            (text, "D", Ok("")),
            (text, "E", Ok("")),
            ("A='1'\r\n", "A", Ok("1")),
            ("A='1'\nbad", "A", Ok("1")),
            ("A", "A", Err("at line 1: missing '='")),
            ("\n='1'", "A", Err("at line 2: empty variable name")),
            (
                "A ='1'",
                "A",
                Err("at line 1: whitespace before '=' is not allowed"),
            ),
            (
                "A=1",
                "A",
                Err("at line 1: value must be enclosed in single quotes"),
            ),
            (
                "A='1' 2",
                "A",
                Err("at line 1: unexpected content after closing quote"),
            ),
            (
                "A='1\n2",
                "A",
                Err("starting at line 1: unclosed single quote"),
            ),
        ] {
            let expected = expected.map(str::to_owned);
            let expected =
                expected.map_err(|what| format!("invalid environment variable format {what}"));
            assert_eq!(parse_env(text, key), expected, "{text:?} {key}");
        }
    }

    #[test]
    fn texts_are_quoted_as_go_does() {
        for (given, expected) in [
            ("a'b\"c\\", r#""a'b\"c\\""#),
            ("\x07\x08\t\n\x0b\x0c\r", r#""\a\b\t\n\v\f\r""#),
            ("\0\x1f\x7f", r#""\x00\x1f\x7f""#),
            (
                "\u{80}\u{a0}\u{200b}\u{e0001}",
                r#""\u0080\u00a0\u200b\U000e0001""#,
            ),
            ("\u{e9}e\u{301}\u{1f600}", "\"\u{e9}e\u{301}\u{1f600}\""),
        ] {
            assert_eq!(quoted(given), expected);
        }
    }
}
