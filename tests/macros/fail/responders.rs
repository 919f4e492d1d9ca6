//! What a closure that answers an action may be.

use meshwork::prelude::*;

struct NoSerde;

fn main() {
    let _ = Responders::new()
        .respond("no/ok", |(a, b): (i64, i64)| async move { a + b })
        .respond("not/async", |a: i64| Ok(a))
        .respond("two/arguments", |a: i64, b: i64| async move { Ok(a + b) })
        .respond("no/arguments", || async move { Ok(1) })
        .respond("no/deserialize", |_: NoSerde| async move { Ok(1) })
        .respond("no/serialize", |_: i64| async move { Ok(NoSerde) })
        .respond("other/error", |a: i64| async move { Err::<i64, _>(std::io::Error::other(a.to_string())) })
        .respond("an/option", |a: i64| async move { Some(a) })
        .respond("no/closure", 5)
        .respond_blocking("async", |a: i64| async move { Ok(a) })
        .respond_blocking("no/ok", |a: i64| a);
}
