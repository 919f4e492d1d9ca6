//! x
pub(crate) async fn serve() -> anyhow::Result<()> {
    anyhow::bail!("x")
}
pub(crate) async fn drive(_: &crate::drive::Options) -> anyhow::Result<crate::measure::Figures> {
    anyhow::bail!("x")
}
