//! Who sent a request: the client certificate of the connection, or nobody in particular.

use http::HeaderMap;
use rustls::pki_types::CertificateDer;

use crate::auth::User;
use crate::auth::pki::ClientCertificates;
use crate::meta::Status;

/// How requests are authenticated.
pub struct Authentication {
    /// Judges client certificates.
    pub clients: std::sync::Arc<ClientCertificates>,
}

impl Authentication {
    /// The user of a request.
    ///
    /// # Errors
    /// 401 for credentials that are no good.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        certificates: &[CertificateDer<'static>],
    ) -> Result<User, Status> {
        let unauthorized = || Status::failure(401, "Unauthorized", "Unauthorized");
        if !certificates.is_empty() {
            return self.certified(certificates).ok_or_else(unauthorized);
        }
        let bearer = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '));
        if bearer.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()
        }) {
            // No kind of token is known yet: none can be good.
            return Err(unauthorized());
        }
        Ok(User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..User::default()
        })
    }

    /// Common name and organizations of a certificate that the authority vouches for.
    fn certified(&self, certificates: &[CertificateDer<'static>]) -> Option<User> {
        self.clients
            .judge(certificates, crate::meta::time::now())
            .ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(certificates.first()?).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let mut groups: Vec<_> = subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok())
            .map(Into::into)
            .collect();
        groups.push("system:authenticated".into());
        Some(User {
            name: name.into(),
            groups,
            ..User::default()
        })
    }
}
