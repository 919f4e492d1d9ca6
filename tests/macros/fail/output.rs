use meshwork::ActionError;

#[meshwork::actions]
trait Math {
    async fn nothing(&self);
    async fn bare(&self) -> i64;
    async fn alias(&self) -> std::io::Result<i64>;
    async fn borrowed(&self) -> Result<&str, ActionError>;
    async fn many(&self) -> Result<impl Clone, ActionError>;
    async fn own(&self) -> Result<Box<Self>, ActionError>;
}

fn main() {}
