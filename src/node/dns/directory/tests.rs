use super::*;

/// A directory of these objects.
pub fn of(services: serde_json::Value, slices: serde_json::Value) -> Directory {
    let mut directory = Directory {
        complete: true,
        serial: 7,
        ..Directory::default()
    };
    let services: Vec<Arc<Service>> = read(services);
    for service in &services {
        let key = key(&service.metadata);
        directory.take_service(&change(&key, None, Some(service)));
    }
    let slices: Vec<Arc<EndpointSlice>> = read(slices);
    for slice in &slices {
        let key = key(&slice.metadata);
        directory.take_slice(&change(&key, None, Some(slice)));
    }
    directory
}

fn read<P: serde::de::DeserializeOwned>(objects: serde_json::Value) -> Vec<Arc<P>> {
    let objects: Vec<P> = serde_json::from_value(objects).expect("objects");
    objects.into_iter().map(Arc::new).collect()
}

fn key(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.clone().expect("a name");
    Key::new(&text(&metadata.namespace), &text(&metadata.name))
}

fn change<'a, P>(key: &'a Key, old: Option<&'a Arc<P>>, new: Option<&'a Arc<P>>) -> Change<'a, P> {
    Change { key, old, new }
}

#[test]
fn what_is_gone_is_not_found() {
    let service = |ip: &str| -> Arc<Service> {
        let object = serde_json::json!([{"metadata": {"namespace": "a", "name": "s"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip]}}]);
        read(object).remove(0)
    };
    let slice = |address: &str| -> Arc<EndpointSlice> {
        let object = serde_json::json!([{"metadata": {"namespace": "a", "name": "s-1",
            "labels": {SERVICE_NAME: "s"}}, "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}]}]);
        read(object).remove(0)
    };
    let mut directory = Directory::default();
    let (of, at) = (Key::new("a", "s"), Key::new("a", "s-1"));
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (old, new) = (service("10.0.0.1"), service("10.0.0.2"));
    let (before, after) = (slice("10.1.0.1"), slice("10.1.0.2"));
    directory.take_service(&change(&of, None, Some(&old)));
    directory.take_slice(&change(&at, None, Some(&before)));
    assert_eq!(directory.names_of(ip("10.0.0.1")), [["s", "a", "svc"]]);
    assert_eq!(
        directory.names_of(ip("10.1.0.1")),
        [["10-1-0-1", "s", "a", "svc"]]
    );
    directory.take_service(&change(&of, Some(&old), Some(&new)));
    directory.take_slice(&change(&at, Some(&before), Some(&after)));
    for gone in ["10.0.0.1", "10.1.0.1"] {
        assert!(directory.names_of(ip(gone)).is_empty(), "{gone}");
    }
    for there in ["10.0.0.2", "10.1.0.2"] {
        assert_eq!(directory.names_of(ip(there)).len(), 1, "{there}");
    }
    assert_eq!(directory.find(&["a", "svc"]), Found::Empty);
    directory.take_service(&change(&of, Some(&new), None));
    directory.take_slice(&change(&at, Some(&after), None));
    assert_eq!(directory.find(&["a", "svc"]), Found::Missing);
    assert_eq!(directory.find(&["s", "a", "svc"]), Found::Missing);
    assert!(directory.clusters.is_empty() && directory.places.is_empty());
    assert!(directory.slices.is_empty());
}
