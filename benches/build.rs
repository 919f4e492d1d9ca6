//! tonic's client and server from a description in Rust, so that no protoc has to be installed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::candidate::tonic::{input}"))
            .output_type(format!("crate::candidate::tonic::{output}"))
            .codec_path("tonic_prost::ProstCodec")
    };
    let service = Service::builder()
        .name("Bench")
        .package("bench")
        .method(method("add", "Add", "Numbers", "Sum").build())
        .method(method("echo", "Echo", "Blob", "Blob").build())
        .method(method("stream", "Stream", "Len", "Blob").server_streaming().build())
        .build();
    Builder::new().compile(&[service]);
}
