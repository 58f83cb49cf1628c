//! Private keys and certificate signing requests of clients. Follows k8s.io/client-go/util/cert/csr.go and
//! k8s.io/kubernetes/pkg/kubelet/certificate/bootstrap.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _, SanType};
use ring::digest::{Context, SHA512_256};

use super::{PkiError, Subject};

/// The contents of a certificate to request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The user: name and groups.
    pub subject: Subject,
    /// DNS names, in order.
    pub dns: Vec<String>,
    /// Addresses, in order.
    pub addresses: Vec<IpAddr>,
}

/// A private key to be certified, on the curve P-256 like upstream's.
pub struct Key(KeyPair);

impl Key {
    /// Generates a key.
    ///
    /// # Errors
    /// [`PkiError::Issue`].
    pub fn generate() -> Result<Key, PkiError> {
        KeyPair::generate()
            .map(Key)
            .map_err(cannot("a private key"))
    }

    /// Parses a stored key, PEM.
    ///
    /// # Errors
    /// The library's error.
    pub fn parse(pem: &str) -> Result<Key, String> {
        KeyPair::from_pem(pem).map(Key).map_err(|e| e.to_string())
    }

    /// The key, PEM.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The signing request for `wanted`, PEM.
    ///
    /// # Errors
    /// [`PkiError::Issue`]: a name is not valid in certificates.
    pub fn request(&self, wanted: &Wanted) -> Result<String, PkiError> {
        let failed = || cannot("a request for a certificate");
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        // The library writes each attribute once; nodes have only one group.
        for group in wanted.subject.groups.iter().take(1) {
            subject.push(DnType::OrganizationName, group.as_str());
        }
        subject.push(DnType::CommonName, wanted.subject.name.as_str());
        params.distinguished_name = subject;
        for name in &wanted.dns {
            let name = name.as_str().try_into().map_err(failed())?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = wanted.addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        let request = params.serialize_request(&self.0).map_err(failed())?;
        request.pem().map_err(failed())
    }

    /// The name of this key's request object: the same for the same contents, so that a client finds its own request
    /// again. Equals upstream's digestedName; unlike there, DNS names and addresses are included if there are any.
    pub fn request_name(&self, wanted: &Wanted, usages: &[&str]) -> String {
        let mut digest = Context::new(&SHA512_256);
        // The separator occurs in none of the parts.
        let mut write = |part: &[u8]| {
            digest.update(URL_SAFE_NO_PAD.encode(part).as_bytes());
            digest.update(b"|");
        };
        write(&self.0.subject_public_key_info());
        write(wanted.subject.name.as_bytes());
        for group in &wanted.subject.groups {
            write(group.as_bytes());
        }
        for usage in usages {
            write(usage.as_bytes());
        }
        for name in &wanted.dns {
            write(name.as_bytes());
        }
        for address in &wanted.addresses {
            write(address.to_string().as_bytes());
        }
        format!("node-csr-{}", URL_SAFE_NO_PAD.encode(digest.finish()))
    }
}

fn cannot(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |cause| PkiError::Issue {
        what: what.to_owned(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::pki::Request;

    /// Upstream's bootstrap.digestedName for the key below.
    const UPSTREAMS: &str = "node-csr-cLOFIP19pCqzvMrF710AiRRKZWmnxfwcHGR28FfNppE";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFOzX+/OhV6e2pwb/
ujq6/iw3JWVnbqsbvohhWnTch86hRANCAAQqBQYs0eFfLorKVTwi1ocHIpNZD0fC
mrJjst6RVcY5/ojAntPuUbuv6wQ7JqJgD75lrwH09Q/zl+GaFkhansAi
-----END PRIVATE KEY-----
";

    fn node(name: &str) -> Wanted {
        Wanted {
            subject: Subject {
                name: name.into(),
                groups: vec!["system:nodes".into()],
            },
            dns: Vec::new(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_request_is_found_again_by_upstreams_name() {
        const USAGES: [&str; 2] = ["digital signature", "client auth"];
        let key = Key::parse(KEY).unwrap();
        let name = key.request_name(&node("system:node:n"), &USAGES);
        assert_eq!(name, UPSTREAMS);
        let mut others = vec![
            key.request_name(&node("system:node:m"), &USAGES),
            key.request_name(&node("system:node:n"), &USAGES[..1]),
            Key::generate()
                .unwrap()
                .request_name(&node("system:node:n"), &USAGES),
        ];
        let mut served = node("system:node:n");
        served.dns.push("n".to_owned());
        others.push(key.request_name(&served, &USAGES));
        served.addresses.push([192, 0, 2, 1].into());
        others.push(key.request_name(&served, &USAGES));
        others.push(name);
        others.sort();
        others.dedup();
        assert_eq!(others.len(), 6);
    }

    #[test]
    fn a_request_asks_for_what_is_wanted() {
        let mut wanted = node("system:node:n");
        wanted.dns.push("n.example".to_owned());
        wanted.addresses.push([192, 0, 2, 1].into());
        let key = Key::parse(&Key::generate().unwrap().pem()).unwrap();
        let asked = Request::parse(&key.request(&wanted).unwrap()).unwrap();
        assert_eq!(asked.subject, wanted.subject);
        assert_eq!((asked.dns, asked.addresses), (wanted.dns, wanted.addresses));
        let mut wrong = node("system:node:n");
        wrong.dns.push("ü".to_owned());
        assert!(key.request(&wrong).is_err());
    }
}
