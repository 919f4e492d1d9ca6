#[meshwork::actions]
struct Calculator;

#[meshwork::actions]
impl Calculator {
    async fn add(&self) {}
}

fn main() {}
