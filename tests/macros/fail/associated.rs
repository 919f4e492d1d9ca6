use meshwork::ActionError;

#[meshwork::actions]
trait Math {
    const ZERO: i64;
    type Number;
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
}

#[meshwork::actions]
trait Empty {}

#[meshwork::actions]
unsafe trait Unsafe {
    async unsafe fn add(&self) -> Result<i64, ActionError>;
}

fn main() {}
