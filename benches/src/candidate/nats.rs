//! x
use crate::publish::*;
use std::net::SocketAddr;
pub(crate) async fn subscribe(_: SocketAddr, _: &Delivered) -> anyhow::Result<()> {
    anyhow::bail!("x")
}
pub(crate) async fn counted_link(_: SocketAddr) -> anyhow::Result<CountedLink> {
    anyhow::bail!("x")
}
pub(crate) async fn written_link(_: SocketAddr) -> anyhow::Result<WrittenLink> {
    anyhow::bail!("x")
}
pub(crate) struct X;
impl Publisher for X {
    async fn publish(&mut self, _: &bytes::Bytes) -> anyhow::Result<()> {
        Ok(())
    }
    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
pub(crate) async fn publisher(_: SocketAddr) -> anyhow::Result<X> {
    anyhow::bail!("x")
}
pub(crate) async fn provide(_: SocketAddr) -> anyhow::Result<()> {
    anyhow::bail!("x")
}
pub(crate) async fn drive(_: &crate::drive::Options) -> anyhow::Result<crate::measure::Figures> {
    anyhow::bail!("x")
}
