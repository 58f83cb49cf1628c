//! Bodies of kinds that are asked with and never stored: decoded, owned and admitted as any object that is created,
//! up to where others would be validated. Follows k8s.io/apiserver/pkg/endpoints/handlers/create.go.

use super::Call;
use crate::admission::Operation;
use crate::api::query::WriteOptions;
use crate::api::verbs::owners;
use crate::meta::{Status, time};
use crate::patch::managed::{Filter, Managed, OneVersion, Writer};
use crate::resources::gvk_type;
use crate::schema::{Object, Schema, Value, builtin, decode};

/// A body that was asked with.
pub struct Asked {
    /// In canonical form.
    pub object: Value,
    /// What the query says.
    pub options: WriteOptions,
    schema: &'static Schema,
}

impl Asked {
    /// The object for an answer: its members in order, nothing empty that upstream leaves out.
    pub fn answer(mut self) -> Value {
        decode::tidy(&mut self.object, self.schema);
        self.object
    }
}

impl Call<'_> {
    /// Reads the body, gives it `defaults`, and lets mutating admission at it. `keep` keeps what clients say of uid and
    /// times.
    ///
    /// # Errors
    /// As a creation refuses its query and body, and what admission refuses.
    pub async fn asked(&mut self, keep: bool, defaults: fn(&mut Value)) -> Result<Asked, Status> {
        let options = self.options("CreateOptions")?;
        let mut object = self.object(&options)?;
        let expected = self.expected();
        let api_version = expected.api_version();
        let type_name = gvk_type(expected.group, expected.version, expected.kind);
        let schema = builtin::named(type_name.unwrap_or_default());
        let kind = expected.kind.to_owned();
        defaults(&mut object);
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

    /// Lets validating admission at what was asked.
    ///
    /// # Errors
    /// What admission refuses.
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
