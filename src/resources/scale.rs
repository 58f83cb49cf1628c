//! The scale subresource: the paths of replicas and selector, and their validation. Follows
//! k8s.io/apiextensions-apiserver/pkg/registry/customresource (etcd.go, validator.go) and, for built-in kinds,
//! pkg/registry/apps/deployment/storage/storage.go.

use super::registry::Version;
use crate::meta::selector;
use crate::meta::{Errors, Path};
use crate::schema::{Key, Value, structural};

/// A path of member names, each preceded by a dot.
#[derive(Clone, Debug)]
pub struct Dotted {
    /// As declared: `.spec.replicas`.
    pub text: Key,
    steps: Vec<Key>,
}

/// The location of the selector.
#[derive(Clone, Debug)]
pub enum Selector {
    /// There is none.
    None,
    /// Text at a path.
    Text(Dotted),
    /// A LabelSelector at `spec.selector`.
    Labels,
    /// A map of labels at `spec.selector`.
    Map,
}

/// The locations of the values of a Scale in its parent.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The desired number of replicas.
    pub spec_replicas: Dotted,
    /// The observed number of replicas.
    pub status_replicas: Dotted,
    /// The selector.
    pub selector: Selector,
}

impl Dotted {
    fn new(text: &str) -> Dotted {
        Dotted {
            text: text.into(),
            steps: text
                .strip_prefix('.')
                .unwrap_or(text)
                .split('.')
                .map(Key::from)
                .collect(),
        }
    }

    /// The member names.
    pub fn path(&self) -> Vec<&str> {
        self.steps.iter().map(Key::as_str).collect()
    }

    /// The value here, if there is one.
    ///
    /// # Errors
    /// Upstream's text if something on the path is not an object.
    fn find<'a>(&self, object: &'a Value) -> Result<Option<&'a Value>, String> {
        let mut value = object;
        for (i, step) in self.steps.iter().enumerate() {
            let Some(members) = value.as_object() else {
                if value.is_null() {
                    return Ok(None);
                }
                let shown = crate::patch::go::printed(value);
                return Err(format!(
                    ".{} accessor error: {shown} is of the type {}, expected map[string]interface{{}}",
                    self.steps[..=i].join("."),
                    structural::go_type(value)
                ));
            };
            match members.get(step) {
                Some(found) => value = found,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    fn wrong(&self, value: &Value, expected: &str) -> String {
        format!(
            ".{} accessor error: {} is of the type {}, expected {expected}",
            self.steps.join("."),
            crate::patch::go::printed(value),
            structural::go_type(value)
        )
    }

    /// The integer at this path, if there is a value.
    ///
    /// # Errors
    /// Upstream's text if the value is not an integer.
    pub fn int(&self, object: &Value) -> Result<Option<i64>, String> {
        match self.find(object)? {
            None => Ok(None),
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(other) => Err(self.wrong(other, "int64")),
        }
    }

    /// The text at this path, if there is a value.
    ///
    /// # Errors
    /// Upstream's text if the value is not a string.
    pub fn text(&self, object: &Value) -> Result<Option<String>, String> {
        match self.find(object)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.to_string())),
            Some(other) => Err(self.wrong(other, "string")),
        }
    }

    /// Sets the integer at this path, creating parent objects.
    ///
    /// # Errors
    /// Upstream's text if something on the path is not an object.
    pub fn set(&self, object: &mut Value, number: i64) -> Result<(), String> {
        let mut value = object;
        let Some((last, steps)) = self.steps.split_last() else {
            return Ok(());
        };
        for (i, step) in steps.iter().enumerate() {
            let members = value.object_mut();
            let next = members.entry(step, || crate::schema::Object::new().into());
            if next.as_object().is_none() {
                return Err(format!(
                    "value cannot be set because .{} is not a map[string]interface{{}}",
                    self.steps[..=i].join(".")
                ));
            }
            value = next;
        }
        value.set(last, number);
        Ok(())
    }
}

impl Scale {
    /// Reads `subresources.scale` of a definition.
    pub fn new(declared: &Value) -> Scale {
        Scale {
            spec_replicas: Dotted::new(declared.str("specReplicasPath")),
            status_replicas: Dotted::new(declared.str("statusReplicasPath")),
            selector: match declared.str("labelSelectorPath") {
                "" => Selector::None,
                path => Selector::Text(Dotted::new(path)),
            },
        }
    }

    /// The scale subresource of a version, if it has one.
    pub fn served(version: &Version) -> Option<Scale> {
        if let Some(custom) = &version.custom {
            return custom.scale.clone();
        }
        version.subresource("scale")?;
        let by_map = version.type_name.ends_with(".ReplicationController");
        Some(Scale {
            spec_replicas: Dotted::new(".spec.replicas"),
            status_replicas: Dotted::new(".status.replicas"),
            selector: if by_map {
                Selector::Map
            } else {
                Selector::Labels
            },
        })
    }

    /// Validates the desired number.
    pub fn validate_spec(&self, object: &Value, errors: &mut Errors) {
        replicas(&self.spec_replicas, object, errors);
    }

    /// Validates the observed number and the selector.
    pub fn validate_status(&self, object: &Value, errors: &mut Errors) {
        replicas(&self.status_replicas, object, errors);
        if let Selector::Text(selector) = &self.selector
            && let Err(why) = selector.text(object)
        {
            errors.invalid(Path::ROOT.field(&selector.text), "", why);
        }
    }

    /// The Scale of an object, and whether the desired number is set.
    ///
    /// # Errors
    /// Upstream's text for values of a wrong type.
    pub fn of(&self, object: &Value) -> Result<(Value, bool), String> {
        let wanted = self.spec_replicas.int(object)?;
        let observed = self.status_replicas.int(object)?.unwrap_or(0);
        let declared = object.path(&["spec", "selector"]);
        let selector = match &self.selector {
            Selector::Text(path) => path.text(object)?.unwrap_or_default(),
            Selector::None => String::new(),
            Selector::Labels => selector::Selector::from_object(declared)?.to_string(),
            Selector::Map => {
                let labels = crate::value!({"matchLabels": declared});
                selector::Selector::from_object(&labels)?.to_string()
            }
        };
        let meta = object.at("metadata");
        let mut shown = crate::schema::Object::new();
        for key in [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
        ] {
            if let Some(value) = meta.get(key) {
                shown.insert(key, value);
            }
        }
        let replicas = |number: i64| {
            let mut out = crate::schema::Object::new();
            if number as i32 != 0 {
                out.insert("replicas", i64::from(number as i32));
            }
            out
        };
        let mut status = crate::schema::Object::new();
        status.insert("replicas", i64::from(observed as i32));
        if !selector.is_empty() {
            status.insert("selector", selector);
        }
        let scale = crate::value!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": shown,
            "spec": (replicas(wanted.unwrap_or(0))),
            "status": status
        });
        Ok((scale, wanted.is_some()))
    }
}

fn replicas(path: &Dotted, object: &Value, errors: &mut Errors) {
    let field = Path::ROOT.field(&path.text);
    match path.int(object) {
        Err(why) => errors.invalid(field, 0i64, why),
        Ok(Some(number)) if number < 0 => {
            errors.invalid(field, number, "should be a non-negative integer");
        }
        Ok(Some(number)) if number > i64::from(i32::MAX) => errors.invalid(
            field,
            number,
            format!("should be less than or equal to {}", i32::MAX),
        ),
        Ok(_) => {}
    }
}
