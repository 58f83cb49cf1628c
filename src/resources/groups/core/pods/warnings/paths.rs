//! Warnings about overlapping paths in one volume: warningsForOverlappingVirtualPaths.

use crate::meta::errors::quoted;
use crate::schema::Value;

/// A path in a volume, and the source it comes from (empty where the volume has one source).
#[derive(Clone, PartialEq)]
struct Place {
    path: String,
    source: String,
}

impl Place {
    fn told(&self) -> String {
        match self.source.as_str() {
            "" => quoted(&self.path),
            source => format!("{} ({source})", quoted(&self.path)),
        }
    }

    fn overlaps(&self, other: &Place) -> bool {
        let (a, b) = (format!("{}/", self.path), format!("{}/", other.path));
        !self.path.is_empty()
            && !other.path.is_empty()
            && (self == other || a.starts_with(&b) || b.starts_with(&a))
    }
}

/// Adds a warning for each pair of paths in a volume of which one hides the other.
pub(super) fn overlaps(volumes: &[Value], told: &mut Vec<String>) {
    for volume in volumes {
        let name = quoted(volume.str("name"));
        let single = [
            ("configMap", "ConfigMap ", "name"),
            ("secret", "Secret ", "secretName"),
            ("downwardAPI", "DownwardAPI", ""),
        ];
        for (kind, what, key) in single {
            let source = volume.at(kind);
            let what = match key {
                "" => what.to_owned(),
                key => format!("{what}{}", quoted(source.str(key))),
            };
            let mut taken = Vec::new();
            for place in files(source, "") {
                take(place, &mut taken, &name, &what, told);
            }
        }
        let mut taken = Vec::new();
        for source in volume.at("projected").list("sources") {
            if source.is_empty() {
                told.push(format!("volume {name} (Projected) has no sources provided"));
            }
            for place in projection(source) {
                take(place, &mut taken, &name, "Projected", told);
            }
        }
    }
}

fn take(place: Place, taken: &mut Vec<Place>, volume: &str, what: &str, told: &mut Vec<String>) {
    let place = Place {
        path: place.path.trim_end_matches('/').to_owned(),
        ..place
    };
    for other in taken.iter().filter(|other| place.overlaps(other)) {
        told.push(format!(
            "volume {volume} ({what}): overlapping paths: {} with {}",
            place.told(),
            other.told()
        ));
    }
    taken.push(place);
}

fn files(source: &Value, from: &str) -> Vec<Place> {
    source
        .list("items")
        .iter()
        .map(|item| Place {
            path: item.str("path").to_owned(),
            source: from.to_owned(),
        })
        .collect()
}

/// The paths of the first kind that a source is.
fn projection(source: &Value) -> Vec<Place> {
    let one = |path: &str, source: String| Place {
        path: path.to_owned(),
        source,
    };
    for (kind, what) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let own = source.at(kind);
        if !own.list("items").is_empty() {
            return files(own, &format!("{what} {}", quoted(own.str("name"))));
        }
    }
    if !source.at("downwardAPI").list("items").is_empty() {
        return files(source.at("downwardAPI"), "DownwardAPI");
    }
    if let Some(token) = source.get("serviceAccountToken") {
        return vec![one(token.str("path"), "ServiceAccountToken".to_owned())];
    }
    if let Some(bundle) = source.get("clusterTrustBundle") {
        let name = match bundle.get("name") {
            Some(_) => bundle.str("name"),
            None => bundle.str("signerName"),
        };
        return vec![one(
            bundle.str("path"),
            format!("ClusterTrustBundle {}", quoted(name)),
        )];
    }
    [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ]
    .iter()
    .map(|(key, what)| one(source.at("podCertificate").str(key), (*what).to_owned()))
    .filter(|place| !place.path.is_empty())
    .collect()
}
