//! "Call me back later": the request is over at once, and the callback that it left is called at each change of a price. The
//! callback lives until its holder drops it.
//!
//! Run it: `cargo run --example call_me_back`. It prints the changes of the prices, and that no callback is left in the end.

use meshwork::prelude::*;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The callback for changes of a price, called with name and price. It returns whether it wants further changes.
type Watcher = Callback<(String, f64), bool>;

/// The actor that keeps the callbacks of all watchers.
#[derive(Clone, Default)]
struct Prices(Arc<Mutex<Vec<Watcher>>>);

impl Prices {
    /// Keeps the callback, which outlives its request.
    fn watch(&self, watcher: Watcher) {
        self.watchers().push(watcher);
    }

    async fn change(&self, name: &str, price: f64) {
        let watchers = std::mem::take(&mut *self.watchers());
        for watcher in watchers {
            // A callback that is gone, or wants no further changes, is dropped: then its lender forgets the function too.
            if watcher.call((name.to_owned(), price)).await.unwrap_or(false) {
                self.watchers().push(watcher);
            }
        }
    }

    fn watchers(&self) -> std::sync::MutexGuard<'_, Vec<Watcher>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let prices = Prices::default();
    let watched = prices.clone();
    let exchange = BranchActor::new("exchange")
        .respond("prices/watch", move |watcher: Watcher| {
            watched.watch(watcher);
            async { Ok(()) }
        })
        .bind(&address)
        .await?;
    let trader = BranchActor::new("trader").bind(&address).await?;

    let (heard, mut hearing) = mpsc::unbounded_channel();
    let watcher: Watcher = Callback::new(move |(name, price): (String, f64)| {
        // The receiver may have gone.
        let _ = heard.send(format!("{name} costs {price}"));
        price < 3.0
    });
    trader.call::<()>("prices/watch", watcher).await?;
    for price in [1.5, 2.5, 3.5, 4.5] {
        prices.change("tea", price).await;
    }
    let mut lines = Vec::new();
    while let Some(line) = hearing.recv().await {
        println!("{line}");
        lines.push(line);
    }
    assert_eq!(lines, ["tea costs 1.5", "tea costs 2.5", "tea costs 3.5"]);
    let (lent, held) =
        (trader.snapshot().await?.callbacks_lent, exchange.snapshot().await?.callbacks_borrowed);
    println!("{lent} callbacks are lent, {held} are held");
    assert_eq!((lent, held), (0, 0));
    Ok(())
}
