//! Why a node cannot join.

use std::path::PathBuf;

use super::super::discover::{DiscoverError, chain};
use crate::node::certificates::ask::AskError;
use crate::node::certificates::store::StoreError;

/// Why an API server cannot be joined. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A kubeconfig.
    #[error("cannot use the kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The node's credentials are too old, and there are none to ask for others.
    #[error(
        "the client certificate of {} was valid until {until}: run `reddwarf token create` on the host of the API server, and start the agent with the line that it prints",
        path.display()
    )]
    Ended {
        /// The kubeconfig.
        path: PathBuf,
        /// Until when, as text.
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
    #[error("there is nothing to join by: give --bootstrap-kubeconfig, or --server and --token")]
    Nothing,
    /// What joins has many nodes.
    #[error(
        "a certificate is of one node: leave --simulated-nodes away, or join by a --kubeconfig of somebody who may be all of them"
    )]
    Many,
    /// Who the API server is.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The token.
    #[error(
        "the API server {url} does not take the token or certificate that this node was given to join by: it has expired, or was deleted; run `reddwarf token create` on its host and type the line that it prints"
    )]
    Refused {
        /// Its URL.
        url: String,
    },
    /// The certificate.
    #[error("{}", told(.0))]
    Ask(#[from] AskError),
    /// Where certificates are kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn told(error: &AskError) -> String {
    match error {
        AskError::Api { what, cause } if !matches!(cause, kube::Error::Api(_)) => {
            format!("the {what} cannot be asked for: {}", chain(cause))
        }
        other => other.to_string(),
    }
}
