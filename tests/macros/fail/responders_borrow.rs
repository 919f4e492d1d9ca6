//! What a closure that answers an action holds on to.

use meshwork::prelude::*;

fn main() {
    let shared = std::rc::Rc::new(1_i64);
    let _ = Responders::new().respond("not/send", move |a: i64| {
        let shared = std::rc::Rc::clone(&shared);
        async move { Ok(a + *shared) }
    });
    let name = String::from("here");
    let _ = Responders::new().respond("borrows", |_: i64| async { Ok(name.len()) });
    let counter = String::new();
    let _ = Responders::new().respond("moves/out", move |_: i64| async move { Ok(counter) });
}
