//! x
#[derive(clap::Args, Debug)]
pub(crate) struct Options {}
pub(crate) fn scale(_: &Options) -> anyhow::Result<()> {
    Ok(())
}
