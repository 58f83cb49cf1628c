//! An OpenAPI 2.0 document in the protobuf form that client-go asks for
//! (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`; field numbers of gnostic's OpenAPIv2.proto).

use crate::schema::{Object, Value, json};

/// Encodes the document as a message `openapi.v2.Document`.
pub fn document(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, document.str("swagger"));
    nested(&mut out, 2, |out| {
        text(out, 1, document.at("info").str("title"));
        text(out, 2, document.at("info").str("version"));
    });
    nested(&mut out, 8, |out| {
        for (path, item) in members(document.at("paths")) {
            nested(out, 2, |out| {
                text(out, 1, path);
                nested(out, 2, |out| path_item(out, item));
            });
        }
    });
    nested(&mut out, 9, |out| {
        named_schemas(out, document.at("definitions"))
    });
    for requirement in document.list("security") {
        nested(&mut out, 12, |out| {
            for (name, _) in members(requirement) {
                nested(out, 1, |out| {
                    text(out, 1, name);
                    nested(out, 2, |_| {});
                });
            }
        });
    }
    nested(&mut out, 13, |out| {
        for (name, item) in members(document.at("securityDefinitions")) {
            nested(out, 1, |out| {
                text(out, 1, name);
                nested(out, 2, |out| {
                    nested(out, 2, |out| {
                        text(out, 1, item.str("type"));
                        text(out, 2, item.str("name"));
                        text(out, 3, item.str("in"));
                        text(out, 4, item.str("description"));
                    });
                });
            });
        }
    });
    out
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    for (key, value) in members(item) {
        match key {
            "get" => nested(out, 2, |out| operation(out, value)),
            "put" => nested(out, 3, |out| operation(out, value)),
            "post" => nested(out, 4, |out| operation(out, value)),
            "delete" => nested(out, 5, |out| operation(out, value)),
            "patch" => nested(out, 8, |out| operation(out, value)),
            _ => {}
        }
    }
    for value in item.list("parameters") {
        nested(out, 9, |out| parameter(out, value));
    }
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    texts(out, 1, operation.list("tags"));
    text(out, 3, operation.str("description"));
    text(out, 5, operation.str("operationId"));
    texts(out, 6, operation.list("produces"));
    texts(out, 7, operation.list("consumes"));
    for value in operation.list("parameters") {
        nested(out, 8, |out| parameter(out, value));
    }
    nested(out, 9, |out| {
        for (code, response) in members(operation.at("responses")) {
            nested(out, 1, |out| {
                text(out, 1, code);
                nested(out, 2, |out| {
                    nested(out, 1, |out| {
                        text(out, 1, response.str("description"));
                        if let Some(value) = response.get("schema") {
                            nested(out, 2, |out| nested(out, 1, |out| schema(out, value)));
                        }
                    });
                });
            });
        }
    });
    texts(out, 10, operation.list("schemes"));
    extensions(out, 13, operation);
}

fn parameter(out: &mut Vec<u8>, parameter: &Value) {
    nested(out, 1, |out| match parameter.str("in") {
        "body" => nested(out, 1, |out| {
            text(out, 2, parameter.str("name"));
            text(out, 3, "body");
            flag(out, 4, parameter.bool("required"));
            nested(out, 5, |out| schema(out, parameter.at("schema")));
        }),
        "path" => nested(out, 2, |out| {
            nested(out, 4, |out| {
                flag(out, 1, parameter.bool("required"));
                text(out, 2, "path");
                text(out, 4, parameter.str("name"));
                text(out, 5, parameter.str("type"));
                flag(out, 19, parameter.bool("uniqueItems"));
            });
        }),
        place => nested(out, 2, |out| {
            nested(out, 3, |out| {
                flag(out, 1, parameter.bool("required"));
                text(out, 2, place);
                text(out, 4, parameter.str("name"));
                text(out, 6, parameter.str("type"));
                flag(out, 20, parameter.bool("uniqueItems"));
            });
        }),
    });
}

fn named_schemas(out: &mut Vec<u8>, schemas: &Value) {
    for (name, value) in members(schemas) {
        nested(out, 1, |out| {
            text(out, 1, name);
            nested(out, 2, |out| schema(out, value));
        });
    }
}

fn schema(out: &mut Vec<u8>, schema: &Value) {
    text(out, 1, schema.str("$ref"));
    text(out, 2, schema.str("format"));
    text(out, 3, schema.str("title"));
    text(out, 4, schema.str("description"));
    for (field, key) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        double(out, field, schema.at(key));
    }
    flag(out, 8, schema.bool("exclusiveMaximum"));
    flag(out, 10, schema.bool("exclusiveMinimum"));
    for (field, key) in LENGTHS {
        // Protobuf omits zeros, too.
        if let Some(number @ 1..) = schema.at(key).as_int() {
            varint(out, u64::from(field) << 3);
            varint(out, number.cast_unsigned());
        }
    }
    text(out, 13, schema.str("pattern"));
    flag(out, 16, schema.bool("uniqueItems"));
    texts(out, 19, schema.list("required"));
    for value in schema.list("enum") {
        nested(out, 20, |out| text(out, 2, &yaml(value)));
    }
    if let Some(value) = schema.get("additionalProperties") {
        nested(out, 21, |out| match value.as_bool() {
            Some(allowed) => flag(out, 2, allowed),
            None => nested(out, 1, |out| self::schema(out, value)),
        });
    }
    if !schema.str("type").is_empty() {
        nested(out, 22, |out| text(out, 1, schema.str("type")));
    }
    if let Some(value) = schema.get("items") {
        nested(out, 23, |out| {
            nested(out, 1, |out| self::schema(out, value))
        });
    }
    if let Some(value) = schema.get("properties") {
        nested(out, 25, |out| named_schemas(out, value));
    }
    if let Some(docs) = schema.get("externalDocs") {
        nested(out, 29, |out| {
            text(out, 1, docs.str("description"));
            text(out, 2, docs.str("url"));
        });
    }
    if let Some(example) = schema.get("example") {
        nested(out, 30, |out| text(out, 2, &yaml(example)));
    }
    extensions(out, 31, schema);
}

/// Numeric limits: field numbers of a schema, and their names.
const LENGTHS: [(u32, &str); 6] = [
    (11, "maxLength"),
    (12, "minLength"),
    (14, "maxItems"),
    (15, "minItems"),
    (17, "maxProperties"),
    (18, "minProperties"),
];

/// Members named `x-...`, as YAML (JSON is a subset of it).
fn extensions(out: &mut Vec<u8>, field: u32, value: &Value) {
    for (name, value) in members(value).filter(|(name, _)| name.starts_with("x-")) {
        nested(out, field, |out| {
            text(out, 1, name);
            nested(out, 2, |out| text(out, 2, &yaml(value)));
        });
    }
}

fn yaml(value: &Value) -> String {
    let mut text = json::to_string(value);
    text.push('\n');
    text
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flat_map(Object::iter)
        .map(|(name, value)| (name.as_str(), value))
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        bytes(out, field, text.as_bytes());
    }
}

fn texts(out: &mut Vec<u8>, field: u32, texts: &[Value]) {
    for value in texts {
        bytes(out, field, value.as_str().unwrap_or_default().as_bytes());
    }
}

fn double(out: &mut Vec<u8>, field: u32, value: &Value) {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        _ => return,
    };
    if number != 0.0 {
        varint(out, u64::from(field) << 3 | 1);
        out.extend(number.to_le_bytes());
    }
}

fn flag(out: &mut Vec<u8>, field: u32, set: bool) {
    if set {
        varint(out, u64::from(field) << 3);
        out.push(1);
    }
}

fn nested(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(out, field, &inner);
}
