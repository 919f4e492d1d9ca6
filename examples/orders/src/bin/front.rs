//! The front: HTTP on actix-web. `POST /orders` places an order, `GET /orders/7` shows it, `GET /orders/7/steps` sends its steps as
//! server-sent events until it is made.
//!
//! Run it: `cargo run -p meshwork-example-orders --bin orders-front`. It listens on `LISTEN`, by default `127.0.0.1:8080`, and prints the
//! address.

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data, Json, Path};
use actix_web::{App, HttpResponse, HttpServer, ResponseError, get, post};
use futures::stream;
use meshwork::prelude::*;
use orders::{NewOrder, Order, OrderError, OrdersRequester, Step, join};
use std::env;
use std::error::Error;
use std::fmt;
use tokio::sync::mpsc;

/// How many steps may wait for a browser. One that is slower misses steps, and never the last one.
const STEPS_WAITING_MAX: usize = 64;

#[post("/orders")]
async fn place(orders: Data<OrdersRequester>, order: Json<NewOrder>) -> Result<Json<Order>, Failure> {
    Ok(Json(orders.place(order.into_inner()).await?))
}

#[get("/orders/{id}")]
async fn show(orders: Data<OrdersRequester>, id: Path<u64>) -> Result<Json<Order>, Failure> {
    Ok(Json(orders.find(*id).await?))
}

#[get("/orders/{id}/steps")]
async fn steps(
    branch: Data<Branch>,
    orders: Data<OrdersRequester>,
    id: Path<u64>,
) -> Result<HttpResponse, Failure> {
    let (sender, steps) = mpsc::channel(1);
    let subscription = branch
        .subscribe(format!("orders/{id}/*"), move |event: Event<Step>| {
            let sender = sender.clone();
            // Waits until the browser has read the step before. The next steps wait in the queue of this handler.
            async move { _ = sender.send(event.value).await }
        })
        .queue(STEPS_WAITING_MAX, WhenFull::DropOldest)
        .await?;
    // Asked after the subscription, so that no step falls between the two.
    let now = orders.find(*id).await?.step;
    let lines = stream::unfold(Some((Some(now), steps, subscription)), async |state| {
        let (now, mut steps, subscription) = state?;
        let step = match now {
            Some(now) => now,
            None => steps.recv().await?,
        };
        let line = serde_json::to_string(&step).map(|step| Bytes::from(format!("data: {step}\n\n")));
        // A browser that goes drops all this, and the subscription with it.
        let next = (!step.is_last()).then_some((None, steps, subscription));
        Some((line, next))
    });
    Ok(HttpResponse::Ok().content_type("text/event-stream").streaming(Box::pin(lines)))
}

/// What goes wrong, as HTTP says it.
#[derive(Debug)]
struct Failure(OrderError);

impl<E: Into<OrderError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        match &self.0 {
            OrderError::OutOfStock { .. } => StatusCode::CONFLICT,
            OrderError::NotFound { .. } => StatusCode::NOT_FOUND,
            OrderError::Call(error) => match error.fate() {
                // Nothing has happened: try again.
                Fate::NotSent => StatusCode::SERVICE_UNAVAILABLE,
                // It may have happened: place the order again under its key.
                Fate::Unknown => StatusCode::GATEWAY_TIMEOUT,
                Fate::Failed => StatusCode::BAD_GATEWAY,
            },
        }
    }

    fn error_response(&self) -> HttpResponse {
        let fate = match &self.0 {
            OrderError::Call(error) => Some(error.fate()),
            _ => None,
        };
        let told = serde_json::json!({ "error": self.to_string(), "fate": fate });
        HttpResponse::build(self.status_code()).json(told)
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let branch = join(BranchActor::new("front")).await?;
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let serving = {
        let branch = branch.clone();
        move || {
            let orders = OrdersRequester::new(&branch);
            App::new()
                .app_data(Data::new(branch.clone()))
                .app_data(Data::new(orders))
                .service(place)
                .service(steps)
                .service(show)
        }
    };
    // It ends by itself at Ctrl-C and SIGTERM; browsers that listen to steps come again.
    let server = HttpServer::new(serving).workers(2).shutdown_timeout(1).bind(address)?;
    for address in server.addrs() {
        println!("listens on {address}");
    }
    server.run().await?;
    branch.drain(Duration::from_secs(10)).await?;
    Ok(())
}
