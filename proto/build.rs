//! Compiles the contract with protox, a Protobuf compiler in Rust: a fresh machine needs no `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "zbl/v1/account_service.proto",
        "zbl/v1/lab_service.proto",
        "zbl/v1/queue_service.proto",
        "zbl/v1/report_service.proto",
        "zbl/v1/timeline.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
