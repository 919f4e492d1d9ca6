use meshwork::ActionError;

// All errors of a trait come at once, in the order of the source.
#[meshwork::actions(prefix = "math/")]
trait Math {
    fn add(&mut self, a: &str) -> i64;
    async fn sub(&self, (a, b): (i64, i64)) -> Result<i64, ActionError>;
}

// The implementation is not reported as well: the trait is still there.
struct Calculator;

impl Math for Calculator {
    fn add(&mut self, _: &str) -> i64 {
        0
    }

    async fn sub(&self, (a, b): (i64, i64)) -> Result<i64, ActionError> {
        Ok(a - b)
    }
}

fn main() {}
