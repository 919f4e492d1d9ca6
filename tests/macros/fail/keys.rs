use meshwork::ActionError;

#[meshwork::actions(prefx = "math")]
trait Unknown {
    #[action(nam = "add")]
    async fn plus(&self) -> Result<(), ActionError>;
    #[action]
    async fn nothing(&self) -> Result<(), ActionError>;
    #[action(name = "a", name = "b")]
    async fn twice(&self) -> Result<(), ActionError>;
    #[action(name = "a")]
    #[action(name = "b")]
    async fn named_twice(&self) -> Result<(), ActionError>;
    #[action()]
    async fn still_nothing(&self) -> Result<(), ActionError>;
    #[action(name)]
    async fn no_value(&self) -> Result<(), ActionError>;
    #[action(name = 7)]
    async fn number(&self) -> Result<(), ActionError>;
}

#[meshwork::actions(prefix = "a", prefix = "b")]
trait Twice {
    async fn act(&self) -> Result<(), ActionError>;
}

#[meshwork::actions("math")]
trait Bare {
    async fn act(&self) -> Result<(), ActionError>;
}

fn main() {}
