//! What the processes of the example agree on: the actions with their types and errors, the topics, and how a process joins the mesh.
//!
//! | process | file | does |
//! | --- | --- | --- |
//! | `orders-desk` | `src/bin/desk.rs` | takes orders, and has them made: answers [`Orders`], calls [`Workshop`], publishes each [`Step`] |
//! | `orders-worker` | `src/bin/worker.rs` | makes what was ordered, and tells its progress: answers [`Workshop`]; as many as you like |
//! | `orders-audit` | `src/bin/audit.rs` | hears all steps, writes them down and tells the history of an order |
//! | `orders-front` | `src/bin/front.rs` | HTTP on actix-web: places orders, and sends their steps to browsers as server-sent events |
//!
//! The master has no code of its own: it is `meshwork master`.

use meshwork::prelude::*;
use std::env;
use std::error::Error;
use std::io;

/// What a customer asks for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NewOrder {
    /// Chosen by the customer. Whoever does not know whether an order was placed places it again under its key, and no second one is made.
    pub key: String,
    /// What to make.
    pub item: String,
    /// How many.
    pub count: u32,
}

/// An order that was placed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// What to make.
    pub item: String,
    /// How many.
    pub count: u32,
    /// The last step that was taken.
    pub step: Step,
}

/// A step of an order: what the topics `orders/*/*` carry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It was placed.
    Placed,
    /// A worker has made so much of it, in percent.
    Progress {
        /// The name of the worker's node.
        worker: String,
        /// From 0 to 100.
        percent: u8,
    },
    /// A call of the workshop ended without an answer: it is made again, by another worker.
    Interrupted {
        /// Why: a code of meshwork.
        code: String,
        /// What became of the call.
        fate: Fate,
    },
    /// It was made.
    Made {
        /// The name of the worker's node.
        worker: String,
    },
    /// It cannot be made.
    Failed {
        /// Why.
        why: String,
    },
}

impl Step {
    /// The topic of this step of an order: `orders/7/placed`.
    #[must_use]
    pub fn topic(&self, order: u64) -> String {
        let name = match self {
            Step::Placed => "placed",
            Step::Progress { .. } => "progress",
            Step::Interrupted { .. } => "interrupted",
            Step::Made { .. } => "made",
            Step::Failed { .. } => "failed",
        };
        format!("orders/{order}/{name}")
    }

    /// Whether no step comes after this one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Step::Made { .. } | Step::Failed { .. })
    }
}

/// Why an order was not placed, or not found.
#[derive(Clone, PartialEq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum OrderError {
    /// There is not enough of it.
    #[error("{left} of {item} are left")]
    OutOfStock {
        /// What was asked for.
        item: String,
        /// How many are left.
        left: u32,
    },
    /// Nobody has placed this order.
    #[error("there is no order {id}")]
    NotFound {
        /// The number that was asked for.
        id: u64,
    },
    /// The call itself failed.
    #[error(transparent)]
    #[serde(skip)]
    Call(CallError),
}

impl From<OrderError> for ActionError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Call(error) => error.into(),
            error => ActionError::new("OrderError", error.to_string()).with_data(&error),
        }
    }
}

impl From<CallError> for OrderError {
    fn from(error: CallError) -> Self {
        match error.data_as() {
            Ok(own) if error.name() == "OrderError" => own,
            _ => OrderError::Call(error),
        }
    }
}

/// The actions of the desk.
#[meshwork::actions(prefix = "orders")]
pub trait Orders {
    /// Places an order. It is made while the customer goes on: its steps are published.
    async fn place(&self, order: NewOrder, context: CallContext) -> Result<Order, OrderError>;

    /// An order as it stands.
    async fn find(&self, id: u64) -> Result<Order, OrderError>;
}

/// The actions of a worker.
#[meshwork::actions(prefix = "workshop")]
pub trait Workshop {
    /// Makes what was ordered, and tells how much of it is made. To make an order twice does no harm, so the desk calls again when it does not
    /// know what became of a call.
    async fn make(&self, order: Order, progress: Callback<Step, ()>) -> Result<Made, ActionError>;
}

/// Something that was made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Made {
    /// The name of the worker's node.
    pub worker: String,
}

/// The arguments of `audit/history`: all steps of an order that the audit has heard.
#[derive(Clone, Debug, Serialize, Deserialize, Message)]
#[rtype(result = "Result<Vec<Step>, ActionError>")]
pub struct History {
    /// The number of the order.
    pub id: u64,
}

/// Binds a process to the master at `MESHWORK_MASTER`, by default `127.0.0.1:3010`. The processes may be started in any order: each waits
/// for the master, and binds again whenever it has lost it.
///
/// # Errors
///
/// When the master refuses the process: its name is taken, or its token is wrong.
pub async fn join(branch: BranchActor) -> Result<Branch, Box<dyn Error>> {
    let master = env::var("MESHWORK_MASTER").unwrap_or_else(|_| "127.0.0.1:3010".to_owned());
    Ok(branch.wait_for_master(Duration::MAX).bind(master).await?)
}

/// Waits for Ctrl-C or SIGTERM, then lets the node finish its requests; or for the end of the node.
///
/// # Errors
///
/// When the signals cannot be listened for, or the master has ended the node for good.
pub async fn run_until_asked_to_end(branch: &Branch) -> Result<(), Box<dyn Error>> {
    tokio::select! {
        signal = asked_to_end() => signal?,
        why = branch.closed() => return Err(why.into()),
    }
    branch.drain(Duration::from_secs(10)).await?;
    Ok(())
}

async fn asked_to_end() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminated.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
