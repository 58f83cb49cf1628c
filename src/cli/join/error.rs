//! Why a node cannot join.

use std::path::PathBuf;

use super::super::discover::{DiscoverError, chain};
use crate::node::certificates::ask::AskError;
use crate::node::certificates::store::StoreError;

/// Why an API server cannot be joined. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The kubeconfig is unusable.
    #[error("cannot use the kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The node's client certificate has expired, and there are no bootstrap credentials.
    #[error(
        "the client certificate of {} was valid until {until}: run `reddwarf token create` on the host of the API server, and start the agent with the command line that it prints",
        path.display()
    )]
    Ended {
        /// The kubeconfig.
        path: PathBuf,
        /// The end of the certificate's validity, as text.
        until: String,
    },
    /// The file with the token.
    #[error("cannot use the token file {}: {cause}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The command line names neither of them.
    #[error(
        "there are no credentials to join with: give --bootstrap-kubeconfig, or --server and --token"
    )]
    Nothing,
    /// The agent runs several nodes.
    #[error(
        "a certificate is for one node: leave out --simulated-nodes, or join with a --kubeconfig whose user may act as all of them"
    )]
    Many,
    /// The API server cannot be verified.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The API server rejects the bootstrap credentials.
    #[error(
        "the API server {url} does not take the token or certificate of this node: it has expired, or was deleted; run `reddwarf token create` on its host and use the command line that it prints"
    )]
    Refused {
        /// Its URL.
        url: String,
    },
    /// The certificate.
    #[error("{}", told(.0))]
    Ask(#[from] AskError),
    /// The certificate's file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn told(error: &AskError) -> String {
    match error {
        AskError::Api { what, cause } if !matches!(cause, kube::Error::Api(_)) => {
            format!("the {what} cannot be requested: {}", chain(cause))
        }
        other => other.to_string(),
    }
}
