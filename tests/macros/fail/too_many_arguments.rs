use meshwork::{ActionError, CallContext};

#[meshwork::actions]
trait Math {
    #[rustfmt::skip]
    async fn as_many_as_there_may_be(
        &self, context: CallContext,
        a: i64, b: i64, c: i64, d: i64, e: i64, f: i64, g: i64, h: i64, i: i64, j: i64, k: i64, l: i64,
    ) -> Result<i64, ActionError>;
    #[rustfmt::skip]
    async fn sum(
        &self, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64, g: i64, h: i64, i: i64, j: i64, k: i64, l: i64,
        m: i64,
    ) -> Result<i64, ActionError>;
}

fn main() {}
