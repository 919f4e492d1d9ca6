use meshwork::{ActionError, CallContext};
use std::borrow::Cow;
use std::path::Path;

#[meshwork::actions]
trait Math {
    async fn pattern(&self, (a, b): (i64, i64)) -> Result<i64, ActionError>;
    async fn unnamed(&self, _: i64, mut b: i64) -> Result<i64, ActionError>;
    async fn text(&self, a: &str, b: Option<&[u8]>, c: &Path, d: &i64) -> Result<i64, ActionError>;
    async fn borrowed(&self, a: Cow<'_, str>) -> Result<i64, ActionError>;
    async fn many(&self, a: impl Into<i64>) -> Result<i64, ActionError>;
    async fn own(&self, a: Vec<Self>) -> Result<i64, ActionError>;
    async fn attribute(&self, #[cfg(unix)] a: i64) -> Result<i64, ActionError>;
    async fn contexts(&self, a: CallContext, b: CallContext, c: &CallContext) -> Result<i64, ActionError>;
}

fn main() {}
