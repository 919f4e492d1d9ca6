//! A method that blocks its thread is a plain `fn`.

use meshwork::prelude::*;

#[meshwork::actions(prefix = "files")]
pub trait Files {
    /// Counts.
    #[action(blocking)]
    fn count(&self, this: String, context: CallContext) -> Result<usize, ActionError>;
    #[action(name = "double", blocking)]
    fn twice(&self, number: u32) -> Result<u32, ActionError> {
        Ok(2 * number)
    }
    async fn beside(&self) -> Result<String, ActionError>;
}

struct Here(std::thread::ThreadId);

impl Files for Here {
    fn count(&self, this: String, context: CallContext) -> Result<usize, ActionError> {
        assert_ne!(std::thread::current().id(), self.0);
        Ok(this.len() + context.action().len())
    }
    async fn beside(&self) -> Result<String, ActionError> {
        assert_eq!(std::thread::current().id(), self.0);
        Ok("beside".to_owned())
    }
}

#[actix::main]
async fn main() {
    let here = Here(std::thread::current().id());
    let master = MasterActor::new("master").respond_all(here.into_responders()).start();
    let files = FilesRequester::new(Master::from(master));
    assert_eq!(files.count("abc".to_owned()).await.unwrap(), 3 + "files/count".len());
    assert_eq!(files.twice(4).await.unwrap(), 8);
    assert_eq!(files.beside().await.unwrap(), "beside");
    assert_eq!(FilesRequester::ACTIONS, ["files/count", "files/double", "files/beside"]);
}
