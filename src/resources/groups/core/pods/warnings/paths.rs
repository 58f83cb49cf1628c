//! Warnings about overlapping paths in one volume: warningsForOverlappingVirtualPaths.

use super::Told;
use crate::meta::errors::quoted;
use crate::schema::Value;

/// A path in a volume, and its source (empty if the volume has one source).
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
}

/// Adds a warning for each pair of paths in a volume of which one hides the other.
pub(super) fn overlaps(volumes: &[Value], told: &mut Told) {
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
            tell(files(source, ""), &name, &what, told);
        }
        let mut places = Vec::new();
        for source in volume.at("projected").list("sources") {
            if source.is_empty() {
                told.add(format_args!(
                    "volume {name} (Projected) has no sources provided"
                ));
            }
            places.extend(projection(source));
        }
        tell(places, &name, "Projected", told);
    }
}

fn tell(places: Vec<Place>, volume: &str, what: &str, told: &mut Told) {
    let trimmed = |place: Place| Place {
        path: place.path.trim_end_matches('/').to_owned(),
        ..place
    };
    let places: Vec<Place> = places.into_iter().map(trimmed).collect();
    for (later, earlier) in pairs(&places) {
        told.add(format_args!(
            "volume {volume} ({what}): overlapping paths: {} with {}",
            places[later].told(),
            places[earlier].told()
        ));
    }
}

/// How many pairs are looked for.
const PAIRS: usize = 10_000;

/// The pairs of places of which one is at or below the other, the later one first, in order.
fn pairs(places: &[Place]) -> Vec<(usize, usize)> {
    let with_end = |(index, place): (usize, &Place)| (format!("{}/", place.path), index);
    let named = places
        .iter()
        .enumerate()
        .filter(|(_, place)| !place.path.is_empty());
    let mut sorted: Vec<(String, usize)> = named.map(with_end).collect();
    sorted.sort();
    let mut pairs = Vec::new();
    // In this order a directory is followed by all that is in it: these are the ones around the current path.
    let mut around: Vec<&(String, usize)> = Vec::new();
    for current in &sorted {
        while around
            .pop_if(|outer| !current.0.starts_with(&outer.0))
            .is_some()
        {}
        let here = around
            .iter()
            .map(|outer| (current.1.max(outer.1), current.1.min(outer.1)));
        pairs.extend(here.take(PAIRS - pairs.len()));
        around.push(current);
    }
    pairs.sort_unstable();
    pairs
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

/// The paths of a projection; only its first source counts.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn places(paths: &[&str]) -> Vec<Place> {
        let place = |path: &&str| Place {
            path: (*path).to_owned(),
            source: String::new(),
        };
        paths.iter().map(place).collect()
    }

    #[test]
    fn a_path_overlaps_with_itself_and_what_is_above_and_below_it() {
        for (paths, expected) in [
            (&["a", "b", "a-b", "ab"][..], vec![]),
            (&["a", "a"], vec![(1, 0)]),
            (&["a/b/c", "a", "x", "a/b"], vec![(1, 0), (3, 0), (3, 1)]),
            (&["", "", "a-b", "a", "a/b"], vec![(4, 3)]),
        ] {
            assert_eq!(pairs(&places(paths)), expected, "{paths:?}");
        }
    }

    #[test]
    fn of_very_many_pairs_only_some_are_told() {
        assert_eq!(pairs(&places(&vec!["a"; 100_000])).len(), PAIRS);
        let different: Vec<String> = (0..100_000).map(|i| format!("f{i}")).collect();
        let different: Vec<&str> = different.iter().map(String::as_str).collect();
        assert_eq!(pairs(&places(&different)), []);
    }
}
