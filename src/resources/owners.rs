//! Field ownership that depends on the resource: the versions of its objects, and the server's own
//! writes.

use super::registry::Conversion;
use super::{Resource, reset};
use crate::meta::time;
use crate::patch::managed::{Managed, Versions, Writer};
use crate::schema::{Schema, Value, decode};

/// The field manager of the server's own writes.
pub const SERVER: &str = "kube-apiserver";

/// The versions of a resource by apiVersion.
pub struct Served<'a>(pub &'a Resource);

impl Served<'_> {
    fn version<'v>(&self, api_version: &'v str) -> Option<&'v str> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        (group == self.0.group).then_some(version)
    }

    fn conversion(&self, api_version: &str) -> Option<Conversion> {
        self.0.version(self.version(api_version)?)?.conversion
    }
}

impl Versions for Served<'_> {
    /// For custom resources, includes versions that are not served.
    fn schema(&self, api_version: &str) -> Result<Option<&Schema>, String> {
        let schema = self.version(api_version).and_then(|name| {
            let schema = match &self.0.custom {
                Some(custom) => custom.schemas.get(name)?,
                None => &self.0.version(name)?.schema,
            };
            Some(&***schema)
        });
        if schema.is_none() && self.0.is_custom() {
            return Err(format!(
                "request to convert CR to an invalid group/version: {api_version}"
            ));
        }
        Ok(schema)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, String> {
        let mut object = object.clone();
        if let Some(conversion) = self.conversion(from) {
            object = (conversion.to_storage)(object);
        }
        if let Some(conversion) = self.conversion(to) {
            object = (conversion.from_storage)(object);
        }
        object.set("apiVersion", to);
        if !self.0.is_custom()
            && let Some(schema) = self.schema(to)?
        {
            decode::tidy(&mut object, schema);
        }
        Ok(object)
    }
}

/// Records in `new` (in the storage version) that the server changed `old` to it, through a subresource.
pub fn server_wrote(
    resource: &Resource,
    subresource: &str,
    old: &Value,
    new: &mut Value,
    now: i64,
) {
    let Some(version) = resource.version(&resource.storage_version) else {
        return;
    };
    let take = |object: &mut Value| {
        let meta = object.get_mut("metadata");
        meta.and_then(|meta| meta.remove("managedFields"))
    };
    let mut old = old.clone();
    take(new);
    let Some(live) = take(&mut old) else {
        return;
    };
    let filter = reset::filter(resource, version, subresource);
    let writer = Writer {
        versions: &Served(resource),
        api_version: &resource.api_version(&version.name),
        schema: &version.schema,
        filter,
        filter_elsewhere: filter,
        manager: SERVER,
        subresource,
        now: &time::print(now),
    };
    let managed = Managed::read(&live).unwrap_or_default();
    let list = match writer.update(&old, new, managed, false) {
        Ok(managed) => managed.write(),
        Err(_) => live,
    };
    if !list.is_null() {
        let meta = new.object_mut().object_mut("metadata");
        meta.insert("managedFields", list);
    }
}
