//! Tells the bench the name of the profile it was built with, which cargo tells nobody else: it is the
//! folder under the target folder. `--check` believes figures of the profile `dist` alone.

fn main() {
    // OUT_DIR is <target>[/<triple>]/<profile folder>/build/<package>-<hash>/out
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let folder = std::path::Path::new(&out).ancestors().nth(3);
    let profile = folder.and_then(|f| f.file_name()).and_then(|n| n.to_str());
    println!(
        "cargo:rustc-env=BENCH_PROFILE={}",
        profile.unwrap_or("unknown")
    );
    println!("cargo:rerun-if-changed=build.rs");
}
