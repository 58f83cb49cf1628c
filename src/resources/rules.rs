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

/// What becomes of the dependents of an object that is deleted without a propagation policy.
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

/// What a write to the status subresource, and to the others that write the kind itself, does differently.
#[derive(Clone, Copy)]
pub struct StatusRules {
    /// PrepareForUpdate of the status subresource: `(new, old)`. The pipeline has already carried everything but
    /// status (and metadata as [`StatusRules::metadata`] says) over from `old`. Also of the other subresources that
    /// write the kind itself (`cx.subresource`: finalize, approval, resize, ephemeralcontainers): there `new` is what
    /// was sent, and this takes over from `old` whatever that subresource may not change.
    pub prepare: fn(&mut Value, &Value, &Cx<'_>),
    /// Validation of a write to the status subresource: `(new, old)`.
    pub validate: fn(At<'_>, At<'_>, &Cx<'_>, &mut Errors),
    /// Warnings of a write to the status subresource, in upstream's order.
    pub warnings: fn(&Value) -> Vec<String>,
    /// Which metadata a status write takes over.
    pub metadata: MetaOnStatus,
    /// A creation keeps the status it brings (nodes).
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

    /// A status that this validates, and otherwise as all.
    pub const fn validated_by(validate: fn(At<'_>, At<'_>, &Cx<'_>, &mut Errors)) -> StatusRules {
        StatusRules {
            validate,
            ..StatusRules::DEFAULT
        }
    }
}

/// What names of a kind are like.
#[derive(Clone, Copy)]
pub struct Naming {
    /// Judges `metadata.name` (or, when `prefix`, `generateName`): upstream's ValidateXName.
    pub validate: fn(name: &str, prefix: bool) -> Vec<String>,
    /// Makes a name out of `generateName`.
    pub generate: fn(&str) -> String,
}

impl Naming {
    /// As most kinds have it.
    pub const DEFAULT: Naming = Naming {
        validate: crate::meta::names::subdomain_name,
        generate: crate::meta::names::generated,
    };

    /// Names that this validates.
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
    /// Which of the objects of a list is the default one, if any: its row says so.
    pub default_row: fn(&[Value]) -> Option<usize>,
    /// The conditions of a table row.
    pub row_conditions: fn(&Value) -> Vec<Value>,
    /// The key by which rows of a table are sorted; rows with equal keys stay in the order of their names.
    pub row_order: fn(&Value) -> i64,
    /// Removes the annotations that stand for fields of upstream's internal type: partial metadata and tables do not
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

    /// With these cells, and otherwise as all.
    pub const fn of(cells: fn(&Value, now: i64) -> Vec<Value>) -> Printing {
        Printing {
            cells,
            ..Printing::DEFAULT
        }
    }
}

/// What field selectors may say of a kind.
#[derive(Clone, Copy)]
pub struct Selection {
    /// Selectable fields of its own.
    pub fields: &'static [Selectable],
    /// Names of selectable fields in selectors, where they differ: `(in selectors, field)`. If this is not empty, fields
    /// that are not in it cannot be selected.
    pub names: &'static [(&'static str, &'static str)],
    /// Whether selectors may name metadata.namespace (a few cluster-scoped kinds refuse it).
    pub by_namespace: bool,
    /// How an unknown field selector is refused.
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

    /// The name of the field that selectors call `called`; none where there is no such field.
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

/// What becomes of an object that is deleted.
#[derive(Clone, Copy)]
pub struct Deletion {
    /// A successful DELETE answers with the deleted object, not with a `Status` (upstream's ReturnDeletedObject).
    pub returns_object: bool,
    /// What becomes of an object's dependents where a DELETE does not say it.
    pub dependents: Dependents,
    /// What a DELETE that says no propagation policy is warned of.
    pub orphan_warning: Option<&'static str>,
    /// How many seconds an object may take to end, from what the client asked for; none for kinds that end at once
    /// (all but pods). What is left of a graceful kind is answered as it was marked, of others as it was stored.
    pub grace: fn(&Value, Option<i64>) -> Option<i64>,
    /// The first DELETE only marks an object, though nothing holds it: what is in it ends before (namespaces).
    pub marked_first: bool,
    /// How this kind's own deletion begins its refusal of preconditions; none for kinds without one of their own.
    pub precondition_failed: Option<&'static str>,
    /// Why the object of a name may not be deleted by itself.
    pub kept: fn(name: &str) -> Option<&'static str>,
    /// What deletion changes besides metadata (a namespace's phase).
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

    /// As all are, but that a DELETE answers with the deleted object.
    pub const RETURNS_OBJECT: Deletion = Deletion {
        returns_object: true,
        ..Deletion::DEFAULT
    };
}

/// What one kind does differently. Every function gets values in canonical form (see [`crate::schema::decode`]);
/// those that change an object need not care for empty members left behind: the pipeline tidies up.
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
    /// Warnings of a creation (`old` is none) or an update, in upstream's order.
    pub warnings: fn(&Value, Option<&Value>, &Cx<'_>) -> Vec<String>,
    /// Warnings of an object to be created, as it is before its preparation; they come even if it is refused.
    pub early_warnings: fn(&Value, &Cx<'_>) -> Vec<String>,
    /// Writes to the status subresource and others like it.
    pub status: StatusRules,
    /// On creation, validates metadata last and only if nothing else failed (kinds whose own validation leaves it out:
    /// whose finalizers those are is nothing to them).
    pub metadata_last: bool,
    /// Names.
    pub naming: Naming,
    /// When `metadata.generation` rises.
    pub generation: Generation,
    /// Its lists may hold items without their merge key. Nobody can be recorded as the owner of fields in them.
    pub keyless_items: bool,
    /// A PUT of a missing object creates it (AllowCreateOnUpdate).
    pub create_on_update: bool,
    /// A PUT without resourceVersion is allowed (AllowUnconditionalUpdate).
    pub unconditional_update: bool,
    /// Keeps duplicate causes, as upstream does for kinds without declarative validation: it is that which drops them.
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
    /// A kind without rules of its own: ConfigMap without validation.
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
