//! The endpoints of a service port, and which of them take traffic from this node.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use k8s_openapi::api::core::v1::ServicePort as Port;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};

use super::super::EndpointSlice;
use super::Here;

/// An endpoint's port.
pub(super) struct Place {
    pub(super) at: SocketAddrV4,
    pub(super) ready: bool,
    pub(super) serving: bool,
    terminating: bool,
    pub(super) is_local: bool,
    /// Whether its hints name this node; None without node hints.
    for_node: Option<bool>,
    /// Whether its hints name this zone; None without zone hints.
    for_zone: Option<bool>,
}

impl Place {
    /// The API server in this process, as an endpoint.
    pub(super) fn own(at: SocketAddrV4) -> Place {
        Place {
            at,
            ready: true,
            serving: true,
            terminating: false,
            is_local: true,
            for_node: None,
            for_zone: None,
        }
    }

    pub(super) fn of(
        endpoint: &Endpoint,
        port: u16,
        here: &Here,
        zone: Option<&str>,
    ) -> Option<Place> {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready);
        let serving = conditions.and_then(|conditions| conditions.serving);
        let terminating = conditions.and_then(|conditions| conditions.terminating);
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref());
        let zones = hints.and_then(|hints| hints.for_zones.as_deref());
        Some(Place {
            // Further addresses belong to the same endpoint.
            at: SocketAddrV4::new(endpoint.addresses.first()?.parse().ok()?, port),
            ready: ready.unwrap_or(true),
            serving: serving.unwrap_or(true),
            terminating: terminating.unwrap_or(false),
            is_local: endpoint.node_name.as_deref() == Some(&here.node),
            for_node: nodes
                .filter(|nodes| !nodes.is_empty())
                .map(|nodes| nodes.iter().any(|node| node.name == here.node)),
            for_zone: zones
                .filter(|zones| !zones.is_empty())
                .map(|zones| zones.iter().any(|other| Some(other.name.as_str()) == zone)),
        })
    }
}

/// The distinct endpoints: if two slices, or one twice, list the same address, the entry that is not terminating wins
/// (the address may have belonged to another pod before).
pub(super) fn distinct(places: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut all: BTreeMap<SocketAddrV4, Place> = BTreeMap::new();
    for place in places {
        match all.get(&place.at) {
            Some(known) if !known.terminating || place.terminating => {}
            _ => {
                all.insert(place.at, place);
            }
        }
    }
    all.into_values().collect()
}

/// Selects the ready endpoints for traffic from this node, by hints (topologyModeFromHints): those for the node if all
/// have node hints and some name this one, otherwise the same by zones, otherwise all.
pub(super) fn near(places: &[Place]) -> fn(&Place) -> bool {
    let all_tell = |of: fn(&Place) -> Option<bool>| {
        let mut ready = places.iter().filter(|place| place.ready).map(of);
        let tells = ready.clone().all(|hint| hint.is_some());
        tells && ready.any(|hint| hint == Some(true))
    };
    if all_tell(|place| place.for_node) {
        |place| place.for_node == Some(true)
    } else if all_tell(|place| place.for_zone) {
        |place| place.for_zone == Some(true)
    } else {
        |_| true
    }
}

/// The endpoints of a service port, each with its own port number.
pub(super) fn endpoints<'a>(slices: &[&'a EndpointSlice], port: &Port) -> Vec<(&'a Endpoint, u16)> {
    let named = |text: &Option<String>| text.clone().unwrap_or_default();
    let is_meant = |other: &&EndpointPort| {
        named(&other.name) == named(&port.name)
            && other.protocol.as_deref().unwrap_or("TCP")
                == port.protocol.as_deref().unwrap_or("TCP")
    };
    let of_slice = |slice: &'a EndpointSlice| {
        let found = slice.ports.iter().flatten().find(is_meant);
        let number = found.and_then(|port| u16::try_from(port.port?).ok());
        let endpoints = number.map(|number| slice.endpoints.iter().map(move |at| (at, number)));
        endpoints.into_iter().flatten()
    };
    slices.iter().copied().flat_map(of_slice).collect()
}

/// The endpoints in `among` that take traffic: the ready ones, or, if there are none, those that are terminating but
/// still serving.
pub(super) fn usable(places: &[Place], among: impl Fn(&Place) -> bool) -> Vec<SocketAddrV4> {
    let of = |takes: fn(&Place) -> bool| -> Vec<SocketAddrV4> {
        let taking = places.iter().filter(|place| takes(place) && among(place));
        taking.map(|place| place.at).collect()
    };
    let ready = of(|place| place.ready);
    match ready.is_empty() {
        false => ready,
        true => of(|place| place.serving && place.terminating),
    }
}
