use meshwork::ActionError;

#[meshwork::actions]
trait Math<T>
where
    T: Clone,
{
    async fn add<N>(&self, a: N, b: N) -> Result<i64, ActionError>
    where
        N: Into<i64>;
    async fn text<'a>(&self, a: std::borrow::Cow<'a, str>) -> Result<i64, ActionError>;
}

fn main() {}
