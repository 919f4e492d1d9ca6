use meshwork::ActionError;

#[meshwork::actions(prefix = "")]
trait Empty {
    async fn act(&self) -> Result<(), ActionError>;
}

#[meshwork::actions(prefix = "/math")]
trait Starts {
    async fn act(&self) -> Result<(), ActionError>;
}

#[meshwork::actions(prefix = "math/")]
trait Ends {
    async fn act(&self) -> Result<(), ActionError>;
}

fn main() {}
