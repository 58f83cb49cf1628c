//! Behavior specific to one kind.

use crate::auth::{Authorizer, User};
use crate::meta::{At, Errors, Status};
use crate::schema::Value;
use crate::store::Change;

/// The context of a kind's rules, besides the objects themselves.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// The namespace of the request; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The version of the request (`v1`).
    pub version: &'a str,
    /// The verb of the request, as in authorization.
    pub verb: &'a str,
    /// The subresource of the request; empty for the object itself.
    pub subresource: &'a str,
    /// Now, in whole seconds since 1970.
    pub now: i64,
    /// Nothing will be written.
    pub dry_run: bool,
    /// The metadata that the client sent, before defaults; null except while a creation is prepared.
    pub sent: &'a Value,
    /// The user who makes the request.
    pub user: &'a User,
    /// Authorizes other actions of the user; `None` if nothing is written.
    pub authorizer: Option<&'a dyn Authorizer>,
    /// The resource.
    pub resource: &'a super::Resource,
    /// Server settings and other objects.
    pub cluster: &'a super::cluster::Cluster,
}

/// The value of [`Cx::sent`] if there is none.
pub static NOTHING: Value = Value::Null;

/// When `metadata.generation` is incremented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind does not manage it: the value from the creation is kept.
    None,
    /// 1 at creation, incremented with each change of `spec`.
    Spec,
    /// Like `Spec`, and also incremented if the request's `spec` has an empty list or map: stored objects never have
    /// one, and upstream compares both exactly.
    SpecAsSaid,
    /// 1 at creation, incremented if anything except metadata and status changes.
    AllButStatus,
    /// Like `AllButStatus`, and like `SpecAsSaid` for empty values.
    AllButStatusAsSaid,
    /// Set by the kind's `prepare_create` and `prepare_update`; what they leave is kept as given.
    Own,
}

/// The error for an unknown field selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorError {
    /// `"X" is not a known field selector: only "metadata.name", "metadata.namespace"`
    Usual,
    /// `field label not supported: X`
    Own,
    /// `field label "X" not supported for KIND`
    NotForKind,
    /// `field label not supported for GROUP/VERSION, Kind=KIND: X`
    WithKind,
}

/// The fate of the dependents of an object that is deleted without a propagation policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// Dependents are deleted afterwards: Background.
    Deleted,
    /// Dependents are kept: Orphan.
    Orphaned,
    /// Dependents are never looked for, whatever policy a DELETE requests.
    Unsupported,
}

/// Which metadata a write to the status subresource changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaOnStatus {
    /// Labels, annotations, finalizers and the rest, like a write to the object.
    Taken,
    /// None, except managedFields.
    Kept,
}

/// A cell that shows how long ago something was: for [`Printing::cells`].
#[derive(Clone, Copy)]
pub struct Age(pub i64);

/// A selectable field besides metadata.name and metadata.namespace.
pub struct Selectable {
    /// Its name in selectors: `spec.nodeName`.
    pub name: &'static str,
    /// Its value in an object of the storage version.
    pub value: fn(&Value) -> String,
}

/// The type of [`Rules::effects`]: `(new, old)`. An error rejects the whole write.
pub type Effects = fn(Option<&mut Value>, Option<&Value>, &Cx<'_>) -> Result<Vec<Change>, Status>;

/// How a write to the status subresource, and to other subresources of the kind itself, differs.
#[derive(Clone, Copy)]
pub struct StatusRules {
    /// PrepareForUpdate of the status subresource: `(new, old)`. The pipeline has already copied everything except
    /// status (and metadata as in [`StatusRules::metadata`]) from `old`. Also called for other subresources that write
    /// the kind itself (`cx.subresource`: finalize, approval, resize, ephemeralcontainers): there `new` is what was
    /// sent, and this function copies from `old` whatever the subresource may not change.
    pub prepare: fn(&mut Value, &Value, &Cx<'_>),
    /// Validation of a write to the status subresource: `(new, old)`.
    pub validate: fn(At<'_>, At<'_>, &Cx<'_>, &mut Errors),
    /// Warnings of a write to the status subresource, in upstream's order.
    pub warnings: fn(&Value) -> Vec<String>,
    /// Which metadata a status write changes.
    pub metadata: MetaOnStatus,
    /// Whether a new object keeps the status that the client sent (nodes).
    pub kept_at_creation: bool,
}

impl StatusRules {
    /// As most kinds have it.
    pub const DEFAULT: StatusRules = StatusRules {
        prepare: |_, _, _| {},
        validate: |_, _, _, _| {},
        warnings: |_| Vec::new(),
        metadata: MetaOnStatus::Taken,
        kept_at_creation: false,
    };

    /// Only with this validation.
    pub const fn validated_by(validate: fn(At<'_>, At<'_>, &Cx<'_>, &mut Errors)) -> StatusRules {
        StatusRules {
            validate,
            ..StatusRules::DEFAULT
        }
    }
}

/// The rules for names of a kind.
#[derive(Clone, Copy)]
pub struct Naming {
    /// Validates `metadata.name`, or `generateName` if `prefix`: upstream's ValidateXName.
    pub validate: fn(name: &str, prefix: bool) -> Vec<String>,
    /// Generates a name from `generateName`.
    pub generate: fn(&str) -> String,
}

impl Naming {
    /// As most kinds have it.
    pub const DEFAULT: Naming = Naming {
        validate: crate::meta::names::subdomain_name,
        generate: crate::meta::names::generated,
    };

    /// Only with this validation.
    pub const fn validated_by(validate: fn(name: &str, prefix: bool) -> Vec<String>) -> Naming {
        Naming {
            validate,
            ..Naming::DEFAULT
        }
    }
}

/// How the objects of a kind are shown: the rows of tables, and partial metadata.
#[derive(Clone, Copy)]
pub struct Printing {
    /// The cells of a table row, in the order of the columns in `columns.json`, the name first.
    /// `now` is in seconds since 1970.
    pub cells: fn(&Value, now: i64) -> Vec<Value>,
    /// The index of the default object in a list, if any, for its row.
    pub default_row: fn(&[Value]) -> Option<usize>,
    /// The conditions of a table row.
    pub row_conditions: fn(&Value) -> Vec<Value>,
    /// The key by which rows of a table are sorted; rows with equal keys stay in the order of their names.
    pub row_order: fn(&Value) -> i64,
    /// Removes the annotations that represent fields of upstream's internal type: partial metadata and tables do not
    /// show them.
    pub drop_shown_annotations: fn(&mut Value),
}

impl Printing {
    /// As most kinds have it.
    pub const DEFAULT: Printing = Printing {
        cells: |object, now| {
            vec![
                object.at("metadata").str("name").into(),
                crate::meta::table::age(object, now),
            ]
        },
        default_row: |_| None,
        row_conditions: |_| Vec::new(),
        row_order: |_| 0,
        drop_shown_annotations: |_| {},
    };

    /// Only with these cells.
    pub const fn of(cells: fn(&Value, now: i64) -> Vec<Value>) -> Printing {
        Printing {
            cells,
            ..Printing::DEFAULT
        }
    }
}

/// The field selectors of a kind.
#[derive(Clone, Copy)]
pub struct Selection {
    /// The kind's own selectable fields.
    pub fields: &'static [Selectable],
    /// Names of selectable fields in selectors, if they differ: `(in selectors, field)`. If this is not empty, only
    /// fields in it can be selected.
    pub names: &'static [(&'static str, &'static str)],
    /// Whether selectors may contain metadata.namespace (a few cluster-scoped kinds reject it).
    pub by_namespace: bool,
    /// The error for an unknown field.
    pub refusal: SelectorError,
    /// A watch that selects on this field is woken only by objects with the selected value.
    pub trigger: Option<&'static str>,
}

impl Selection {
    /// As most kinds have it.
    pub const DEFAULT: Selection = Selection {
        fields: &[],
        names: &[],
        by_namespace: true,
        refusal: SelectorError::Usual,
        trigger: None,
    };

    /// The name of the field that selectors call `called`; `None` if there is no such field.
    pub fn field_called(&self, called: &str) -> Option<&'static str> {
        if self.names.is_empty() {
            let mut fields = self.fields.iter();
            return fields
                .find(|field| field.name == called)
                .map(|field| field.name);
        }
        let mut names = self.names.iter();
        names.find(|names| names.0 == called).map(|names| names.1)
    }
}

/// The deletion of a kind.
#[derive(Clone, Copy)]
pub struct Deletion {
    /// A successful DELETE returns the deleted object, not a `Status` (upstream's ReturnDeletedObject).
    pub returns_object: bool,
    /// The fate of dependents if a DELETE does not specify it.
    pub dependents: Dependents,
    /// The warning about a DELETE without a propagation policy.
    pub orphan_warning: Option<&'static str>,
    /// The grace period of an object in seconds, given the requested one; `None` for kinds without graceful deletion
    /// (all except pods). For a graceful kind the response shows the object as it was marked, for others as it was
    /// stored.
    pub grace: fn(&Value, Option<i64>) -> Option<i64>,
    /// The first DELETE only marks an object, even without finalizers, because its contents end first (namespaces).
    pub marked_first: bool,
    /// The beginning of the error about preconditions, for kinds with their own deletion.
    pub precondition_failed: Option<&'static str>,
    /// Why the object with this name cannot be deleted, if so.
    pub kept: fn(name: &str) -> Option<&'static str>,
    /// Changes by the deletion other than metadata (a namespace's phase).
    pub prepare: fn(&mut Value, &Cx<'_>),
}

impl Deletion {
    /// As most kinds have it.
    pub const DEFAULT: Deletion = Deletion {
        returns_object: false,
        dependents: Dependents::Deleted,
        orphan_warning: None,
        grace: |_, _| None,
        marked_first: false,
        precondition_failed: None,
        kept: |_| None,
        prepare: |_, _| {},
    };

    /// The default, except that a DELETE returns the deleted object.
    pub const RETURNS_OBJECT: Deletion = Deletion {
        returns_object: true,
        ..Deletion::DEFAULT
    };
}

/// How one kind differs from others. All functions get values in canonical form (see [`crate::schema::decode`]). Those
/// that change an object may leave empty members behind: the pipeline removes them.
///
/// Written as `Rules { validate, printing: Printing::of(cells), ..Rules::DEFAULT }`.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Upstream's SetDefaults for the object in the request's version (`cx.version`), including nested
    /// types such as pod templates. Runs after decoding, and again after mutating admission.
    pub defaults: fn(&mut Value, &Cx<'_>),
    /// What upstream's conversion to its internal type rejects or changes: annotations that represent fields of that
    /// type. Runs on every object sent by a client or made by a patch, right after decoding. The error is Go's text.
    pub convert: fn(&mut Value) -> Result<(), String>,
    /// Allocates and releases values elsewhere in the store (a service's addresses and ports), as changes for the
    /// same commit: gets the object to be written, whose fields it fills, and the stored one. The first is `None` on
    /// deletion, the second on creation. Runs before the kind's preparation and validation, like upstream's
    /// BeginCreate and BeginUpdate, and again after a lost race; the changes are dropped if the request is a dry run
    /// or rejected.
    pub effects: Effects,
    /// Upstream's strategy.PrepareForCreate: resets what clients may not set (except status: the pipeline has
    /// already dropped it if the kind has a status subresource).
    pub prepare_create: fn(&mut Value, &Cx<'_>),
    /// Whether upstream stores this new object without defaults that it gets when it is read: then its first update
    /// writes it, even if it changes nothing.
    pub completed_by_reading: fn(&Value) -> bool,
    /// Upstream's PrepareForUpdate for the object itself: `(new, old)`. The pipeline has already copied status from
    /// `old`.
    pub prepare_update: fn(&mut Value, &Value, &Cx<'_>),
    /// Validation of a creation (`old` is `None`) or an update, after validation of metadata.
    pub validate: fn(At<'_>, Option<At<'_>>, &Cx<'_>, &mut Errors),
    /// Warnings of a creation (`old` is `None`) or an update, in upstream's order.
    pub warnings: fn(&Value, Option<&Value>, &Cx<'_>) -> Vec<String>,
    /// Warnings about a new object before its preparation; they are returned even if it is rejected.
    pub early_warnings: fn(&Value, &Cx<'_>) -> Vec<String>,
    /// Writes to the status subresource and others like it.
    pub status: StatusRules,
    /// On creation, validates metadata last, and only if nothing else failed: for kinds whose own validation leaves it
    /// out.
    pub metadata_last: bool,
    /// Names.
    pub naming: Naming,
    /// When `metadata.generation` is incremented.
    pub generation: Generation,
    /// Its lists may contain items without their merge key. Fields in those cannot be owned.
    pub keyless_items: bool,
    /// A PUT of a missing object creates it (AllowCreateOnUpdate).
    pub create_on_update: bool,
    /// A PUT without resourceVersion is allowed (AllowUnconditionalUpdate).
    pub unconditional_update: bool,
    /// Keeps duplicate causes, like upstream for kinds without declarative validation, which removes them.
    pub repeats_causes: bool,
    /// Tables.
    pub printing: Printing,
    /// Fills in what upstream's conversion from the internal type adds even to an empty object, as in bookmarks.
    pub nothing: fn(&mut Value),
    /// Field selectors.
    pub selection: Selection,
    /// Deletion.
    pub deletion: Deletion,
    /// Seconds after which an object deletes itself (events).
    pub ttl: Option<u64>,
    /// Upstream's internal type, for errors that print it (`core.Pod`).
    pub internal: &'static str,
}

impl Rules {
    /// A kind without special rules: ConfigMap without validation.
    pub const DEFAULT: Rules = Rules {
        defaults: |_, _| {},
        convert: |_| Ok(()),
        effects: |_, _, _| Ok(Vec::new()),
        prepare_create: |_, _| {},
        completed_by_reading: |_| false,
        prepare_update: |_, _, _| {},
        validate: |_, _, _, _| {},
        warnings: |_, _, _| Vec::new(),
        early_warnings: |_, _| Vec::new(),
        status: StatusRules::DEFAULT,
        metadata_last: false,
        naming: Naming::DEFAULT,
        generation: Generation::None,
        keyless_items: false,
        create_on_update: false,
        unconditional_update: true,
        repeats_causes: false,
        printing: Printing::DEFAULT,
        nothing: |_| {},
        selection: Selection::DEFAULT,
        deletion: Deletion::DEFAULT,
        ttl: None,
        internal: "",
    };
}
