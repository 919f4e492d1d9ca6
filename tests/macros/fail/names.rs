use meshwork::ActionError;

#[meshwork::actions(prefix = "math")]
trait Math {
    async fn add(&self, a: i64) -> Result<i64, ActionError>;
    #[action(name = "add")]
    async fn plus(&self, a: i64) -> Result<i64, ActionError>;
    #[action(name = "")]
    async fn empty(&self) -> Result<i64, ActionError>;
    #[action(name = "/sub")]
    async fn slash(&self) -> Result<i64, ActionError>;
    #[action(name = "a//b")]
    async fn slashes(&self) -> Result<i64, ActionError>;
    async fn new(&self) -> Result<i64, ActionError>;
    async fn into_responders(&self) -> Result<i64, ActionError>;
}

fn main() {}
