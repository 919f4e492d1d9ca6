//! Events between nodes, handled by an actor, by a closure and by a group; and a broadcast.
//!
//! Run it: `cargo run --example pubsub`. It prints the events of the audit, and the nodes that got the broadcast.

use meshwork::prelude::*;
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    id: u64,
}

struct Audit {
    heard: mpsc::UnboundedSender<String>,
}

impl Actor for Audit {
    type Context = Context<Self>;
}

impl Handler<Event<OrderCreated>> for Audit {
    type Result = ();

    fn handle(&mut self, event: Event<OrderCreated>, _: &mut Context<Self>) {
        // The receiver may have gone.
        let _ = self.heard.send(format!("{} from {}: {}", event.topic, event.publisher, event.value.id));
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let master = Master::from(master);
    let shop = BranchActor::new("shop").bind(&address).await?;
    let office = BranchActor::new("office").bind(&address).await?;

    // An actor as a handler. The subscription ends when its guard is dropped.
    let (heard, mut audited) = mpsc::unbounded_channel();
    let audit = Audit { heard }.start();
    let orders = office.subscribe("orders/*", audit.recipient::<Event<OrderCreated>>()).await?;
    shop.publish("orders/created", &OrderCreated { id: 7 }).await?;
    let line = audited.recv().await.ok_or("the audit has gone")?;
    println!("{line}");
    assert_eq!(line, "orders/created from shop: 7");

    // A group gets each event once, at one of its members.
    let (worked, mut work) = mpsc::unbounded_channel();
    let worker = |name: &'static str| {
        let worked = worked.clone();
        move |event: Event<u32>| {
            let _ = worked.send((name, event.value));
        }
    };
    let _workers = (
        shop.subscribe_group("workers", "jobs/**", worker("shop")).await?,
        office.subscribe_group("workers", "jobs/**", worker("office")).await?,
    );
    for job in 0..10_u32 {
        master.publish("jobs/print", &job).await?;
    }
    let mut done = Vec::new();
    for _ in 0..10 {
        done.push(work.recv().await.ok_or("the workers have gone")?.1);
    }
    done.sort_unstable();
    assert_eq!(done, (0..10).collect::<Vec<_>>());

    // A broadcast reaches every other node.
    let (told, mut telling) = mpsc::unbounded_channel();
    let also_told = told.clone();
    let _listening = (
        office.on_broadcast("config/*", move |_: Event<()>| told.send("office").unwrap_or_default()).await?,
        master
            .on_broadcast("config/*", move |_: Event<()>| also_told.send("master").unwrap_or_default())
            .await?,
    );
    shop.broadcast("config/reloaded", &()).await?;
    let mut heard = [telling.recv().await, telling.recv().await];
    heard.sort_unstable();
    println!("the broadcast was heard by {heard:?}");
    assert_eq!(heard, [Some("master"), Some("office")]);

    drop(orders);
    Ok(())
}
