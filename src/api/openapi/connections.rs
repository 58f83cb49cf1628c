//! OpenAPI operations for subresources that open connections, and for logs: their parameters are in the query, and they
//! return no object.

use super::operations::{Of, Operation, PathItem, capital, group_name};
use super::parameters::{PRETTY, Parameter, path, query};
use crate::resources::Subresource;

const CONTAINER: Parameter = query("container", "string");
const STREAMS: [Parameter; 4] = [
    query("stderr", "boolean"),
    query("stdin", "boolean"),
    query("stdout", "boolean"),
    query("tty", "boolean"),
];
const ATTACH: &[Parameter] = &[CONTAINER, STREAMS[0], STREAMS[1], STREAMS[2], STREAMS[3]];
const EXEC: &[Parameter] = &[
    query("command", "string"),
    CONTAINER,
    STREAMS[0],
    STREAMS[1],
    STREAMS[2],
    STREAMS[3],
];
const PORTS: &[Parameter] = &[query("ports", "integer")];
const PROXY: &[Parameter] = &[query("path", "string")];
const LOG: &[Parameter] = &[
    CONTAINER,
    query("follow", "boolean"),
    query("insecureSkipTLSVerifyBackend", "boolean"),
    query("limitBytes", "integer"),
    PRETTY,
    query("previous", "boolean"),
    query("sinceSeconds", "integer"),
    query("stream", "string"),
    query("tailLines", "integer"),
    query("timestamps", "boolean"),
];

/// The parameters of a subresource that opens a connection; `None` for those that are objects.
pub fn options(name: &str, kind: &str) -> Option<&'static [Parameter]> {
    match (name, kind) {
        ("log", _) => Some(LOG),
        (_, "PodAttachOptions") => Some(ATTACH),
        (_, "PodExecOptions") => Some(EXEC),
        (_, "PodPortForwardOptions") => Some(PORTS),
        (_, "NodeProxyOptions" | "PodProxyOptions" | "ServiceProxyOptions") => Some(PROXY),
        _ => None,
    }
}

/// The paths of such a subresource; `outer` are the path parameters of its objects.
pub fn paths(
    of: &Of<'_>,
    place: &str,
    sub: &Subresource,
    options: &[Parameter],
    outer: &[Parameter],
) -> Vec<PathItem> {
    let outer = outer.iter().filter(|parameter| parameter.in_path);
    let parameters: Vec<Parameter> = outer.chain(options).copied().collect();
    let place = format!("{place}/{{name}}/{}", sub.name);
    if *sub.name == *"log" {
        return vec![PathItem {
            path: place,
            operations: vec![log(of)],
            parameters,
        }];
    }
    let methods: &[&str] = match options {
        PROXY => &["get", "put", "post", "delete", "options", "head", "patch"],
        _ => &["get", "post"],
    };
    let operations = |suffix: &str| -> Vec<Operation> {
        let methods = methods.iter();
        methods
            .map(|method| connect(of, sub, method, suffix))
            .collect()
    };
    let mut out = vec![PathItem {
        path: place.clone(),
        operations: operations(""),
        parameters: parameters.clone(),
    }];
    if options == PROXY {
        let at = parameters.len() - options.len();
        let mut parameters = parameters;
        parameters.insert(at, path("path"));
        out.push(PathItem {
            path: format!("{place}/{{path}}"),
            operations: operations("WithPath"),
            parameters,
        });
    }
    out
}

fn log(of: &Of<'_>) -> Operation {
    let (resource, version) = (of.resource, of.version);
    Operation {
        action: "get",
        id: id(of, "read", "", "Log"),
        description: format!("read log of the specified {}", resource.kind),
        produces: &[
            "text/plain",
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
        ],
        gvk: (
            resource.group.to_string(),
            version.name.to_string(),
            resource.kind.to_string(),
        ),
        ..text("get")
    }
}

fn connect(of: &Of<'_>, sub: &Subresource, method: &'static str, suffix: &str) -> Operation {
    let id = id(
        of,
        "connect",
        &capital(method),
        &format!("{}{suffix}", capital(&sub.name)),
    );
    Operation {
        action: "connect",
        id,
        description: format!(
            "connect {} requests to {} of {}",
            method.to_uppercase(),
            sub.name,
            of.resource.kind
        ),
        produces: &["*/*"],
        gvk: (
            sub.group.to_string(),
            sub.version.to_string(),
            sub.kind.to_string(),
        ),
        ..text(method)
    }
}

fn id(of: &Of<'_>, verb: &str, method: &str, sub: &str) -> String {
    let namespaced = match of.resource.namespaced {
        true => "Namespaced",
        false => "",
    };
    let group = capital(&group_name(&of.resource.group));
    let version = capital(&of.version.name);
    [
        verb,
        &group,
        &version,
        method,
        namespaced,
        &of.resource.kind,
        sub,
    ]
    .concat()
}

/// An operation that returns text.
fn text(method: &'static str) -> Operation {
    Operation {
        method,
        action: "",
        id: String::new(),
        description: String::new(),
        parameters: Vec::new(),
        body: None,
        body_optional: false,
        responses: vec![(200, "OK", None)],
        produces: &[],
        gvk: Default::default(),
        custom: false,
    }
}
