//! `pods/proxy` and `services/proxy`: HTTP requests to pods and services through this server. Follows ResourceLocation
//! in pkg/registry/core/{pod,service}/... for choosing the backend.

use std::net::{IpAddr, SocketAddr};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use super::forward::pass_on;
use super::kubelet::{Backend, Tls};
use crate::api::reply::Reply;
use crate::meta::Status;
use crate::schema::Value;

/// A parsed `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// `https`, `http` or empty.
    pub scheme: &'a str,
    /// The name of the pod, service or node.
    pub name: &'a str,
    /// A number or a name; empty for the first port.
    pub port: &'a str,
}

impl<'a> Asked<'a> {
    /// Parses the name in the path of a `what` (pod, service or node).
    ///
    /// # Errors
    /// 400 for too many parts, an invalid scheme or an empty name.
    pub fn read(what: &str, text: &'a str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let asked = match *parts.as_slice() {
            [name] => Some(Asked {
                scheme: "",
                name,
                port: "",
            }),
            [name, port] => Some(Asked {
                scheme: "",
                name,
                port,
            }),
            [scheme, name, port] => Some(Asked { scheme, name, port }),
            _ => None,
        };
        asked
            .filter(|asked| matches!(asked.scheme, "" | "http" | "https") && !asked.name.is_empty())
            .ok_or_else(|| Status::bad_request(format!("invalid {what} request {text:?}")))
    }
}

/// Handles `pods/proxy`.
pub fn pod(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let asked = Asked::read("pod", &call.target.info.name)?;
        call.target.check_key(asked.name)?;
        let namespace = call.target.namespace();
        let pod = call.target.cluster.get("", "pods", namespace, asked.name);
        let pod = pod.ok_or_else(|| Status::not_found(call.target.about(asked.name)))?;
        let address = address(pod.at("status").str("podIP"))?;
        let port = match asked.port {
            "" => first_port(&pod).unwrap_or(80),
            port => number(port)?,
        };
        let backend = Backend {
            address: SocketAddr::new(address, port),
            tls: Tls::of(asked.scheme),
            within: None,
        };
        pass_on(call, backend).await
    }
    .boxed()
}

/// The first declared port of a pod's containers.
fn first_port(pod: &Value) -> Option<u16> {
    let ports = pod.at("spec").list("containers").iter();
    ports
        .flat_map(|container| container.list("ports"))
        .find_map(|port| u16::try_from(port.int("containerPort")).ok())
}

/// The number of a port; no other name of one is known.
pub(super) fn number(port: &str) -> Result<u16, Status> {
    port.parse().map_err(|_| {
        let why =
            format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port");
        Status::failure(503, "ServiceUnavailable", why)
    })
}

/// Parses an address that may be proxied to.
fn address(text: &str) -> Result<IpAddr, Status> {
    let read = text.parse().map_err(|_| refused());
    read.and_then(proxyable)
}

/// The address, if it may be proxied to: never a loopback or link-local one, in any notation.
pub(super) fn proxyable(address: IpAddr) -> Result<IpAddr, Status> {
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match local || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        true => Err(refused()),
        false => Ok(address),
    }
}

fn refused() -> Status {
    Status::bad_request("address not allowed")
}

/// Handles `services/proxy`.
pub fn service(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let asked = Asked::read("service", &call.target.info.name)?;
        let (address, port) = endpoint(&call, &asked)?;
        let backend = Backend {
            address: SocketAddr::new(self::address(&address)?, port),
            tls: Tls::of(asked.scheme),
            within: None,
        };
        pass_on(call, backend).await
    }
    .boxed()
}

fn unavailable(why: String) -> Status {
    Status::failure(503, "ServiceUnavailable", why)
}

/// The address and port of an endpoint of a service.
fn endpoint(call: &Call<'_>, asked: &Asked<'_>) -> Result<(String, u16), Status> {
    let (cluster, namespace) = (&call.target.cluster, call.target.namespace());
    if namespace.is_empty() {
        return Err(Status::bad_request("missing required namespace"));
    }
    let mut port_name = asked.port.to_owned();
    if let Ok(number) = asked.port.parse::<u16>() {
        let service = cluster.get("", "services", namespace, asked.name);
        let service = service.ok_or_else(|| Status::not_found(call.target.about(asked.name)))?;
        let ports = service.at("spec").list("ports").iter();
        let found = ports
            .clone()
            .find(|port| port.int("port") == i64::from(number));
        port_name = found
            .map(|port| port.str("name").to_owned())
            .ok_or_else(|| {
                unavailable(format!(
                    "no service port {number} found for service {:?}",
                    asked.name
                ))
            })?;
    }
    let slices = cluster.list("discovery.k8s.io", "endpointslices", namespace);
    slices
        .iter()
        .filter(|slice| {
            let labels = slice.at("metadata").at("labels");
            labels.str("kubernetes.io/service-name") == asked.name
        })
        .find_map(|slice| {
            let ports = slice.list("ports").iter();
            let port = ports
                .clone()
                .find(|port| asked.port.is_empty() || port.str("name") == port_name)?;
            let ready = slice.list("endpoints").iter().find(|endpoint| {
                let conditions = endpoint.at("conditions");
                conditions
                    .get("ready")
                    .is_none_or(|ready| ready.as_bool() != Some(false))
            })?;
            let address = ready.list("addresses").first()?.as_str()?.to_owned();
            Some((address, u16::try_from(port.int("port")).ok()?))
        })
        .ok_or_else(|| {
            unavailable(format!(
                "no endpoints available for service {:?}",
                asked.name
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_scheme_name_and_port() {
        for (text, scheme, name, port) in [
            ("a", "", "a", ""),
            ("a:http", "", "a", "http"),
            ("https:a:443", "https", "a", "443"),
            ("https:a:", "https", "a", ""),
        ] {
            let asked = Asked { scheme, name, port };
            assert_eq!(Asked::read("service", text), Ok(asked), "{text}");
        }
        for text in ["a:b:c:d", "ftp:a:21", ":80", ""] {
            let refused = Asked::read("service", text).expect_err("no request");
            assert_eq!(refused.message, format!("invalid service request {text:?}"));
        }
    }

    #[test]
    fn this_host_is_never_asked() {
        for text in [
            "",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        assert!(address("10.0.0.1").is_ok());
    }
}
