//! A service, and its test: a mesh in memory whose link is cut in the middle of a payment. No socket is opened, and no time is waited for.
//!
//! Run it: `cargo run --example tested_service --features testing`. You will see how often the payment was made. In a program of your own,
//! what `main` does here is the body of a `#[test]`; see docs/testing.md.

use meshwork::prelude::*;
use meshwork::testing;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The service: it makes each payment once, however often the payment is asked for.
fn payments(made: Arc<AtomicU32>) -> BranchActor {
    let known = std::sync::Mutex::new(std::collections::HashSet::new());
    BranchActor::new("payments").respond("pay", move |order: u32| {
        if known.lock().expect("nobody panics with it").insert(order) {
            made.fetch_add(1, Ordering::Relaxed);
        }
        async { Ok(()) }
    })
}

/// The caller: asks again as long as it does not know whether the payment was made.
async fn pay(shop: &Branch, order: u32) -> Result<(), CallError> {
    loop {
        match shop.call("pay", order).within(Duration::from_secs(2)).await {
            Err(error) if error.fate() != Fate::Failed => tokio::time::sleep(Duration::from_secs(1)).await,
            outcome => return outcome,
        }
    }
}

fn main() {
    let made = Arc::new(AtomicU32::new(0));
    testing::run(async |mesh| {
        let _payments = mesh.bind(payments(Arc::clone(&made))).await.expect("it binds");
        let shop = mesh.bind(BranchActor::new("shop")).await.expect("it binds");
        // The payment arrives, and its reply does not.
        mesh.cut_to_master("payments");
        let paying = pay(&shop, 7);
        let mending = async {
            mesh.pass(Duration::from_secs(60)).await;
            mesh.mend("payments");
        };
        let (paid, ()) = tokio::join!(paying, mending);
        paid.expect("the link was mended");
        println!("paid after {:?}", mesh.elapsed());
    });
    assert_eq!(made.load(Ordering::Relaxed), 1);
    println!("the payment was made {} time", made.load(Ordering::Relaxed));
}
