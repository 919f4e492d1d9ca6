use meshwork::{CallError, MeshError};

#[derive(Debug, MeshError)]
enum NoDisplay {
    OutOfStock,
    Call(CallError),
}

fn main() {}
