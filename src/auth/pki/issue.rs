//! The certificate authority, and issuing certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{self, Paths};
use super::request::address;
use super::{CA_DAYS, DAY, PkiError, RENEW_BEFORE, Subject};

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// The contents of a certificate to issue.
pub(super) struct Leaf {
    /// The base name of its files.
    pub(super) file: &'static str,
    common_name: String,
    /// At most one: `rcgen` writes each attribute once.
    organization: Option<String>,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
}

impl Leaf {
    pub(super) fn serving(names: &[String]) -> Self {
        Leaf {
            file: "apiserver",
            common_name: "kube-apiserver".into(),
            organization: None,
            names: names.to_vec(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }

    pub(super) fn admin() -> Self {
        Leaf {
            file: "admin",
            ..Self::client("kubernetes-admin", "system:masters")
        }
    }

    pub(super) fn client(name: &str, group: &str) -> Self {
        Leaf {
            file: "client",
            common_name: name.into(),
            organization: Some(group.into()),
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}

/// The authority: its certificate and key.
pub(super) struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the CA; creates one if there is none, and issues a new certificate for the same key if the old one is
    /// about to expire.
    pub(super) fn open(paths: &Paths, now: i64) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (paths.certificate("ca"), paths.key("ca"));
        let present = files::read(&certificate_path)?;
        if present.is_some() && files::read(&key_path)?.is_none() {
            return Err(PkiError::KeyMissing {
                certificate: certificate_path,
                key: key_path,
            });
        }
        let key = files::key_or_new(&key_path)?;
        let unusable = |cause: String| PkiError::Unusable {
            what: "certificate",
            path: certificate_path.clone(),
            cause,
        };
        let kept = match present {
            None => None,
            Some(pem) => {
                let der = CertificateDer::from_pem_slice(pem.as_bytes())
                    .map_err(|cause| unusable(cause.to_string()))?;
                let parsed = parse(&der).map_err(unusable)?;
                if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
                    return Err(unusable(format!(
                        "it does not belong to the key in {}",
                        key_path.display()
                    )));
                }
                if !parsed.is_ca() {
                    return Err(unusable("it is no certificate authority's".into()));
                }
                let expires = parsed.validity().not_after.timestamp();
                (expires - now > RENEW_BEFORE).then_some(pem)
            }
        };
        let pem = match kept {
            Some(pem) => pem,
            None => {
                let mut params = params("kubernetes", None, now, CA_DAYS)?;
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![
                    KeyUsagePurpose::DigitalSignature,
                    KeyUsagePurpose::KeyEncipherment,
                    KeyUsagePurpose::KeyCertSign,
                ];
                params.subject_alt_names = CertificateParams::new(vec!["kubernetes".to_owned()])
                    .map_err(cannot("the authority"))?
                    .subject_alt_names;
                let pem = params
                    .self_signed(&key)
                    .map_err(cannot("the authority"))?
                    .pem();
                files::write(&certificate_path, pem.as_bytes())?;
                pem
            }
        };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|cause| unusable(cause.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|cause| unusable(cause.to_string()))?;
        Ok(Authority {
            pem,
            certificate,
            issuer,
        })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// Its subject, DER, and its key identifier if it has one.
    pub(super) fn identity(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let parsed = parse(&self.certificate)?;
        let name = parsed.subject().as_raw().to_vec();
        Ok((name, own_key(&parsed).map(<[u8]>::to_vec)))
    }

    /// When it expires, in seconds since 1970.
    pub(super) fn expires(&self) -> i64 {
        parse(&self.certificate).map_or(0, |parsed| parsed.validity().not_after.timestamp())
    }

    /// Issues a certificate for `key`, valid for `days` and since five minutes ago (clocks differ).
    pub(super) fn issue(
        &self,
        leaf: &Leaf,
        key: &KeyPair,
        now: i64,
        days: i64,
    ) -> Result<Issued, PkiError> {
        let mut params = params(&leaf.common_name, leaf.organization.as_deref(), now, days)?;
        params.subject_alt_names = CertificateParams::new(leaf.names.clone())
            .map_err(cannot(&leaf.common_name))?
            .subject_alt_names;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(cannot(&leaf.common_name))?
            .pem();
        Ok(Issued {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// The certificate in `pem`, if this CA issued it for this key, it covers everything in `leaf`, and it does not
    /// expire soon.
    pub(super) fn still_serves(
        &self,
        leaf: &Leaf,
        pem: &str,
        key: &KeyPair,
        now: i64,
    ) -> Option<Issued> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let certificate = parse(&der).ok()?;
        let authority = parse(&self.certificate).ok()?;
        let subject = Subject {
            name: leaf.common_name.as_str().into(),
            groups: leaf.organization.iter().map(Into::into).collect(),
        };
        let names = names(&certificate);
        let serves = certificate.issuer().as_raw() == authority.subject().as_raw()
            && authority_key(&certificate).is_some()
            && authority_key(&certificate) == own_key(&authority)
            && certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes()
            && certificate.validity().not_before.timestamp() <= now
            && certificate.validity().not_after.timestamp() - now > RENEW_BEFORE
            && Subject::of(certificate.subject()) == subject
            && leaf.names.iter().all(|name| names.contains(name));
        serves.then(|| Issued {
            certificate: pem.to_owned(),
            key: key.serialize_pem(),
        })
    }
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    now: i64,
    days: i64,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let at = |seconds: i64| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    params.not_before = at(now - 300);
    params.not_after = at(now + days * DAY);
    params.serial_number = Some(SerialNumber::from_slice(&serial(common_name)?));
    Ok(params)
}

/// A serial number: random, so that a reissued certificate for the same key gets another one.
pub(super) fn serial(common_name: &str) -> Result<[u8; 16], PkiError> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| PkiError::Issue {
            what: format!("a certificate for {common_name:?}"),
            cause: "the system has no random numbers".into(),
        })?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn cannot(what: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    let what = format!("a certificate for {what:?}");
    move |cause| PkiError::Issue {
        what,
        cause: cause.to_string(),
    }
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|cause| cause.to_string())
}

/// The DNS names and addresses of a certificate.
pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect()
}

fn authority_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0)
            }
            _ => None,
        })
}

fn own_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}
