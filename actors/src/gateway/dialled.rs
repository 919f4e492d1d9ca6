//! Links that a branch of ours dials to a foreign master.

use super::dialect_link::DialectLink;
use crate::link::{Address, Dial, Link};
use futures::future::BoxFuture;
use meshwork_wire::NodeMeshClient;
use std::io;
use std::sync::Arc;

/// The protocol that the master of a branch speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    /// The frames of meshwork.
    #[default]
    Native,
    /// The protocol of the npm package `node-mesh` 2.0. Its master tells no branch which nodes come and go or which actions there are, knows
    /// no patterns and no groups, passes no functions, and does not let a caller choose the node that answers.
    NodeMesh,
}

/// Dials, and speaks a dialect over the link. The branch behind the link reads and writes frames and does not notice.
pub(crate) struct DialectDial {
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) dialect: Dialect,
}

impl Dial for DialectDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        match self.dialect {
            Dialect::Native => self.dial.dial(address),
            Dialect::NodeMesh => Box::pin(async move {
                let link = self.dial.dial(address).await?;
                let dialect = Box::new(NodeMeshClient::branch(address.host_and_port()));
                let mut link = DialectLink::dialled(link, dialect, address.to_string());
                link.near_is_branch = true;
                Ok(Box::new(link) as Box<dyn Link>)
            }),
        }
    }
}
