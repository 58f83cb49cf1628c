//! Bodies of kinds that are never stored, like reviews: decoded, owned and admitted like any created object, except for
//! validation. Follows k8s.io/apiserver/pkg/endpoints/handlers/create.go.

use super::Call;
use crate::admission::Operation;
use crate::api::query::WriteOptions;
use crate::api::verbs::owners;
use crate::api::verbs::write::once_each_owner;
use crate::meta::{Status, time};
use crate::patch::managed::{Filter, Managed, OneVersion, Writer};
use crate::resources::gvk_type;
use crate::schema::{Object, Schema, Value, builtin, decode};

/// The body of such a request.
pub struct Asked {
    /// In canonical form.
    pub object: Value,
    /// The options in the query.
    pub options: WriteOptions,
    schema: &'static Schema,
}

impl Asked {
    /// The object for the response: with its members in order, and without empty ones that upstream omits.
    pub fn answer(mut self) -> Value {
        decode::tidy(&mut self.object, self.schema);
        self.object
    }
}

impl Call<'_> {
    /// Reads the body, applies `defaults`, and runs mutating admission. With `keep` the client's uid and times are
    /// kept.
    ///
    /// # Errors
    /// 400 and 422 like a creation with an invalid query or body, and the errors of admission.
    pub async fn asked(&mut self, keep: bool, defaults: fn(&mut Value)) -> Result<Asked, Status> {
        let options = self.options("CreateOptions")?;
        let mut object = self.object(&options)?;
        let expected = self.expected();
        let api_version = expected.api_version();
        let type_name = gvk_type(expected.group, expected.version, expected.kind);
        let schema = builtin::named(type_name.unwrap_or_default());
        let kind = expected.kind.to_owned();
        defaults(&mut object);
        self.warnings.extend(once_each_owner(&mut object, ""));
        let mut write = self.write(&options);
        write.place(&mut object)?;
        let meta = object.object_mut().object_mut("metadata");
        if !keep {
            for key in [
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "selfLink",
            ] {
                meta.remove(key);
            }
        }
        meta.remove("managedFields");
        decode::tidy(&mut object, schema);
        let mut nothing = Object::new();
        nothing.insert("kind", kind);
        nothing.insert("apiVersion", &api_version);
        let mut nothing = Value::Object(nothing);
        decode::tidy(&mut nothing, schema);
        let managed = Writer {
            versions: &OneVersion(&api_version, schema),
            api_version: &api_version,
            schema,
            filter: &Filter::All,
            filter_elsewhere: &Filter::All,
            manager: &options.manager,
            subresource: &self.target.info.subresource,
            now: &time::print(self.target.now),
        }
        .update(&nothing, &object, Managed::default(), true)
        .map_err(Status::unclassified)?;
        owners::put(&mut object, managed.write());
        let name = match self.target.info.name.as_str() {
            "" => object.at("metadata").str("name").to_owned(),
            name => name.to_owned(),
        };
        let object = write.mutate(Operation::Create, object, None, &name).await?;
        let warnings = std::mem::take(&mut write.warnings);
        drop(write);
        self.warnings.extend(warnings);
        Ok(Asked {
            object,
            options,
            schema,
        })
    }

    /// Runs validating admission.
    ///
    /// # Errors
    /// The errors of admission.
    pub fn admit(&mut self, asked: &Asked) -> Result<(), Status> {
        let mut write = self.write(&asked.options);
        let name = match self.target.info.name.as_str() {
            "" => asked.object.at("metadata").str("name"),
            name => name,
        };
        write.run_validation(Operation::Create, asked.object.clone(), None, name)?;
        let warnings = std::mem::take(&mut write.warnings);
        drop(write);
        self.warnings.extend(warnings);
        Ok(())
    }
}
