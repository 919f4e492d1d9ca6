//! A program that has only one of the ends is not told that the other is never used.

#![deny(warnings, dead_code, missing_docs, unreachable_pub)]

mod responder {
    use meshwork::ActionError;

    #[meshwork::actions]
    trait Private {
        async fn act(&self) -> Result<(), ActionError>;
    }

    struct Acts;

    impl Private for Acts {
        async fn act(&self) -> Result<(), ActionError> {
            Ok(())
        }
    }

    pub(crate) fn start() {
        let _ = Acts.into_responders();
    }
}

mod requester {
    use meshwork::{ActionError, Branch};

    #[meshwork::actions]
    pub(super) trait Restricted {
        async fn act(&self) -> Result<(), ActionError>;
        async fn another(&self) -> Result<(), ActionError>;
    }

    pub(crate) async fn start(branch: &Branch) {
        let _ = RestrictedRequester::new(branch).act().await;
    }
}

fn main() {
    responder::start();
    let _ = requester::start;
}
