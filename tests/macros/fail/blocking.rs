use meshwork::ActionError;

#[meshwork::actions]
trait Files {
    #[action(blocking)]
    async fn count(&self, name: String) -> Result<usize, ActionError>;
    fn plain(&self, name: String) -> Result<usize, ActionError>;
    #[action(blocking = true)]
    fn valued(&self, name: String) -> Result<usize, ActionError>;
}

fn main() {}
