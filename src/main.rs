//! The front door: installs the one TLS provider, then hands over to the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two TLS providers in one process panic at first use; this one is chosen before anything connects.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("stillframe: a TLS provider was installed twice");
        return ExitCode::FAILURE;
    }
    stillframe::cli::run()
}
