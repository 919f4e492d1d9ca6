//! A method may fail with an error type of the user, which the requester gives back.

use meshwork::prelude::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum StockError {
    OutOfStock { sku: String, left: u32 },
    Closed,
}

#[derive(Debug)]
pub enum TakeError {
    Stock(StockError),
    Call(CallError),
}

impl std::fmt::Display for TakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for TakeError {}

impl From<TakeError> for ActionError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Stock(stock) => {
                ActionError::new("StockError", format!("{stock:?}")).with_code("E_STOCK").with_data(&stock)
            }
            TakeError::Call(error) => error.into(),
        }
    }
}

impl From<CallError> for TakeError {
    fn from(error: CallError) -> Self {
        match error.data_as() {
            Ok(stock) if error.name() == "StockError" => TakeError::Stock(stock),
            _ => TakeError::Call(error),
        }
    }
}

#[meshwork::actions(prefix = "stock")]
pub trait Stock {
    async fn take(&self, sku: String, count: u32) -> Result<u32, TakeError>;
    async fn close(&self) -> Result<(), ActionError>;
}

struct Shelf;

impl Stock for Shelf {
    async fn take(&self, sku: String, count: u32) -> Result<u32, TakeError> {
        match count {
            0 => Err(TakeError::Stock(StockError::Closed)),
            1 => Ok(1),
            _ => Err(TakeError::Stock(StockError::OutOfStock { sku, left: 1 })),
        }
    }

    async fn close(&self) -> Result<(), ActionError> {
        // An error of the user, by `?`.
        Err(TakeError::Stock(StockError::Closed))?
    }
}

#[actix::main]
async fn main() {
    let master = MasterActor::new("master").respond_all(Shelf.into_responders()).start();
    let stock = StockRequester::new(Master::from(master));
    assert_eq!(stock.take("a7".to_owned(), 1).await.unwrap(), 1);
    let error = stock.take("a7".to_owned(), 2).within(Duration::from_secs(5)).await.unwrap_err();
    let TakeError::Stock(error) = error else { panic!("{error}") };
    assert_eq!(error, StockError::OutOfStock { sku: "a7".to_owned(), left: 1 });
    assert!(matches!(stock.take("a7".to_owned(), 0).await, Err(TakeError::Stock(StockError::Closed))));
    let closed: CallError = stock.close().await.unwrap_err();
    assert_eq!(closed.application_code(), Some(&"E_STOCK".into()));
    let nobody = StockRequester::new(Master::from(MasterActor::new("other").start()));
    assert!(matches!(nobody.take("a7".to_owned(), 1).await, Err(TakeError::Call(_))));
}
