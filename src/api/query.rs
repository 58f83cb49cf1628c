//! Query strings, and the options of verbs in them, with upstream's errors.

use crate::meta::errors::is_print;
use crate::meta::selector::{Selector, parse_fields};
use crate::meta::status::About;
use crate::meta::strconv::parse_int;
use crate::meta::{Errors, Path, Status, names, url};
use crate::resources::metadata;
use crate::schema::Value;

/// The parameters of a request, in order. If a name is repeated, the first one counts.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the text after the question mark. Like Go's net/url it ignores parameters with a semicolon or an invalid
    /// escape.
    pub fn parse(query: &str) -> Query {
        Query(url::parse_query(query))
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A boolean parameter: everything except `0` and `false`, in any case, is true.
    pub fn bool(&self, name: &str) -> Option<bool> {
        self.get(name)
            .map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// An integer parameter.
    ///
    /// # Errors
    /// 400 with the text of Go's strconv.
    pub fn int(&self, name: &str) -> Result<Option<i64>, Status> {
        self.get(name)
            .map(|value| parse_int(value).map_err(Status::bad_request))
            .transpose()
    }

    /// Whether a list is requested as a watch.
    pub fn wants_watch(&self) -> bool {
        self.bool("watch").unwrap_or(false)
    }

    /// The list options, whatever the kind.
    ///
    /// # Errors
    /// 400 for invalid numbers and selectors.
    pub fn listing(&self) -> Result<Listing, Status> {
        let timeout = self.int("timeoutSeconds")?;
        let limit = self.int("limit")?.unwrap_or(0).max(0);
        let selector = |name| self.get(name).unwrap_or_default();
        Ok(Listing {
            timeout,
            limit: usize::try_from(limit).unwrap_or(0),
            labels: Selector::parse(selector("labelSelector")).map_err(Status::bad_request)?,
            fields: parse_fields(selector("fieldSelector")).map_err(Status::bad_request)?,
        })
    }

    /// The single name that a list selects, which is used for authorization. None if any option of the list is invalid,
    /// as upstream.
    pub fn listed_name(&self) -> Option<String> {
        // Most lists have no field selector.
        self.get("fieldSelector")?;
        let listing = self.listing().ok()?;
        let name = listing.fields.exact("metadata.name")?;
        names::path_segment(name)
            .is_empty()
            .then(|| name.to_owned())
    }
}

/// The options of a list, a watch or the deletion of a collection.
pub struct Listing {
    /// `timeoutSeconds`
    pub timeout: Option<i64>,
    /// `limit`; 0 if negative.
    pub limit: usize,
    /// `labelSelector`
    pub labels: Selector,
    /// `fieldSelector`
    pub fields: Selector,
}

/// The options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// `dryRun=All`
    pub dry_run: bool,
    /// `fieldManager`, or the user agent up to its first slash.
    pub manager: String,
    /// The handling of unknown and duplicate fields.
    pub validation: FieldValidation,
    /// `force` for an apply.
    pub force: bool,
}

/// `fieldValidation`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Nothing is reported.
    Ignore,
    /// A warning for each.
    #[default]
    Warn,
    /// An error.
    Strict,
}

impl WriteOptions {
    /// Reads CreateOptions, UpdateOptions or PatchOptions (`kind`) from a query.
    ///
    /// # Errors
    /// 422 for values that upstream rejects.
    pub fn read(
        query: &Query,
        kind: &str,
        user_agent: &str,
        apply: bool,
    ) -> Result<WriteOptions, Status> {
        let mut errors = Errors::default();
        let dry: Vec<&str> = query.all("dryRun").collect();
        let manager = query.get("fieldManager").unwrap_or_default();
        if apply && manager.is_empty() {
            errors.required(
                Path::ROOT.field("fieldManager"),
                "is required for apply patch",
            );
        }
        if kind == "PatchOptions" && !apply && query.get("force").is_some() {
            errors.forbidden(
                Path::ROOT.field("force"),
                "may not be specified for non-apply patch",
            );
        }
        metadata::field_manager(manager, Path::ROOT.field("fieldManager"), &mut errors);
        validate_dry_run(&dry, &mut errors);
        let validation = match query.get("fieldValidation").unwrap_or_default() {
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                errors.not_supported(
                    Path::ROOT.field("fieldValidation"),
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                );
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid(
                About {
                    group: "meta.k8s.io",
                    kind,
                    name: "",
                },
                &errors,
            ));
        }
        Ok(WriteOptions {
            dry_run: !dry.is_empty(),
            manager: if manager.is_empty() {
                default_manager(user_agent)
            } else {
                manager.to_owned()
            },
            validation,
            force: query.bool("force").unwrap_or(false),
        })
    }
}

/// Rejects values of `dryRun` other than `All`.
pub fn validate_dry_run(values: &[&str], errors: &mut Errors) {
    if values.iter().any(|value| *value != "All") {
        let list: Vec<Value> = values.iter().map(|value| Value::from(*value)).collect();
        errors.not_supported(Path::ROOT.field("dryRun"), list, &["All"]);
    }
}

/// The default field manager: the user agent up to the first slash.
fn default_manager(user_agent: &str) -> String {
    let mut name = user_agent.split('/').next().unwrap_or_default();
    if name.is_empty() {
        return "unknown".to_owned();
    }
    while name.len() > 128 {
        let end = name.char_indices().next_back().map_or(0, |(i, _)| i);
        name = &name[..end];
    }
    name.chars().filter(|c| is_print(*c)).collect()
}
