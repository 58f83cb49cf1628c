//! JSONPath templates as k8s.io/client-go/util/jsonpath reads them, for printer columns and selectable fields.
//! Missing members yield nothing.

mod parse;
mod walk;

use self::parse::template;
use self::walk::walk;
use crate::schema::Value;

/// A parsed template.
#[derive(Clone, Debug, Default)]
pub struct JsonPath(Vec<Part>);

/// An action in braces, or the text around it.
#[derive(Clone, Debug)]
enum Part {
    Text(Value),
    Action(Vec<Node>),
}

#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    Field(String),
    Wildcard,
    Recursive,
    Slice(Slice),
    Union(Vec<Vec<Node>>),
    Filter {
        left: Vec<Node>,
        right: Vec<Node>,
        operator: String,
    },
    /// `range`, `end` and other keywords, which single paths do not use.
    Word(String),
}

/// `[from:to:step]`
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    /// A single index: `to` is the next one.
    single: bool,
}

impl JsonPath {
    /// Parses a path without braces around it: `.spec.replicas`.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(path: &str) -> Result<JsonPath, String> {
        template(&format!("{{{path}}}")).map(JsonPath)
    }

    /// The values at this path in `value`: the results of its first part.
    ///
    /// # Errors
    /// Upstream's text for an index out of bounds, a filter on something that is not a list, and the like.
    pub fn find<'a>(&'a self, value: &'a Value) -> Result<Vec<&'a Value>, String> {
        let mut first = Vec::new();
        for (i, part) in self.0.iter().enumerate() {
            let found = match part {
                Part::Text(text) => vec![text],
                Part::Action(nodes) => walk(vec![value], nodes)?,
            };
            if i == 0 {
                first = found;
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    #[test]
    fn paths_lead_where_upstreams_do() {
        let object = json::parse(
            br#"{"a": {"b": 1, "x.y": "dot"}, "l": [{"n": "p", "v": 1}, {"n": "q", "v": 2}, {"n": "r", "v": 3}],
                 "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}], "z": null}"#,
        )
        .unwrap()
        .value;
        for (path, found) in [
            (".a.b", "[1]"),
            (".a", r#"[{"b":1,"x.y":"dot"}]"#),
            (r".a.x\.y", r#"["dot"]"#),
            (".nope.b", "[]"),
            (".z.b", "[]"),
            (".l[0].n", r#"["p"]"#),
            (".l[-1].n", r#"["r"]"#),
            (".l[0:2].n", r#"["p","q"]"#),
            (".l[*].v", "[1,2,3]"),
            (".l[0,2].v", "[1,3]"),
            (".l[::2].v", "[1,3]"),
            (".a['b']", "[1]"),
            (r#".conditions[?(@.type=="Ready")].status"#, r#"["True"]"#),
            (".conditions[?(@.type=='Nope')].status", "[]"),
            (".l[?(@.v>1)].n", r#"["q","r"]"#),
            (".l[?(@.w)].n", "[]"),
            ("..n", r#"["p","q","r"]"#),
            (".a.b}{.l", "[1]"),
        ] {
            let parsed = JsonPath::parse(path).unwrap();
            let values = parsed.find(&object).unwrap();
            let values: Vec<Value> = values.into_iter().cloned().collect();
            assert_eq!(json::to_string(&values.into()), found, "{path}");
        }
        for (path, wrong) in [
            (".l[9].n", "array index out of bounds: index 9, length 3"),
            (".a[0]", "object is not array or slice"),
            (".l[?(@.v==\"x\")].n", "incompatible types for comparison"),
        ] {
            let parsed = JsonPath::parse(path).unwrap();
            assert_eq!(parsed.find(&object).unwrap_err(), wrong, "{path}");
        }
        for (path, wrong) in [
            (".spec[", "unterminated array"),
            (".a[x]", "invalid array index x"),
            (".a[?(@.b]", "unterminated filter"),
            (".a {", "unrecognized character in action: U+007B '{'"),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap_err(), wrong, "{path}");
        }
    }

    #[test]
    fn a_path_that_finds_too_many_values_fails() {
        let deep = (0..300).fold(Value::Int(1), |value, _| Value::Array(vec![value]));
        let find = |path: &str| {
            JsonPath::parse(path)
                .unwrap()
                .find(&deep)
                .map(|found| found.len())
        };
        assert_eq!(find("..[*]"), Ok(300));
        assert_eq!(
            find(&"..[*]".repeat(20)),
            Err("more than 1000000 values".to_owned())
        );
    }
}
