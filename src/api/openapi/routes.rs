//! Paths of the documents other than resources: discovery, the version, the token issuer.

use super::operations::{Operation, PathItem, capital, group_name};
use super::verbs::OBJECTS;
use super::writing::{Form, Writing};
use crate::resources::Registry;

/// A path for GET, and its response.
pub struct Route {
    /// `/apis/apps/`
    path: String,
    tag: String,
    id: String,
    description: &'static str,
    /// The component name of the response; None for text.
    answer: Option<&'static str>,
    produces: &'static [&'static str],
}

const API_VERSIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions";
const API_GROUP: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup";
const API_GROUPS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList";
const API_RESOURCES: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";

impl Route {
    fn new(path: String, tag: String, id: String, description: &'static str) -> Route {
        Route {
            path,
            tag,
            id,
            description,
            answer: None,
            produces: OBJECTS,
        }
    }

    fn answers(self, name: &'static str) -> Route {
        Route {
            answer: Some(name),
            ..self
        }
    }

    fn produces(self, produces: &'static [&'static str]) -> Route {
        Route { produces, ..self }
    }

    /// The name of its document in version 3: the path without the slashes around it.
    pub fn name(&self) -> &str {
        self.path.trim_matches('/')
    }

    /// Adds it to a document.
    pub fn write(&self, writing: &mut Writing, form: &Form) {
        let operation = Operation {
            method: "get",
            action: "",
            id: self.id.clone(),
            description: self.description.to_owned(),
            parameters: Vec::new(),
            body: None,
            body_optional: false,
            responses: vec![(200, "OK", self.answer.map(str::to_owned))],
            produces: self.produces,
            gvk: Default::default(),
            custom: false,
        };
        let item = PathItem {
            path: self.path.clone(),
            operations: vec![operation],
            parameters: Vec::new(),
        };
        writing.item(item, &self.tag, form);
    }
}

/// The path that lists the resources of a version.
pub fn resources(group: &str, version: &str) -> Route {
    let path = match group {
        "" => format!("/api/{version}/"),
        group => format!("/apis/{group}/{version}/"),
    };
    let name = group_name(group);
    let id = format!("get{}{}APIResources", capital(&name), capital(version));
    let tag = format!("{name}_{version}");
    Route::new(path, tag, id, "get available resources").answers(API_RESOURCES)
}

/// Those with their own documents in version 3.
pub fn apart(registry: &Registry) -> Vec<Route> {
    let text = str::to_owned;
    let mut out = vec![
        Route::new(
            text("/.well-known/openid-configuration/"),
            text("WellKnown"),
            text("getServiceAccountIssuerOpenIDConfiguration"),
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        )
        .produces(&["application/json"]),
        Route::new(
            text("/openid/v1/jwks/"),
            text("openid"),
            text("getServiceAccountIssuerOpenIDKeyset"),
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        )
        .produces(&["application/jwk-set+json"]),
        Route::new(
            text("/version/"),
            text("version"),
            text("getCodeVersion"),
            "get the version information for this server",
        )
        .answers(VERSION)
        .produces(&["application/json"]),
        Route::new(
            text("/api/"),
            text("core"),
            text("getCoreAPIVersions"),
            "get available API versions",
        )
        .answers(API_VERSIONS),
        Route::new(
            text("/apis/"),
            text("apis"),
            text("getAPIVersions"),
            "get available API versions",
        )
        .answers(API_GROUPS),
    ];
    for group in registry.groups() {
        if !group.custom && !group.name.is_empty() {
            let name = group_name(&group.name);
            let id = format!("get{}APIGroup", capital(&name));
            let path = format!("/apis/{}/", group.name);
            out.push(Route::new(path, name, id, "get information of a group").answers(API_GROUP));
        }
    }
    out
}

/// All of them.
pub fn all(registry: &Registry) -> Vec<Route> {
    let mut out = apart(registry);
    let groups = registry.groups().iter().filter(|group| !group.custom);
    for group in groups {
        let versions = group.versions.iter();
        out.extend(versions.map(|version| resources(&group.name, version)));
    }
    out
}
