//! Has the server built anew when the page was: its files are embedded by name, and the compiler only watches those it
//! knew. Nothing is built here; that is `cargo xtask demo`'s, and a server without the page says so itself.

fn main() {
    println!("cargo:rerun-if-changed=../web/dist");
}
