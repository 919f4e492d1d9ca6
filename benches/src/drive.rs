//! How the clients of a candidate are driven: in a closed loop, or in an open loop where the load sets the rate of calls.

use crate::client::Client;
use crate::load::Load;
use crate::measure::Figures;
use crate::runtime::Spawn;
use crate::{closed_loop, open_loop};
use anyhow::ensure;

/// Drives these clients, one for each connection, as the load says.
pub(crate) async fn figures<C: Client, S: Spawn>(
    mut clients: Vec<C>,
    load: &Load,
) -> anyhow::Result<Figures> {
    let Some(rate_per_second) = load.rate_per_second else {
        return closed_loop::figures::<C, S>(clients, load).await;
    };
    ensure!(clients.len() == 1, "calls that come by chance have one connection");
    open_loop::figures::<C, S>(clients.remove(0), rate_per_second, load).await
}
