use meshwork::ActionError;

#[meshwork::actions]
trait Math {
    async fn none(a: i64) -> Result<i64, ActionError>;
    async fn by_value(self) -> Result<i64, ActionError>;
    async fn mutable(&mut self) -> Result<i64, ActionError>;
    async fn typed(self: std::sync::Arc<Self>) -> Result<i64, ActionError>;
    async fn lifetime(&'static self) -> Result<i64, ActionError>;
}

fn main() {}
