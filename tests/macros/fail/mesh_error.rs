use meshwork::{CallError, MeshError};

#[derive(Debug, MeshError)]
struct NoEnum {
    sku: String,
}

#[derive(Debug, MeshError)]
enum NoCall {
    OutOfStock,
}

#[derive(Debug, MeshError)]
enum Faults<'a, T> {
    Borrowed(&'a str),
    Generic(T),
    Call(CallError),
}

#[derive(Debug, MeshError)]
#[mesh(code = "E")]
#[mesh(name = "")]
enum Keys {
    #[mesh(cod = "E")]
    Unknown,
    #[mesh(code = "")]
    Empty,
    #[mesh(code = 1.5)]
    Float,
    #[mesh(code = 18446744073709551616)]
    Long,
    #[mesh(code = 1, code = 2)]
    Twice,
    #[mesh(code = "Same")]
    One,
    Same,
    Field {
        #[mesh(opaque)]
        on_the_field: u8,
    },
    Pair(CallError, u8),
    #[mesh(code = "E_CALL")]
    Call(#[from] CallError),
}

fn call() -> Result<(), NoCall> {
    // No second error: what is refused can still be made of the error of a call.
    Err(CallError::new(meshwork::Code::UNKNOWN, meshwork::Fate::Failed, "no"))?
}

fn main() {
    let _ = call();
}
