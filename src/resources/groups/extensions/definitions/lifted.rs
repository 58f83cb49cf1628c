//! A definition's spec in upstream's internal form: what is equal in all versions is moved from the versions into the
//! spec. Follows the conversion in k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/conversion.go.

use crate::schema::{Value, internal, json};

/// The members that are moved.
const LIFTED: [&str; 4] = [
    "schema",
    "subresources",
    "additionalPrinterColumns",
    "selectableFields",
];

/// A spec in internal form.
pub(super) struct Lifted {
    /// The versions without the moved members.
    pub versions: Vec<Value>,
    /// The schema, subresources, columns and selectable fields common to all versions.
    common: [Value; 4],
}

impl Lifted {
    /// Converts a spec.
    pub fn of(spec: &Value) -> Lifted {
        let mut versions = spec.list("versions").to_vec();
        let mut common = [Value::Null, Value::Null, Value::Null, Value::Null];
        for (key, common) in LIFTED.iter().zip(&mut common) {
            let first = versions
                .first()
                .map(|version| version.at(key).clone())
                .unwrap_or_default();
            if versions.iter().all(|version| *version.at(key) == first) {
                versions
                    .iter_mut()
                    .for_each(|version| drop(version.remove(key)));
                *common = first;
            }
        }
        Lifted { versions, common }
    }

    /// The schema of all versions; null if they differ.
    pub fn schema(&self) -> &Value {
        &self.common[0]
    }

    /// The subresources of all versions; null if they differ.
    pub fn subresources(&self) -> &Value {
        &self.common[1]
    }

    /// The printer columns of all versions; null if they differ.
    pub fn columns(&self) -> &Value {
        &self.common[2]
    }

    /// The selectable fields of all versions; null if they differ.
    pub fn selectable(&self) -> &Value {
        &self.common[3]
    }

    /// The subresources of one version.
    pub fn subresources_of<'a>(&'a self, version: &'a Value) -> &'a Value {
        let own = self
            .versions
            .iter()
            .any(|version| version.get("subresources").is_some());
        if own {
            version.at("subresources")
        } else {
            self.subresources()
        }
    }

    /// Whether any version has the status subresource.
    pub fn any_status(&self) -> bool {
        self.subresources().get("status").is_some()
            || self
                .versions
                .iter()
                .any(|version| version.at("subresources").get("status").is_some())
    }

    /// The versions as shown in errors.
    pub fn shown(&self, spec: &Value) -> String {
        if spec.at("versions").is_null() {
            return "null".to_owned();
        }
        let dump =
            |version| internal::dump(version, "apiextensions.CustomResourceDefinitionVersion");
        json::to_string(&Value::Array(self.versions.iter().map(dump).collect()))
    }
}
