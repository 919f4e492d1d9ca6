use meshwork::ActionError;

#[meshwork::actions]
trait Math {
    fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
}

fn main() {}
