//! `metrics.k8s.io`: resource usage of nodes and pods. Follows sigs.k8s.io/metrics-server/pkg/api.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::negotiate::{Format, Shape};
use crate::api::node_metrics::{Usage, Used};
use crate::api::reply::{self, Reply};
use crate::api::table::Include;
use crate::meta::quantity::{Form, Quantity};
use crate::meta::selector::{Selector, parse_fields};
use crate::meta::status::About;
use crate::meta::{Status, time};
use crate::resources::registry::METRICS;
use crate::schema::{Object, Value};
use crate::value;

/// The parts of a metrics object: name, kind-specific members, total usage, window.
struct Shown {
    object: Value,
    cpu: u64,
    memory: u64,
    window: String,
}

fn cpu(nanos: u64) -> String {
    Quantity::parse(&format!("{nanos}n")).map_or_else(|_| "0".to_owned(), |cpu| cpu.to_string())
}

fn memory(bytes: u64) -> String {
    Quantity::units(i64::try_from(bytes).unwrap_or(i64::MAX), Form::Binary).to_string()
}

fn usage(cpu_nanos: u64, bytes: u64) -> Value {
    value!({"cpu": (cpu(cpu_nanos)), "memory": (memory(bytes))})
}

/// The metrics of an object with `metadata` and usage `all`; `own` is a kind-specific member.
fn shown(of: &Value, all: &[Used], own: (&str, Value)) -> Shown {
    let now = time::print(time::now());
    let mut metadata = Object::new();
    metadata.insert("name", of.str("name"));
    if !of.str("namespace").is_empty() {
        metadata.insert("namespace", of.str("namespace"));
    }
    metadata.insert("creationTimestamp", now);
    if let Some(labels) = of.get("labels") {
        metadata.insert("labels", labels);
    }
    // The oldest of the combined measurements.
    let first = all.iter().min_by_key(|used| used.at);
    let (at, window) = first.map_or((0, 0), |used| (used.at, used.window));
    let window = time::go_duration(window * 1_000_000);
    let mut object = Object::new();
    object.insert("metadata", metadata);
    object.insert("timestamp", time::print(at / 1000));
    object.insert("window", &window);
    object.insert(own.0, own.1);
    Shown {
        object: Value::Object(object),
        cpu: all.iter().map(|used| used.cpu).sum(),
        memory: all.iter().map(|used| used.memory).sum(),
        window,
    }
}

fn of_node(of: &Value, known: &Usage) -> Option<Shown> {
    let used = known.nodes.get(of.str("name"))?;
    Some(shown(of, &[*used], ("usage", usage(used.cpu, used.memory))))
}

fn of_pod(of: &Value, known: &Usage) -> Option<Shown> {
    let place = (of.str("namespace").to_owned(), of.str("name").to_owned());
    let used = known.pods.get(&place)?;
    let containers = used
        .iter()
        .map(|(name, used)| value!({"name": name, "usage": (usage(used.cpu, used.memory))}));
    let own = ("containers", Value::Array(containers.collect()));
    let all: Vec<Used> = used.iter().map(|(_, used)| *used).collect();
    Some(shown(of, &all, own))
}

/// Handles a GET of node metrics.
pub fn nodes(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    answer(call, "NodeMetrics", of_node).boxed()
}

/// Handles a GET of pod metrics.
pub fn pods(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    answer(call, "PodMetrics", of_pod).boxed()
}

async fn answer(
    call: Call<'_>,
    kind: &str,
    make: fn(&Value, &Usage) -> Option<Shown>,
) -> Result<Reply, Status> {
    let (target, server) = (call.target, call.server);
    let metrics = server.node_metrics.as_ref();
    let metrics = metrics.ok_or_else(Status::no_such_resource)?;
    let plural = &*target.resource.plural;
    let (namespace, name) = (target.namespace(), target.info.path_name.as_str());
    let shape = call.accepted.shape;
    let beta = matches!(shape, Shape::Table { beta: true });
    let include = Include::read(&target.query, shape)?;
    let api_version = format!("{METRICS}/v1beta1");
    let whole = |object: &Value| {
        let mut out = Object::new();
        out.insert("kind", kind);
        out.insert("apiVersion", &api_version);
        for (key, value) in object.as_object().into_iter().flat_map(|own| own.iter()) {
            out.insert(key.as_str(), value);
        }
        Value::Object(out)
    };
    let answer = if name.is_empty() {
        let query = |key| target.query.get(key).unwrap_or_default();
        let labels = Selector::parse(query("labelSelector")).map_err(Status::bad_request)?;
        let fields = parse_fields(query("fieldSelector")).map_err(Status::bad_request)?;
        let known = metrics.usage(server).await;
        let all = server.cluster.list("", plural, namespace);
        let selected = all.iter().map(|object| object.at("metadata")).filter(|of| {
            labels.matches(|key| of.at("labels").get(key).and_then(Value::as_str))
                && fields.matches(|key| of.get(key.strip_prefix("metadata.")?)?.as_str())
        });
        let list: Vec<Shown> = selected.filter_map(|of| make(of, &known)).collect();
        match shape {
            Shape::Table { .. } => table(&list, beta, include, &whole),
            _ => {
                let items = list.into_iter().map(|shown| shown.object).collect();
                value!({
                    "kind": (format!("{kind}List")),
                    "apiVersion": api_version,
                    "metadata": {},
                    "items": (Value::Array(items))
                })
            }
        }
    } else {
        let found = server.cluster.get("", plural, namespace, name);
        let missing = |group, name: &str| {
            Status::not_found(About {
                group,
                kind: plural,
                name,
            })
        };
        let found = found.ok_or_else(|| missing("", name))?;
        let known = metrics.usage(server).await;
        let place = match namespace {
            "" => name.to_owned(),
            namespace => format!("{namespace}/{name}"),
        };
        let one = make(found.at("metadata"), &known).ok_or_else(|| missing(METRICS, &place))?;
        match shape {
            Shape::Table { .. } => table(&[one], beta, include, &whole),
            _ => whole(&one.object),
        }
    };
    // There is no protobuf encoding of these kinds here; clients that accept it also accept JSON.
    let format = match call.accepted.format {
        Format::Protobuf => Format::Json,
        other => other,
    };
    let bytes = reply::bytes_of(&answer, format);
    let headers = &call.parts.headers;
    let response = reply::response(200, format.content_type(), bytes, headers);
    Ok(Reply::Stream(response))
}

/// The table of metrics; without rows it has no columns.
fn table(list: &[Shown], beta: bool, include: Include, whole: &dyn Fn(&Value) -> Value) -> Value {
    let column = |(name, format, description): (&str, &str, &str)| {
        value!({
            "name": name,
            "type": "string",
            "format": format,
            "description": description,
            "priority": 0i64
        })
    };
    let columns = [
        ("Name", "name", "Name of the resource"),
        ("cpu", "quantity", ""),
        ("memory", "quantity", ""),
        ("Window", "duration", ""),
    ];
    let row = |shown: &Shown| {
        let name = shown.object.at("metadata").str("name");
        let cells = [
            name.to_owned(),
            cpu(shown.cpu),
            memory(shown.memory),
            shown.window.clone(),
        ];
        let cells = Value::Array(cells.into_iter().map(Value::from).collect());
        let object = match include {
            Include::Metadata => reply::partial(&shown.object, beta),
            Include::Object => whole(&shown.object),
            Include::None => Value::Null,
        };
        value!({"cells": cells, "object": object})
    };
    let (columns, rows) = match list.is_empty() {
        true => (Value::Null, Value::Null),
        false => (
            Value::Array(columns.into_iter().map(column).collect()),
            Value::Array(list.iter().map(row).collect()),
        ),
    };
    value!({
        "kind": "Table",
        "apiVersion": (if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }),
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows
    })
}
