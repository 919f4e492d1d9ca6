//! The pages of `docs/guide/`, with examples that are tested.
//!
//! [first mesh]: crate::guide::first_mesh
//! [typed services]: crate::guide::typed_services
//! [errors]: crate::guide::calls_that_fail
//! [streams]: crate::guide::streams
//! [functions]: crate::guide::functions
//! [events]: crate::guide::events
//! [context]: crate::guide::context
//! [providers]: crate::guide::providers
//! [layers]: crate::guide::layers
//! [versions]: crate::guide::versions
//! [testing]: crate::guide::testing
//! [supervision]: crate::guide::supervision
//! [security]: crate::guide::security
//! [production]: crate::guide::production
//! [four processes]: crate::guide::four_processes
//! [from-node]: crate::guide::from_node
//! [from-tarpc]: crate::guide::from_tarpc
//! [from-nats]: crate::guide::from_nats
#![doc = include_str!("../docs/guide/README.md")]

/// A page. It names other pages as files, which are links on the web. The definitions in front of it count before its own, and make links of
/// rustdoc of them.
macro_rules! page {
    ($file:literal) => {
        concat!(
            "[first mesh]: crate::guide::first_mesh\n",
            "[typed services]: crate::guide::typed_services\n",
            "[errors]: crate::guide::calls_that_fail\n",
            "[streams]: crate::guide::streams\n",
            "[functions]: crate::guide::functions\n",
            "[events]: crate::guide::events\n",
            "[context]: crate::guide::context\n",
            "[providers]: crate::guide::providers\n",
            "[layers]: crate::guide::layers\n",
            "[versions]: crate::guide::versions\n",
            "[testing]: crate::guide::testing\n",
            "[supervision]: crate::guide::supervision\n",
            "[security]: crate::guide::security\n",
            "[production]: crate::guide::production\n",
            "[four processes]: crate::guide::four_processes\n",
            "[from-node]: crate::guide::from_node\n",
            "[from-tarpc]: crate::guide::from_tarpc\n",
            "[from-nats]: crate::guide::from_nats\n",
            "[docs/compatibility.md]: https://github.com/meshwork-rs/meshwork/blob/main/docs/compatibility.md\n",
            "[docs/gateways.md]: https://github.com/meshwork-rs/meshwork/blob/main/docs/gateways.md\n",
            "[docs/identities.md]: https://github.com/meshwork-rs/meshwork/blob/main/docs/identities.md\n",
            "[docs/performance.md]: https://github.com/meshwork-rs/meshwork/blob/main/docs/performance.md\n",
            "[docs/testing.md]: https://github.com/meshwork-rs/meshwork/blob/main/docs/testing.md\n",
            "[docs/tls.md]: https://github.com/meshwork-rs/meshwork/blob/main/docs/tls.md\n",
            "[orders]: https://github.com/meshwork-rs/meshwork/tree/main/examples/orders\n",
            "[SECURITY.md]: https://github.com/meshwork-rs/meshwork/blob/main/SECURITY.md\n",
            "\n",
            include_str!(concat!("../docs/guide/", $file)),
        )
    };
}

#[doc = page!("first-mesh.md")]
pub mod first_mesh {}
#[doc = page!("typed-services.md")]
pub mod typed_services {}
#[doc = page!("calls-that-fail.md")]
pub mod calls_that_fail {}
#[doc = page!("streams.md")]
pub mod streams {}
#[doc = page!("functions.md")]
pub mod functions {}
#[doc = page!("events.md")]
pub mod events {}
#[doc = page!("context.md")]
pub mod context {}
#[doc = page!("providers.md")]
pub mod providers {}
#[doc = page!("layers.md")]
pub mod layers {}
#[doc = page!("versions.md")]
pub mod versions {}
#[doc = page!("testing.md")]
pub mod testing {}
#[doc = page!("supervision.md")]
pub mod supervision {}
#[doc = page!("security.md")]
pub mod security {}
#[doc = page!("production.md")]
pub mod production {}
#[doc = page!("four-processes.md")]
pub mod four_processes {}
#[doc = page!("from-node.md")]
pub mod from_node {}
#[doc = page!("from-tarpc.md")]
pub mod from_tarpc {}
#[doc = page!("from-nats.md")]
pub mod from_nats {}
