//! The desk: takes orders, has a worker make each, and publishes every step.
//!
//! Run it: `cargo run -p meshwork-example-orders --bin orders-desk`.

use meshwork::prelude::*;
use orders::{NewOrder, Order, OrderError, Orders, Step, WorkshopRequester, join, run_until_asked_to_end};
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long a worker may take for one order. A worker that is gone is found long before.
const MAKING_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an order waits before the workers are asked again, all of which were busy or away.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Desk {
    books: Arc<Mutex<Books>>,
}

/// What a desk in earnest has in its database.
struct Books {
    stock: HashMap<String, u32>,
    orders: Vec<Order>,
    /// The numbers of the orders, by the keys of their customers.
    keys: HashMap<String, u64>,
}

impl Books {
    /// Notes an order, once for each key. The second value says whether it is new.
    fn note(&mut self, order: NewOrder) -> Result<(Order, bool), OrderError> {
        if let Some(id) = self.keys.get(&order.key) {
            return Ok((self.find(*id)?, false));
        }
        let left = self.stock.get(&order.item).copied().unwrap_or(0);
        let Some(rest) = left.checked_sub(order.count) else {
            return Err(OrderError::OutOfStock { item: order.item, left });
        };
        self.stock.insert(order.item.clone(), rest);
        let id = self.orders.len() as u64 + 1;
        self.keys.insert(order.key, id);
        let order = Order { id, item: order.item, count: order.count, step: Step::Placed };
        self.orders.push(order.clone());
        Ok((order, true))
    }

    fn find(&self, id: u64) -> Result<Order, OrderError> {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        at.and_then(|at| self.orders.get(at)).cloned().ok_or(OrderError::NotFound { id })
    }

    fn took(&mut self, id: u64, step: Step) {
        if let Some(order) = self.orders.iter_mut().find(|order| order.id == id) {
            order.step = step;
        }
    }
}

impl Desk {
    fn new() -> Self {
        let stock = HashMap::from([("lamp".to_owned(), 100), ("chair".to_owned(), 20)]);
        let books = Books { stock, orders: Vec::new(), keys: HashMap::new() };
        Self { books: Arc::new(Mutex::new(books)) }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a step, and tells all who hear the topics of the order. The books are the truth, and an event is news: a step that nobody can be told
    /// of was taken all the same.
    async fn take(&self, node: &Node, id: u64, step: Step) {
        self.books().took(id, step.clone());
        if let Err(error) = node.publish(step.topic(id), &step).await {
            log::warn!("nobody hears of a step of order {id}: {error}");
        }
    }

    /// Has a worker make an order, and another one if the first is gone before it answers.
    async fn have_made(self, node: Node, order: Order) {
        let workshop = WorkshopRequester::new(&node);
        let id = order.id;
        let last = loop {
            let (desk, told) = (self.clone(), node.clone());
            let progress = Callback::new_async(move |step: Step| {
                let (desk, told) = (desk.clone(), told.clone());
                async move {
                    desk.take(&told, id, step).await;
                    Ok(())
                }
            });
            match workshop.make(order.clone(), progress).within(MAKING_TIME_MAX).await {
                Ok(made) => break Step::Made { worker: made.worker },
                Err(error) => match error.fate() {
                    // It ran and failed: it would fail again.
                    Fate::Failed => break Step::Failed { why: error.to_string() },
                    // A worker had begun, and is gone. What it made is lost with it, so the order is made again.
                    Fate::Unknown => {
                        let (code, fate) = (error.code().to_string(), error.fate());
                        self.take(&node, id, Step::Interrupted { code, fate }).await;
                    }
                    // No worker is there, or all are busy.
                    Fate::NotSent => tokio::time::sleep(PAUSE).await,
                },
            }
        };
        self.take(&node, id, last).await;
    }
}

impl Orders for Desk {
    async fn place(&self, order: NewOrder, context: CallContext) -> Result<Order, OrderError> {
        let (order, is_new) = self.books().note(order)?;
        if is_new {
            self.take(context.node(), order.id, Step::Placed).await;
            // Apart from the request, so by the node and not by the context: the order is made whether or not its customer waits.
            tokio::spawn(self.clone().have_made(context.node().clone(), order.clone()));
        }
        Ok(order)
    }

    async fn find(&self, id: u64) -> Result<Order, OrderError> {
        self.books().find(id)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let branch = join(BranchActor::new("desk").respond_all(Desk::new().into_responders())).await?;
    run_until_asked_to_end(&branch).await
}
